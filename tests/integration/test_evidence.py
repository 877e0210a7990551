"""What `explain --evidence` writes, and that a script which shares no code with us finds whatever is changed in it."""

from __future__ import annotations

import csv
import datetime as dt
import errno
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from psycopg import sql

from merchant_usage import clock
from merchant_usage.cli import evidence_files
from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from merchant_usage.model.keys import CounterKey
from merchant_usage.sink import period
from merchant_usage.sink.queries import query
from merchant_usage.steps.evidence import days_of
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.hostile import HOSTILE
from tests.integration.test_grants import PIPELINE, ROLE, role, url_as
from tests.support import NOW, PROJECT, TODAY, YESTERDAY, Connect, Usage, key, raw

SCRIPT = PROJECT / "docs" / "reference" / "check_evidence.py"
VERIFY_SEAL = PROJECT / "docs" / "reference" / "verify_seal.py"
BEFORE = YESTERDAY - dt.timedelta(days=1)
PERIOD = ("--from", str(BEFORE), "--to", str(TODAY))

Write: TypeAlias = Callable[..., Path]
__all__ = ["role"]  # a fixture


@pytest.fixture
def write(
    usage: Usage, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Write:
    """Write evidence of two days that are over and one that is not, or of what is asked for, into a new folder."""
    assert usage.rows() == {}
    monkeypatch.setenv(POSTGRES_URL, database_url)
    number = 0

    def run(*words: str, now: dt.datetime = NOW) -> Path:
        nonlocal number
        number += 1
        folder = tmp_path / f"evidence-{number}"
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda: now)
            assert main(["explain", "--evidence", str(folder), *(words or PERIOD)]) == 0, capsys.readouterr().err
        return folder

    return run


@pytest.fixture
def on_the_day(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day that the tests' today is."""
    del write
    monkeypatch.setattr(clock, "now", lambda: NOW)


@pytest.fixture
def proven(usage: Usage, write: Write) -> Write:
    """Two merchants, two days that are sealed and one that still grows."""
    for date, value in ((BEFORE, 100), (YESTERDAY, 20), (TODAY, 3)):
        calls = {key("acme", date, "calls"): value * 2}
        usage.write({key("acme", date): value, key("b:2", date): value + 1, **calls})
    usage.aggregate(BEFORE, YESTERDAY, TODAY, run_id="the run")
    return write


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file, strict=True)]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def states(folder: Path) -> dict[str, str]:
    return {day["date"]: day["state"] for day in table(folder / "days.csv")}


def checked(folder: Path, script: Path = SCRIPT) -> tuple[int, list[str]]:
    """Run a script of the docs where nothing of ours can be imported."""
    command = [sys.executable, "-I", str(script), str(folder)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()[-1:]]


def test_script_is_short_and_stands_alone() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert "import merchant_usage" not in text
    assert "from merchant_usage" not in text


def test_files_say_what_is_stored_and_what_shows_it(proven: Write) -> None:
    folder = proven()
    assert [(day["date"], day["counters"], day["total"], day["state"]) for day in table(folder / "days.csv")] == [
        (str(BEFORE), "3", "401", "proven"),
        (str(YESTERDAY), "3", "81", "proven"),
        (str(TODAY), "3", "13", "not proven"),
    ]
    rows = table(folder / "usage.csv")
    assert [(row["merchant_id"], row["date"], row["metric_type"], row["metric_value"]) for row in rows[:3]] == [
        ("acme", str(BEFORE), "calls", "200"),
        ("acme", str(BEFORE), "queries", "100"),
        ("acme", str(YESTERDAY), "calls", "40"),
    ]
    assert [(row["state"], row["seal_version"]) for row in rows if row["merchant_id"] == "b:2"] == [
        ("proven", "1"),
        ("proven", "1"),
        ("not proven", ""),
    ]
    assert {row["run_id"] for row in table(folder / "runs.csv")} == {"the run"}
    assert [(row["started_at"], row["settled"], row["verdict"]) for row in table(folder / "runs.csv")] == [
        ("2026-11-24T12:30:00.000000Z", "true", "verified"),
        ("2026-11-24T12:30:00.000000Z", "true", "verified"),
        ("2026-11-24T12:30:00.000000Z", "false", "verified"),
    ]
    assert {row["kind"] for row in table(folder / "events.csv")} == {"counted"}
    totals = json.loads((folder / "totals.json").read_text(encoding="utf-8"))
    assert (totals["merchants"], totals["counters"], totals["total"], totals["proven"]) == (2, 9, "495", 2)
    assert [row["merchant_id"] for row in table(folder / "merchants" / "index.csv")] == ["acme", "b:2"]
    page = (folder / "merchants" / "000001.html").read_text(encoding="utf-8")
    assert f'<h2 id="{YESTERDAY}">{YESTERDAY} <span class="proven">proven</span></h2>' in page
    assert "Runs that read it: 1. The last that verified its end: the run, begun at 2026-11-24 12:30:00 UTC." in page


