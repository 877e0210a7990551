"""Names of 64 MB, values of 100 MB, a hundred thousand dates: what lies there is told, and costs bounded bytes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bench.memory import peak_megabytes
from local.servers import Valkey
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Run
from merchant_usage.source.counters import read_page, read_pages, scan_pages
from merchant_usage.steps.cleanup import delete_stale
from merchant_usage.steps.scan import MAX_OLD_DATES
from tests.faults.engine import Hear, Job, in_another_process, run_whole
from tests.faults.leftovers import assert_nothing_left
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

MEGABYTE = 2**20
GOOD = 5_000
# Whatever lies below the prefix.
MOST_MEGABYTES = 128


@pytest.fixture
def large(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """A Redis that is emptied at once afterwards, and not when the next test comes."""
    yield redis_client
    redis_client.flushall()


def good_counters() -> dict[CounterKey, int]:
    return {key(f"m{n:04}", day): n for n in range(GOOD // 2) for day in (YESTERDAY, TODAY)}


def run_measured(job: Job, _: Hear) -> None:
    """Run, and write down what the process took at its peak."""
    reports = run_whole(job)
    job.folder.joinpath("measured.json").write_text(json.dumps([peak_megabytes(), reports]))


def measured(job: Job) -> tuple[float, list[dict[str, Any]]]:
    """Peak memory in MB, and the report of each date."""
    in_another_process(run_measured, job)
    peak, reports = json.loads(job.folder.joinpath("measured.json").read_text())
    return peak, reports


def bytes_sent(client: redis.Redis) -> int:
    """What the server has sent to all clients so far."""
    stats: Any = client.info("stats")
    return int(stats["total_net_output_bytes"])


@pytest.mark.usefixtures("quiet")
def test_names_of_64_megabytes(
    usage: Usage, large: redis.Redis, valkey: Valkey, database_url: str, tmp_path: Path
) -> None:
    good = good_counters()
    usage.write(good)
    names = {}
    for n in range(18):
        # They begin alike, so that only the digest tells them apart.
        name = b"usage:" + b"x" * (64 * MEGABYTE) + b"%d:%s:queries" % (n, str(TODAY).encode())
        large.set(name, 1)
        names[hashlib.sha256(name).digest()] = len(name)
    job = Job(
        valkey.url, database_url, Run("the run", "manual", (YESTERDAY, TODAY), NOW), settings(), tmp_path / "first"
    )
    job.folder.mkdir()
    peak, reports = measured(job)
    assert usage.rows() == good
    assert [report["verdict"] for report in reports] == ["verified", "verified"]
    found = usage.conn.execute("SELECT redis_key, redis_key_sha256, reason, detail FROM usage_dead_letter").fetchall()
    assert {digest for _, digest, _, _ in found} == set(names)
    assert {row[0] for row in found} == {b"usage:" + b"x" * 1018}
    assert {row[2] for row in found} == {"malformed_key"}
    assert all(f"the name has {names[digest]} bytes" in detail for _, digest, _, detail in found)
    assert peak < MOST_MEGABYTES
    # A second run finds the same ones, and one that is gone.
    gone = b"usage:" + b"x" * (64 * MEGABYTE) + b"0:%s:queries" % str(TODAY).encode()
    large.delete(gone)
    usage.aggregate(YESTERDAY)
    letters = usage.conn.execute("SELECT redis_key_sha256, attempts, resolved_at FROM usage_dead_letter").fetchall()
    assert {digest: attempts for digest, attempts, resolved_at in letters if resolved_at is None} == {
        digest: 2 for digest in names if digest != hashlib.sha256(gone).digest()
    }
    assert_nothing_left(usage.conn)


@pytest.mark.usefixtures("quiet")
def test_values_of_100_megabytes(
    usage: Usage, large: redis.Redis, valkey: Valkey, database_url: str, tmp_path: Path
) -> None:
    good = good_counters()
    usage.write(good)
    bad = [key(f"bad{n}", day) for n in range(5) for day in (YESTERDAY, TODAY)]
    for counter in bad:
        large.setrange(raw(counter), 100 * MEGABYTE, "x")
    for attempt in (1, 2):
        run = Run(f"run {attempt}", "manual", (YESTERDAY, TODAY), NOW)
        job = Job(valkey.url, database_url, run, settings(), tmp_path / str(attempt))
        job.folder.mkdir()
        before = bytes_sent(large)
        peak, reports = measured(job)
        assert usage.rows() == good
        assert [(report["verdict"], report["dead_letters"]) for report in reports] == [("verified", 5)] * 2
        letters = usage.letters()
        assert {(letter.redis_key, letter.reason) for letter in letters} == {(raw(k), "not_an_integer") for k in bad}
        assert peak < MOST_MEGABYTES
    assert bytes_sent(large) - before < 10 * MEGABYTE, "what is known to be large is not asked for as a whole"
    large.delete(*map(raw, bad))
    usage.write({bad[0]: 7})
    usage.aggregate(YESTERDAY, TODAY)
    assert usage.rows() == good | {bad[0]: 7}
    assert all(letter.resolved for letter in usage.letters())


def test_a_page_with_a_large_value_is_read_through_and_those_after_it_are_asked_for_beginnings(
    large: redis.Redis,
) -> None:
    class Page:
        def __init__(self, *raw_keys: bytes) -> None:
            self.raw_keys = raw_keys

    large.mset({"a": "1", "b": "2", "long": "9" * 70, "empty": ""})
    large.setrange("large", 9 * MEGABYTE, "x")
    large.lpush("list", "1")
    pages = [Page(b"a"), Page(b"b", b"large", b"a"), *[Page(b"a", b"large", b"list", b"long", b"gone", b"empty")] * 5]
    before = bytes_sent(large)
    answers = [values for _, values in read_pages(large, pages)]
    assert answers[:1] == [[b"1"]]
    assert answers[1] == [b"2", bytes(1024), b"1"]
    assert answers[-1] == [b"1", bytes(65), None, b"9" * 65, None, None]
    # The page after it was under way.
    assert bytes_sent(large) - before < 3 * 9 * MEGABYTE
    reasons = [getattr(value, "reason", value) for value in read_page(large, pages[-1].raw_keys)]
    assert reasons == [1, "not_an_integer", "wrong_type", "out_of_range", None, "not_an_integer"]
    assert reasons == [getattr(value, "reason", value) for value in read_page(large, pages[-1].raw_keys, careful=True)]


def test_a_user_who_may_not_ask_for_beginnings(large: redis.Redis, valkey: Valkey) -> None:
    large.mset({"usage:a": "1", "usage:b": "2"})
    large.setrange("usage:large", 9 * MEGABYTE, "x")
    large.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">word", "~usage:*", "+mget", "+type", "+scan")
    try:
        with redis.Redis.from_url(re.sub("//.*@", "//reader:word@", valkey.url)) as client:
            keys = [b"usage:a", b"usage:large", b"usage:gone"]
            for careful in (False, True):
                first, second, third = read_page(client, keys, careful=careful)
                assert (first, getattr(second, "reason", None), third) == (1, "not_an_integer", None)
            assert {name for page in scan_pages(client, "usage", 10) for name in page} == {
                b"usage:a",
                b"usage:b",
                b"usage:large",
            }
    finally:
        large.execute_command("ACL", "DELUSER", "reader")


def test_a_page_of_many_names_is_the_same_when_it_is_too_large_for_one_piece(large: redis.Redis) -> None:
    names = {b"usage:%d:" % n + b"y" * 3000 for n in range(3000)} | {b"usage:%d" % n for n in range(3000)}
    large.mset(dict.fromkeys(names, "1"))
    long_name = b"usage:" + b"z" * 5000
    large.set(long_name, "1")
    found = [name for page in scan_pages(large, "usage", 100_000) for name in page]
    assert set(found) - names == {long_name[:1024]}
    assert names - set(found) == set()


def test_many_old_dates_are_cleaned_up_so_many_a_run(usage: Usage) -> None:
    old = {key("acme", TODAY - dt.timedelta(days=100 + n)): n for n in range(2 * MAX_OLD_DATES + 50)}
    usage.write(old | {key("acme"): 7})
    for run, number in enumerate((MAX_OLD_DATES, MAX_OLD_DATES, 50), start=1):
        proof = usage.aggregate(delete_stale_keys=True, run_id=f"run {run}")
        assert set(usage.verdicts(proof).values()) == {"verified"}
        taken = [report.date for report in proof.reports if report.date != YESTERDAY]
        assert len(taken) == number
        assert delete_stale(usage.client, usage.conn, old, taken, "usage").deleted == number
    assert usage.rows() == old | {key("acme"): 7}
    assert usage.client.keys() == [raw(key("acme"))]


def test_no_keys_have_no_values(large: redis.Redis) -> None:
    assert read_page(large, []) == read_page(large, [], careful=True) == []
