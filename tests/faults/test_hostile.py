"""A hundred thousand hostile keys and values among the good ones: nobody is stopped, and nothing grows with them."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from local.servers import Valkey
from merchant_usage.model import dead_letter
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Run
from merchant_usage.source.counters import MAX_VALUE
from tests.faults.engine import Hear, Job, in_another_process, run_whole
from tests.faults.leftovers import assert_nothing_left
from tests.support import NOW, TODAY, TOMORROW, YESTERDAY, Usage, raw, settings

HOSTILE = 100_000
GOOD = 20_000
TASKS = 4
# What 70 000 merchants with ids and metric types all of their own may take: 1.8 kB each, and nothing for bad keys.
MOST_MEMORY = 128 * 2**20

ODD_TEXT = [
    "é",
    "🎉",
    "e\u0301",
    "\u202e",
    "\\",
    "\\N",
    "\\.",
    "\t",
    "\n",
    "\r",
    "*",
    "%s",
    "'",
    '"',
    ";",
    "{x}",
    " ",
    "a",
    "0",
]
NO_DATES = ["2026-02-30", "2026-1-1", "0000-00-00", "\uff12\uff10\uff12\uff16-11-24", ""]


def odd_id(dice: random.Random, number: int) -> str:
    return "".join(dice.choices([*ODD_TEXT, ":"], k=dice.randrange(12))) + f"{number}"


BAD_NAMES: list[Callable[[random.Random, int], bytes]] = [
    lambda dice, n: b"usage:" + dice.randbytes(12).replace(b":", b"") + b"%d" % n,
    lambda dice, n: b"usage:" + dice.randbytes(6) + b"\xff%d:%s:q" % (n, str(TODAY).encode()),
    lambda dice, n: b"usage:m%d\0%s:%s:q" % (n, dice.randbytes(2).replace(b"\xff", b""), str(TODAY).encode()),
    lambda _, n: b"usage::%s:%d" % (str(TODAY).encode(), n) if n % 2 else b"usage:m%d:%s:" % (n, str(TODAY).encode()),
    lambda dice, n: f"usage:m{n}:{dice.choice(NO_DATES)}:q".encode(),
    lambda _, n: f"usage:m{n}:{TOMORROW}:q".encode(),
    lambda _, n: f"usage:{'x' * 1020}{n:09}:{TODAY}:q".encode(),
    lambda _, n: f"usage:m{n}:{TODAY}:{'y' * 260}".encode(),
]
BAD_VALUES: list[Callable[[random.Random, int], bytes]] = [
    lambda dice, _: dice.randbytes(20) + b"x",
    lambda dice, _: dice.choice(
        [b"1_000", b" 1", b"1 ", b"+1", b"1.0", b"1e3", b"0x10", "\uff11\uff12".encode(), b"", b"1\0"]
    ),
    lambda _, n: b"-%d" % (n + 1),
    lambda dice, _: str(MAX_VALUE + dice.randrange(1, 2**64)).encode(),
    lambda dice, _: b"9" * dice.randrange(20, 5000),
]


def fill(client: redis.Redis) -> tuple[dict[CounterKey, int], dict[Any, int], int]:
    """Good counters, the number of bad values by date, and the number of bad names."""
    dice = random.Random(2026)  # noqa: S311 - nothing secret
    good: dict[CounterKey, int] = {}
    bad_values, bad_names = {YESTERDAY: 0, TODAY: 0}, set()
    pipe = client.pipeline(transaction=False)
    for n in range(HOSTILE + GOOD):
        day = dice.choice([YESTERDAY, TODAY])
        counter = CounterKey(odd_id(dice, n), day, odd_id(dice, n).replace(":", ""))
        if n < GOOD:
            good[counter] = dice.choice([0, n, MAX_VALUE - n])
            pipe.set(raw(counter), good[counter])
        elif n % 2:
            name = dice.choice(BAD_NAMES)(dice, n)
            bad_names.add(name)
            pipe.set(name, 1)
        else:
            bad_values[day] += 1
            if n % 20 == 0:
                pipe.rpush(raw(counter), 1)
            else:
                pipe.set(raw(counter), dice.choice(BAD_VALUES)(dice, n))
        if n % 5000 == 0:
            pipe.execute()
    pipe.execute()
    return good, bad_values, len(bad_names)


def run_measured(job: Job, _: Hear) -> None:
    """Run, and write down by how much the process grew at most."""
    before = psutil.Process().memory_info().rss
    reports = run_whole(job)
    # In kilobytes on Linux, in bytes on macOS.
    unit = 1024 if psutil.LINUX else 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    job.folder.joinpath("measured.json").write_text(json.dumps([grown, reports]))


@pytest.mark.usefixtures("quiet")
def test_hundred_thousand_hostile_keys_and_values(
    usage: Usage, valkey: Valkey, database_url: str, tmp_path: Path
) -> None:
    good, bad_values, bad_names = fill(usage.client)
    assert sum(bad_values.values()) + bad_names == HOSTILE
    run = Run("the run", "scheduled", (YESTERDAY, TODAY), NOW)
    job = Job(valkey.url, database_url, run, settings(max_mapped_tasks=TASKS), tmp_path)
    for _ in range(2):
        in_another_process(run_measured, job)
        grown, reports = json.loads(tmp_path.joinpath("measured.json").read_text())
        assert usage.rows() == good
        assert {report["date"]: report["verdict"] for report in reports} == {
            str(YESTERDAY): "verified",
            str(TODAY): "verified",
        }
        assert {report["date"]: report["dead_letters"] for report in reports} == {
            str(day): number for day, number in bad_values.items()
        }, "all are counted"
        assert grown < MOST_MEMORY
        key_reasons = [letter for letter in usage.letters() if letter.reason in Reason.key_reasons()]
        of_values = len(usage.letters()) - len(key_reasons)
        assert 0 < len(key_reasons) <= 2 * 10_000 < bad_names, "a scan writes down so many"
        assert 0 < of_values <= 2 * TASKS * 1000, "a batch writes down so many"
        assert max(len(letter.detail) for letter in usage.letters()) <= dead_letter.MAX_DETAIL
    others = {Reason.COUNTER_REGRESSED, Reason.ON_TWO_SERVERS, Reason.TOO_LATE}
    assert {letter.reason for letter in usage.letters()} == {*Reason} - others
    assert_nothing_left(usage.conn)