def test_the_very_queries_are_there_and_every_file_has_its_digest(proven: Write) -> None:
    files = tree(proven())
    queries = {name for name in files if name.endswith(".sql")}
    assert len(queries) > 5
    assert all(files[name] == query(Path(name).stem) for name in queries)
    parameters = json.loads(files["queries/parameters.json"])
    assert (parameters["from_date"], parameters["merchant_ids"]) == (str(BEFORE), None)
    digests = dict(line.split("  ", 1)[::-1] for line in files.pop("SHA256SUMS").decode().splitlines())
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert all(name in files["README.txt"].decode() for name in files if "/" not in name and name != "README.txt")


def test_same_rows_same_bytes(proven: Write, usage: Usage) -> None:
    """Whenever they are asked for, whatever the database sets, and wherever they lie on disk."""
    first = tree(proven())
    usage.conn.execute(f"ALTER DATABASE {usage.conn.info.dbname} SET DateStyle = 'SQL, DMY'".encode())
    usage.conn.execute(f"ALTER DATABASE {usage.conn.info.dbname} SET TimeZone = 'Asia/Tokyo'".encode())
    usage.conn.execute("UPDATE merchant_usage SET carried = carried WHERE metric_type = 'calls'")
    usage.conn.execute("UPDATE usage_run SET error = error WHERE usage_date = %s", [BEFORE])
    assert tree(proven(now=NOW + dt.timedelta(hours=3))) == first


def test_script_agrees_with_what_we_write(proven: Write) -> None:
    folder = proven()
    assert checked(folder) == (
        0,
        [
            f"{BEFORE}: proven",
            f"{YESTERDAY}: proven",
            f"{TODAY}: not proven: no run has come to a verdict about its end",
            "Nothing differs.",
        ],
    )
    assert checked(folder / "seals.jsonl", VERIFY_SEAL) == (0, ["2 seals hold"])


def test_seals_are_one_piece_of_the_chain(proven: Write, usage: Usage) -> None:
    """Also where seals of other dates lie in between, and before."""
    usage.write({key("acme"): 21})
    usage.aggregate()
    folder = proven("--from", str(YESTERDAY), "--to", str(YESTERDAY))
    numbers = [json.loads(line)["seal_number"] for line in (folder / "seals.jsonl").read_text().splitlines()]
    assert numbers == [2, 3]
    assert checked(folder / "seals.jsonl", VERIFY_SEAL)[0] == 0
    (day,) = table(folder / "days.csv")
    assert (day["state"], day["seal_version"]) == ("proven", "2")
    folder = proven("--from", str(BEFORE), "--to", str(BEFORE))
    assert len((folder / "seals.jsonl").read_text().splitlines()) == 1
    assert checked(folder)[0] == 0


GAPS = {
    "no run": ("DELETE FROM usage_run WHERE usage_date = %(date)s", "no run has come to a verdict about its end"),
    "mismatch": (
        "UPDATE usage_run SET verdict = 'mismatch' WHERE usage_date = %(date)s",
        "the last verdict about its end is mismatch: PostgreSQL did not hold what Redis held",
    ),
    "incomplete": (
        "UPDATE usage_run SET verdict = 'incomplete' WHERE usage_date = %(date)s",
        "nobody read its end while its keys lived, so usage may be missing",
    ),
    "failed in part": (
        "UPDATE usage_run SET verdict = 'not_proven' WHERE usage_date = %(date)s",
        "the last run that read its end failed in part",
    ),
    "changed": (
        "UPDATE merchant_usage SET metric_value = 101 - metric_value WHERE date = %(date)s AND metric_type = 'queries'",
        "what is stored is not what was sealed as version 1",
    ),
    "not sealed": ("DELETE FROM usage_seal WHERE usage_date = %(date)s", "it has no seal"),
    "forged seal": (
        "UPDATE usage_seal SET counters = counters + 1 WHERE usage_date = %(date)s",
        "version 1 of its seal is not the one that was made: the chain of seals breaks there",
    ),
}


@pytest.mark.parametrize("gap", GAPS)
def test_planted_gap_reads_not_proven(
    gap: str, proven: Write, usage: Usage, capsys: pytest.CaptureFixture[str]
) -> None:
    statement, why = GAPS[gap]
    usage.conn.execute("ALTER TABLE usage_seal DISABLE TRIGGER append_only")
    usage.conn.execute(statement.encode(), {"date": YESTERDAY})
    folder = proven()
    assert f"{YESTERDAY} is not proven: {why}.\n" in capsys.readouterr().out
    assert states(folder) == {str(BEFORE): "proven", str(YESTERDAY): "not proven", str(TODAY): "not proven"}
    assert {row["state"] for row in table(folder / "usage.csv") if row["date"] == str(YESTERDAY)} == {"not proven"}
    for number in (1, 2):
        page = (folder / "merchants" / f"{number:06}.html").read_text(encoding="utf-8")
        assert f'{YESTERDAY} <span class="not">not proven</span></h2>\n<p>{why[0].upper()}{why[1:]}.</p>' in page
    code, lines = checked(folder)
    assert f"{YESTERDAY}: not proven: {why}" in lines
    assert code == (1 if gap == "forged seal" else 0)


def test_dates_nobody_used_or_knows_are_there(proven: Write, usage: Usage) -> None:
    first = BEFORE - dt.timedelta(days=2)
    usage.aggregate(first)
    folder = proven("--from", str(first), "--to", str(BEFORE))
    assert [(day["date"], day["counters"], day["verdict"], day["why"]) for day in table(folder / "days.csv")] == [
        (str(first), "0", "empty", "neither Redis nor PostgreSQL had anything of it, so that nothing was sealed"),
        (str(first + dt.timedelta(days=1)), "0", "", "no run has come to a verdict about its end"),
        (str(BEFORE), "3", "verified", ""),
    ]
    assert checked(folder)[0] == 0
    assert (folder / "merchants" / "000001.html").read_text().count("<p>Nothing is stored.</p>") == 2


def test_period_without_anything(write: Write) -> None:
    folder = write()
    assert set(states(folder).values()) == {"not proven"}
    assert table(folder / "usage.csv") == []
    assert (folder / "seals.jsonl").read_text() == ""
    assert checked(folder)[0] == 0


def test_decision_and_correction_are_told(usage: Usage, write: Write) -> None:
    usage.write({key("acme"): 5, key("zeta"): 1})
    usage.aggregate()
    usage.write({key("acme"): 3})
    usage.aggregate()
    waiting = write("acme", str(YESTERDAY))
    (day,) = table(waiting / "days.csv")
    assert (day["state"], day["why"]) == ("not proven", "a counter went backwards, and waits for a decision")
    assert [row["reason"] for row in table(waiting / "dead_letters.csv")] == ["counter_regressed"]

    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "anna", "counted <b>twice</b>"), "usage", date=YESTERDAY)
    usage.aggregate(now=NOW + dt.timedelta(days=1))
    folder = write("--from", str(YESTERDAY), "--to", str(YESTERDAY))
    (decision,) = table(folder / "decisions.csv")
    assert (decision["key"], decision["decision"], decision["decided_by"], decision["reason"]) == (
        raw(key("acme")).decode(),
        "accept",
        "anna",
        "counted <b>twice</b>",
    )
    assert (decision["value_before"], decision["value_after"]) == ("5", "3")
    kinds = [row["kind"] for row in table(folder / "events.csv") if row["merchant_id"] == "acme"]
    assert {"counted", "dead letter", "decision", "correction", "resolved"} == set(kinds)
    (day,) = table(folder / "days.csv")
    assert (day["state"], day["seal_version"], day["total"]) == ("proven", "2", "4")
    page = (folder / "merchants" / "000001.html").read_text(encoding="utf-8")
    assert "5 -&gt; 3. accept: counted &lt;b&gt;twice&lt;/b&gt; By anna." in page
    assert "sealed as version 2 (accept by anna: counted &lt;b&gt;twice&lt;/b&gt;): 4 in 2 counters" in page
    assert checked(folder)[0] == 0


def test_late_usage_is_told_as_a_correction_of_its_merchant(proven: Write, usage: Usage) -> None:
    usage.write({key("acme"): 25})
    usage.aggregate()
    folder = proven()
    found = [row for row in table(folder / "events.csv") if row["kind"] == "correction"]
    assert [(row["merchant_id"], row["metric_type"], row["value_before"], row["value_after"]) for row in found] == [
        ("acme", "", "60", "65")
    ]
    page, other = ((folder / "merchants" / f"{number:06}.html").read_text(encoding="utf-8") for number in (1, 2))
    assert "<td>correction</td><td>all metrics</td><td>60 -&gt; 65. " in page
    assert "correction" not in other
    assert checked(folder)[0] == 0


def test_decision_of_a_whole_date_is_told_on_each_page(proven: Write, usage: Usage) -> None:
    usage.conn.execute(
        "INSERT INTO usage_decision (usage_date, decision, decided_by, decided_at, reason)"
        " VALUES (%s, 'keep', 'anna', '2026-11-24 13:00:00+00', 'a log of the API')",
        [YESTERDAY],
    )
    folder = proven("--merchant", "b:2", *PERIOD)
    assert [(row["key"], row["decided_by"]) for row in table(folder / "decisions.csv")] == [("", "anna")]
    told = "<li>2026-11-24 13:00:00 UTC: keep by anna, of the whole date: a log of the API.</li>"
    assert told in (folder / "merchants" / "000001.html").read_text(encoding="utf-8")


def test_dates_that_have_expired_since_stay_proven(proven: Write, usage: Usage) -> None:
    usage.client.flushall()
    usage.aggregate(BEFORE, now=NOW + dt.timedelta(days=9))
    assert states(proven())[str(BEFORE)] == "proven"


class Tags(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_hostile_ids_are_text_on_pages_and_exact_in_tables(usage: Usage, write: Write) -> None:
    ids = [*HOSTILE, "..", "/", "C:\\con", "x" * 1024, "é" * 512, 'a,b\r\n"c"', "'quoted'", "@SUM(1)", "+1", "'"]
    counters = {CounterKey(merchant, YESTERDAY, "<b>=1+1</b>\t,'\""): number for number, merchant in enumerate(ids)}
    usage.write(counters)
    usage.aggregate()
    folder = write()
    found = {row["merchant_id"]: row for row in table(folder / "usage.csv")}
    assert {merchant: int(row["metric_value"]) for merchant, row in found.items()} == {
        counter.merchant_id: value for counter, value in counters.items()
    }
    assert {row["metric_type"] for row in found.values()} == {"<b>=1+1</b>\t,'\""}
    index = {row["page"]: row["merchant_id"] for row in table(folder / "merchants" / "index.csv")}
    assert sorted(index.values()) == sorted(ids)
    assert {path.name for path in (folder / "merchants").iterdir()} == {"index.csv", *index}
    assert all(re.fullmatch(r"\d{6}\.html", name) for name in index)
    for name in index:
        page = (folder / "merchants" / name).read_text(encoding="utf-8")
        seen = Tags(page)
        assert seen.tags <= {
            *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "table", "tr", "th", "td"),
            *("details", "summary", "ul", "li"),
        }
        assert seen.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "id"}
        assert all(c.isprintable() or c == "\n" for c in page)
    assert f"Usage of {'x' * 1024}" in "".join(
        text for name in index for text in Tags((folder / "merchants" / name).read_text(encoding="utf-8")).texts
    )
    assert checked(folder)[0] == 0


def test_keys_that_are_no_text_are_there_exactly(proven: Write, usage: Usage) -> None:
    bad = b"usage:\xff\n:" + str(YESTERDAY).encode() + b":queries"
    usage.client.set(bad, "1")
    usage.write({key("b:2", metric_type="half"): "0.5"})
    usage.aggregate(now=NOW)
    usage.conn.execute("UPDATE usage_dead_letter SET first_seen_at = %(at)s, last_seen_at = %(at)s", {"at": NOW})
    letters = {row["reason"]: row for row in table(proven() / "dead_letters.csv")}
    assert set(letters) == {"malformed_key", "not_an_integer"}
    assert letters["malformed_key"]["key"] == f"usage:\\xff\n:{YESTERDAY}:queries"
    assert (
        subprocess.run(
            ["base64", "-d"], input=letters["malformed_key"]["key_base64"].encode(), capture_output=True, check=True
        ).stdout
        == bad
    )
    (letter,) = table(proven("--merchant", "b:2", *PERIOD) / "dead_letters.csv")
    assert letter["reason"] == "not_an_integer"
    assert table(proven("acme", *PERIOD) / "dead_letters.csv") == []


def test_evidence_of_some_merchants_has_theirs_alone(proven: Write, usage: Usage) -> None:
    usage.aggregate(merchants=("acme",), run_id="of acme")
    folder = proven("--merchant", "nobody", "--merchant=b:2", *PERIOD)
    assert {row["merchant_id"] for row in table(folder / "usage.csv")} == {"b:2"}
    assert {row["run_id"] for row in table(folder / "runs.csv")} == {"the run"}
    assert [(row["merchant_id"], row["total"]) for row in table(folder / "merchants" / "index.csv")] == [
        ("b:2", "126"),
        ("nobody", "0"),
    ]
    assert [name for name, content in tree(folder).items() if b"acme" in content] == []
    assert states(folder)[str(YESTERDAY)] == "proven", "by the seal over all merchants"
    assert checked(folder)[0] == 0


def test_one_merchant_and_date_as_explain_takes_them(proven: Write) -> None:
    folder = proven("acme", str(YESTERDAY))
    assert {(row["merchant_id"], row["date"]) for row in table(folder / "usage.csv")} == {("acme", str(YESTERDAY))}
    assert [*states(folder)] == [str(YESTERDAY)]
    assert checked(folder)[0] == 0


@pytest.mark.usefixtures("on_the_day")
def test_programs_get_the_totals(proven: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = proven()
    capsys.readouterr()
    assert main(["explain", "--evidence", str(tmp_path / "other"), *PERIOD, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "totals.json").read_text())


@pytest.mark.usefixtures("on_the_day")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--evidence", "", *PERIOD], "--evidence='' is no folder"),
        (["acme", "--evidence", "new"], "MERCHANT='acme' is without a date: give DATE after it"),
        (["acme", str(YESTERDAY), "calls", "--evidence", "new"], "METRIC='calls': evidence is of all metrics"),
        (["acme", str(YESTERDAY), *PERIOD, "--evidence", "new"], "One date, or --from and --to"),
        (["", str(YESTERDAY), "--evidence", "new"], "MERCHANT=''"),
        (["--merchant=", *PERIOD, "--evidence", "new"], "--merchant=''"),
        (["--from", "2026-11-25", "--evidence", "new"], "--from=2026-11-25 is in the future"),
        (["--evidence", "no/such/folder", *PERIOD], "cannot be written: No such file or directory"),
        (["acme"], "explain takes MERCHANT and DATE"),
        (["acme", str(YESTERDAY), "--from", "yesterday"], "--from, --to and --merchant go with --evidence DIR"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures("on_the_day")
def test_what_is_there_is_left_as_it_is(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file, empty = tmp_path / "full", tmp_path / "file", tmp_path / "empty"
    folder.mkdir()
    empty.mkdir()
    (folder / "mine").write_text("mine")
    file.write_text("a file")
    for taken in (folder, file):
        assert main(["explain", "--evidence", str(taken), *PERIOD]) == 2
        assert "is there already; it takes a folder that does not exist, or is empty." in capsys.readouterr().err
    assert main(["explain", "--evidence", str(empty), *PERIOD]) == 0
    assert tree(write()) == tree(empty)
    assert (tree(folder), file.read_text()) == ({"mine": b"mine"}, "a file")


@pytest.mark.usefixtures("proven", "on_the_day")
@pytest.mark.parametrize(
    ("error", "code"), [(OSError(errno.ENOSPC, "No space left on device"), 2), (KeyboardInterrupt(), 130)], ids=str
)
def test_what_ends_half_way_leaves_nothing(
    error: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr(evidence_files, "_totals", stop)
    assert main(["explain", "--evidence", str(tmp_path / "new"), *PERIOD]) == code
    assert [*tmp_path.iterdir()] == []


def test_all_files_are_of_one_moment(proven: Write, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(proven())

    def change_afterwards(*given: Any) -> Any:
        days = days_of(*given)
        connect().execute("UPDATE merchant_usage SET metric_value = metric_value + 1")
        return days

    monkeypatch.setattr(evidence_files, "days_of", change_afterwards)
    assert tree(proven()) == before


def test_evidence_changes_nothing_in_the_database(proven: Write, usage: Usage) -> None:
    before = usage.everything()
    proven()
    assert usage.everything() == before
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), period.snapshot(usage.conn):
        usage.conn.execute("DELETE FROM usage_run")


@pytest.mark.usefixtures("on_the_day")
def test_a_right_that_is_lacking_is_named(
    usage: Usage,
    role: str,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage.conn.execute(PIPELINE)
    usage.conn.execute(sql.SQL("REVOKE SELECT ON usage_seal FROM {}").format(sql.Identifier(role)))
    monkeypatch.setenv(POSTGRES_URL, url_as(ROLE, database_url))
    assert main(["explain", "--evidence", str(tmp_path / "new"), *PERIOD]) == 3
    assert f"The PostgreSQL role {ROLE} lacks SELECT on usage_seal. " in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert len(re.findall(old, text)) > 0
        path.write_text(re.sub(old, new, text, count=1), encoding="utf-8")

    return change


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


FORGED = {
    "a value": (edit("usage.csv", r'"calls",200,', '"calls",201,'), f"{BEFORE}: days.csv has 401 in 3, usage.csv 402"),
    "two values, same sums": (
        both(edit("usage.csv", r'"calls",200,', '"calls",201,'), edit("usage.csv", r'"queries",100,', '"queries",99,')),
        f"{BEFORE}: usage.csv is not what was sealed as version 1",
    ),
    "what is carried": (edit("usage.csv", r'"calls",200,0,', '"calls",200,7,'), "is not what was sealed as version 1"),
    "a merchant's name": (edit("usage.csv", '"acme"', '"aaaa"'), "merchants/index.csv is not what usage.csv adds up"),
    "a row removed": (edit("usage.csv", r'\n"acme",.*', ""), f"{BEFORE}: days.csv has 401 in 3, usage.csv 201 in 2"),
    "a row twice": (edit("usage.csv", r'(\n"b:2",.*)', r"\1\1"), "usage.csv: a counter stands twice, or out of order"),
    "a row of another date": (
        edit("usage.csv", rf'"b:2","{BEFORE}"', '"b:2","2026-01-01"'),
        "usage.csv has other dates than days.csv",
    ),
    "a day missing": (edit("days.csv", rf'"{YESTERDAY}".*\n', ""), f"does not have the dates {BEFORE} to {TODAY}"),
    "a day's total": (edit("days.csv", "401", "402"), f"{BEFORE}: days.csv has 402 in 3, usage.csv 401 in 3 counters"),
    "a day called proven": (
        edit("days.csv", rf'"{TODAY}",2,3,13,"not proven"', f'"{TODAY}",2,3,13,"proven"'),
        f"{TODAY}: days.csv does not name the newest seal of seals.jsonl",
    ),
    "a day called not proven": (edit("days.csv", '"proven"', '"not proven"'), "totals.json is not what is there"),
    "the total of all": (edit("totals.json", '"495"', '"496"'), "totals.json is not what is there"),
    "a merchant's total": (edit("merchants/index.csv", '"acme",6,', '"acme",7,'), "merchants/index.csv is not what"),
    "a seal's total": (edit("seals.jsonl", '"401"', '"402"'), "seals.jsonl: a seal is not what its chain is over"),
    "a seal missing": (edit("seals.jsonl", ".*\n", ""), f"{BEFORE}: days.csv does not name the newest seal"),
    "a file missing": (lambda folder: (folder / "seals.jsonl").unlink(), "No such file or directory"),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_script_finds(forgery: str, proven: Write) -> None:
    change, told = FORGED[forgery]
    folder = proven()
    change(folder)
    code, lines = checked(folder)
    assert code == 1
    assert [line for line in lines if told in line], lines


def test_script_finds_a_gap_in_the_chain(proven: Write, usage: Usage) -> None:
    for value in (30, 40):
        usage.write({key("acme"): value})
        usage.aggregate()
    folder = proven()
    edit("seals.jsonl", r"(?s)\n.*?\n", "\n")(folder)
    assert checked(folder) == (1, [*checked(folder)[1][:3], "seals.jsonl: the chain has a gap"])
