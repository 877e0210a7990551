"""No date is sealed that is known, or could be known, to be wrong: what a long life did to dates, told step by step."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from merchant_usage import pipeline
from merchant_usage.errors import UsageError
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.model.run import Run
from merchant_usage.settings import Settings
from merchant_usage.sink.lag import proven_until
from merchant_usage.steps import scan
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.faults.long_life import DAY, HOUR, Life, at, is_sealed, open_letters, rule
from tests.support import NOW, TODAY, YESTERDAY, Stored, Usage, key, raw, settings

#: Its keys may have expired by now, the first hours of it must have.
OLD = TODAY - 8 * DAY
ACME, BETA, ZETA = key("acme"), key("beta"), key("zeta")


def newest_error(usage: Usage, date: dt.date) -> str:
    row = usage.conn.execute(
        "SELECT error FROM usage_run WHERE usage_date = %s ORDER BY started_at DESC, attempt DESC LIMIT 1", [date]
    ).fetchone()
    assert row is not None
    return row[0] or ""


# A counter that went backwards.


@pytest.mark.parametrize(
    "then",
    [
        pytest.param([1001], id="overtakes"),
        pytest.param([1001, 1500], id="overtakes and grows on"),
        pytest.param([None], id="vanishes"),
        pytest.param([1001, None], id="overtakes and vanishes"),
        pytest.param([1000], id="stands at what is stored, as if nothing had been"),
    ],
)
@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
def test_a_fall_that_nobody_decided_keeps_its_date_open(usage: Usage, date: dt.date, then: list[int | None]) -> None:
    acme = key("acme", date)
    for hours, value in enumerate([1000, 10, *then]):
        if value is None:
            usage.client.delete(raw(acme))
        else:
            usage.write({acme: value})
        proof = usage.aggregate(date, now=NOW + hours * HOUR)
        assert usage.verdicts(proof) == {date: "mismatch" if hours else "verified"}
    assert open_letters(usage) == [(raw(acme), Reason.COUNTER_REGRESSED)]
    assert not is_sealed(usage, date)
    early = settings(start=dt.datetime.combine(date, dt.time()))
    assert proven_until(usage.conn, NOW + 5 * HOUR, early).until <= NOW, "the lag says so"


def test_a_fall_is_no_matter_of_other_merchants(usage: Usage) -> None:
    usage.write({ACME: 100, BETA: 1})
    usage.aggregate()
    usage.write({ACME: 10})
    usage.aggregate()
    assert usage.verdicts(usage.aggregate(merchants=("beta",))) == {YESTERDAY: "verified"}
    assert usage.verdicts(usage.aggregate(merchants=("acme", "beta"))) == {YESTERDAY: "mismatch"}
    assert not is_sealed(usage, YESTERDAY)


@pytest.mark.usefixtures("quiet")
def test_flush_in_mid_day(life: Life, usage: Usage) -> None:
    """All begin anew and overtake by the evening, some of them between two runs."""
    counters = {key(f"m{n}", YESTERDAY): 10 * n for n in range(1, 6)}
    for counter, by in counters.items():
        life.count(counter, by)
    life.run(at(YESTERDAY, "10:00"))
    usage.client.flushall()
    for counter, by in counters.items():
        life.count(counter, by // 2 if by > 20 else by + 1)
    life.run(at(YESTERDAY, "11:00"))
    for counter, by in counters.items():
        life.count(counter, by)
    life.run_hours(at(YESTERDAY, "12:00"), at(TODAY, "05:00"))
    assert not is_sealed(usage, YESTERDAY)
    assert len(open_letters(usage)) == 3
    rule(usage, Decision.CARRY, date=YESTERDAY)
    life.run(at(TODAY, "06:00"))
    assert is_sealed(usage, YESTERDAY)
    # The two that overtook between two runs fell unseen; those that were seen to fall lose nothing.
    assert {counter: usage.rows()[counter] for counter, by in counters.items() if by > 20} == {
        counter: 2 * by + by // 2 for counter, by in counters.items() if by > 20
    }


# Nobody read the end of a date.


def old_life(life: Life, usage: Usage, counters: dict[CounterKey, int]) -> None:
    """On the old date runs went until noon; then nothing ran any more."""
    for counter, value in counters.items():
        life.count(counter, value)
    life.run_hours(at(OLD - DAY, "22:00"), at(OLD, "12:00"))
    assert usage.rows() == counters


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("late", [key("acme", OLD, "late"), key("late", OLD), None], ids=["metric", "merchant", "none"])
def test_one_late_counter_seals_no_lost_date(life: Life, usage: Usage, late: CounterKey | None) -> None:
    old_life(life, usage, {key("acme", OLD): 900, key("beta", OLD): 25})
    usage.client.flushdb()
    if late is not None:
        life.count(late, 3)
    life.run(at(TODAY, "12:00"))
    assert not is_sealed(usage, OLD)
    row = usage.conn.execute(
        "SELECT verdict, error FROM usage_run WHERE usage_date = %s AND settled ORDER BY started_at DESC", [OLD]
    ).fetchone()
    assert row is not None
    assert row[0] == "incomplete"
    assert f"last read at {OLD} 12:00" in row[1]
    assert "925" in row[1]
    life.run(at(TODAY, "13:00"))
    assert not is_sealed(usage, OLD)


@pytest.mark.usefixtures("quiet")
def test_an_incomplete_date_stays_so_until_a_person_decides(life: Life, usage: Usage) -> None:
    """That a run has said so is no reading of its end."""
    date = TODAY - 7 * DAY
    life.run(at(date, "01:00"))
    # Of this day one counter is left, which counted until the evening.
    life.count(key("acme", date), 5, ttl=HOUR)
    assert life.run(at(TODAY, "12:00"))[date] == "incomplete"
    for end in (at(TODAY, "13:00"), at(TODAY + DAY, "01:00"), at(TODAY + DAY, "02:00")):
        life.run(end)
        assert not is_sealed(usage, date)
    usage.aggregate(date, now=at(TODAY + DAY, "02:30"))
    assert not is_sealed(usage, date)


@pytest.mark.usefixtures("quiet")
def test_a_person_ends_an_incomplete_date(life: Life, usage: Usage) -> None:
    old_life(life, usage, {key("acme", OLD): 900})
    usage.client.flushdb()
    life.run(at(TODAY, "12:00"))
    assert not is_sealed(usage, OLD)
    life.now += HOUR / 2
    with pytest.raises(UsageError, match="takes --keep"):
        rule(usage, Decision.CARRY, date=OLD)
    rule(usage, Decision.KEEP, date=OLD)
    found = life.run(at(TODAY, "13:00"))
    assert found[OLD] in {"source_expired", "verified"}
    assert usage.rows() == {key("acme", OLD): 900}
    assert OLD not in life.run(at(TODAY, "14:00"))


@pytest.mark.usefixtures("quiet")
def test_what_a_person_ended_is_late_no_more(life: Life, usage: Usage) -> None:
    """Of the oldest date that the lag looks at nothing is left but what a person said of it."""
    date, since = TODAY - 7 * DAY, settings(start=at(TODAY - 7 * DAY, "00:00"))
    life.run(at(date, "01:00"))
    life.count(key("acme", date), 5, ttl=HOUR)
    assert life.run(at(TODAY, "12:00"))[date] == "incomplete"
    usage.client.flushdb()
    for days in range(1, 8):
        life.count(key("acme", date + days * DAY), 1)
    assert proven_until(usage.conn, at(TODAY, "12:00"), since).until < at(date, "02:00")
    life.now += HOUR / 2
    rule(usage, Decision.KEEP, date=date)
    assert life.run(at(TODAY, "13:00"))[date] == "source_expired"
    assert proven_until(usage.conn, at(TODAY, "13:00"), since).until >= at(TODAY, "12:00")


@pytest.mark.usefixtures("quiet")
def test_every_date_that_an_outage_took_is_told(life: Life, usage: Usage) -> None:
    """Its first and its last too: twelve days without a run, of which Redis has the last seven."""
    first = TODAY - 12 * DAY
    life.count(key("acme", first), 5)
    life.run(at(first, "12:00"))
    usage.client.flushdb()
    days = [first + n * DAY for n in range(13)]
    for day in days[6:]:
        life.count(key("acme", day), 7)
    life.run(at(TODAY, "12:00"))
    life.run(at(TODAY, "13:00"))
    told = {
        row[0]: row[1]
        for row in usage.conn.execute("SELECT usage_date, verdict FROM usage_run WHERE settled ORDER BY started_at")
    }
    assert {day for day in days if told.get(day) == "incomplete"} == set(days[:6])
    assert {day for day in days if is_sealed(usage, day)} == set(days[6:-1])


@pytest.mark.usefixtures("quiet")
def test_a_backup_older_than_the_retention_takes_its_dates_with_it(life: Life, usage: Usage) -> None:
    """PostgreSQL comes back as it was ten days ago; Airflow does not run those days again."""
    then = TODAY - 10 * DAY
    life.count(key("acme", then), 5)
    life.run(at(then, "12:00"))
    backup = usage.conn.execute("SELECT max(started_at) FROM usage_run").fetchone()
    assert backup == (at(then, "12:00"),)
    usage.client.flushdb()
    for days in range(8):
        life.count(key("acme", TODAY - days * DAY), 7)
    life.run(NOW)
    assert {day for day in (then + n * DAY for n in range(11)) if not is_sealed(usage, day)} == {
        then,
        then + DAY,
        then + 2 * DAY,
        # Some of its keys may have expired since midnight.
        then + 3 * DAY,
        TODAY,
    }
    for days in range(3):
        assert "nobody read the end" in newest_error(usage, then + days * DAY)


@pytest.mark.usefixtures("quiet")
def test_a_short_lived_counter_expires_before_the_others_of_its_date(life: Life, usage: Usage) -> None:
    """The TTL is set with each increment: one that counted in the morning only is gone, and was never read."""
    date = TODAY - 7 * DAY
    life.count(key("acme", date), 5)
    life.run(at(date, "08:00"))
    # One of 09:00 is gone by now; this one counted until the evening, and has ten hours left.
    usage.client.expire(raw(key("acme", date)), 10 * HOUR)
    life.run(at(TODAY, "12:00"))
    assert not is_sealed(usage, date)
    assert "nobody read the end" in newest_error(usage, date)


@pytest.mark.usefixtures("quiet")
def test_a_key_that_lives_for_ever_says_nothing_of_the_others(life: Life, usage: Usage) -> None:
    """One client forgets the TTL, the others do not."""
    life.count(key("acme", YESTERDAY), 1)
    life.count(key("forgets", OLD), 5, ttl=None)
    life.run(at(OLD - DAY, "12:00"))
    life.run(at(TODAY, "12:00"))
    assert not is_sealed(usage, OLD)


@pytest.mark.usefixtures("quiet")
def test_nothing_is_lost_where_no_key_ever_expires(life: Life, usage: Usage) -> None:
    life.count(key("acme", YESTERDAY), 1, ttl=None)
    life.count(key("forgets", OLD), 5, ttl=None)
    life.run(at(OLD, "12:00"))
    life.run(at(TODAY, "12:00"))
    assert is_sealed(usage, OLD)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("how", ["by hand", "by a scheduled run"])
def test_a_late_counter_that_lives_for_ever_seals_no_lost_date(life: Life, usage: Usage, how: str) -> None:
    """It is all that is left, and whoever counted it forgot the TTL: that says nothing of those that had one."""
    life.run(at(OLD - DAY, "12:00"))
    life.count(key("late", OLD), 3, ttl=None)
    life.now = NOW
    if how == "by hand":
        usage.aggregate(OLD)
    else:
        life.run(NOW)
    assert not is_sealed(usage, OLD)
    assert "nobody read the end" in newest_error(usage, OLD)
    assert usage.rows() == {key("late", OLD): 3}


def test_a_date_from_before_the_first_run_is_believed_where_no_key_expires(usage: Usage) -> None:
    usage.write({key("acme", OLD): 5})
    usage.aggregate(OLD)
    assert is_sealed(usage, OLD)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("ttl", "sealed"), [(2 * DAY, False), (4 * DAY, True)], ids=["two days", "four days"])
def test_an_outage_longer_than_a_ttl_that_is_shorter_than_the_retention(
    life: Life, usage: Usage, ttl: dt.timedelta, sealed: bool
) -> None:
    """Three days ago nothing ran. What the keys of today have to live tells that the first of then must be gone."""
    date = TODAY - 3 * DAY
    life.count(key("acme", date - DAY), 5, ttl=ttl)
    life.run(at(date - DAY, "12:00"))
    life.count(key("late", date), 3, ttl=HOUR)
    life.count(key("acme", TODAY), 1, ttl=ttl)
    life.run(at(TODAY, "15:00"))
    assert is_sealed(usage, date) == sealed
    assert ("nobody read the end" in newest_error(usage, date)) != sealed


# A key that vanishes.


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("merchants", [None, ("acme",)], ids=["all", "one merchant"])
def test_a_key_that_vanishes_after_a_run_that_came_to_no_verdict(
    life: Life, usage: Usage, merchants: tuple[str, ...] | None
) -> None:
    """The first run of the day stores it and dies, or was for some merchants: its rows are there all the same."""
    acme = key("acme", TODAY)
    life.count(acme, 50)
    life.now = at(TODAY, "01:00")
    run = Run("the run", "manual", (TODAY,), life.now, merchants)
    plan, batches = scan.scan(usage.client, usage.conn, run, life.settings)
    results = [pipeline.store(usage.client, usage.conn, batch, run.run_id, life.settings) for batch in batches]
    if merchants is not None:
        usage.prove(Stored(plan, batches, results))
    usage.client.delete(raw(acme))
    life.count(key("other", TODAY), 1)
    assert life.run(at(TODAY, "02:00"))[TODAY] == "mismatch"
    assert open_letters(usage) == [(raw(acme), Reason.COUNTER_REGRESSED)]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("decision", "value"),
    [(Decision.KEEP, 60), (Decision.CARRY, 110), (Decision.ACCEPT, 60)],
    ids=lambda each: str(each),
)
def test_a_key_that_vanishes_before_its_time_went_backwards(
    life: Life, usage: Usage, decision: Decision, value: int
) -> None:
    """And when it has begun anew and overtaken, that is no match."""
    today, other = key("acme", TODAY), key("other", TODAY)
    life.count(today, 50)
    life.count(other, 1)
    life.run(NOW)
    usage.client.delete(raw(today))
    assert life.run(NOW + HOUR)[TODAY] == "mismatch"
    assert open_letters(usage) == [(raw(today), Reason.COUNTER_REGRESSED)]
    life.count(today, 60)
    assert life.run(NOW + 2 * HOUR)[TODAY] == "mismatch"
    rule(usage, decision, key=raw(today))
    assert life.run(NOW + 3 * HOUR)[TODAY] == "verified"
    assert usage.rows()[today] == value


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("date", [TODAY, YESTERDAY], ids=["live", "over, and not read to its end"])
def test_a_key_that_stays_away(life: Life, usage: Usage, date: dt.date) -> None:
    acme = key("acme", date)
    life.count(acme, 50)
    life.count(key("other", date), 1)
    life.run(at(date, "12:30"))
    usage.client.delete(raw(acme))
    assert life.run(NOW + HOUR)[date] == "mismatch"
    assert not is_sealed(usage, date)
    rule(usage, Decision.KEEP, key=raw(acme))
    assert life.run(NOW + 2 * HOUR)[date] == "verified"
    assert usage.rows()[acme] == 50
    assert open_letters(usage) == []


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("age", "verdict"), [(1, "mismatch"), (7, "incomplete")], ids=["kept still", "its time over"])
@pytest.mark.parametrize("others", [True, False], ids=["one of two", "all"])
def test_a_key_that_vanishes_between_the_scan_and_storing(
    life: Life, usage: Usage, age: int, verdict: str, others: bool
) -> None:
    """The day is over, and a live run has stored what it had read by then."""
    date = TODAY - age * DAY
    acme, beta = key("acme", date), key("beta", date)
    for counter in (acme, beta):
        life.count(counter, 50)
    life.run(at(date, "23:00"))
    life.count(acme, 10)
    life.now = NOW
    run = Run("the run", "manual", (date,), NOW)
    plan, batches = scan.scan(usage.client, usage.conn, run, life.settings)
    usage.client.delete(raw(acme), *() if others else (raw(beta),))
    results = [pipeline.store(usage.client, usage.conn, batch, run.run_id, life.settings) for batch in batches]
    assert usage.verdicts(usage.prove(Stored(plan, batches, results))) == {date: verdict}
    assert not is_sealed(usage, date)


@pytest.mark.usefixtures("quiet")
def test_a_key_whose_ttl_is_shorter_than_the_retention_just_expires(life: Life, usage: Usage) -> None:
    life.count(key("acme", TODAY), 50, ttl=DAY)
    life.count(key("other", TODAY), 1, ttl=DAY)
    life.run(NOW)
    usage.client.delete(raw(key("acme", TODAY)))
    life.run(NOW + HOUR)
    assert open_letters(usage) == []


@pytest.mark.usefixtures("quiet")
def test_a_key_of_a_sealed_date_may_go(life: Life, usage: Usage) -> None:
    life.count(ACME, 50)
    life.count(BETA, 1)
    life.run(NOW)
    assert is_sealed(usage, YESTERDAY)
    usage.client.delete(raw(ACME))
    usage.aggregate()
    assert is_sealed(usage, YESTERDAY)
    assert open_letters(usage) == []


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("decision", "value"),
    [(Decision.KEEP, 65), (Decision.CARRY, 115), (Decision.ACCEPT, 65)],
    ids=lambda each: str(each),
)
@pytest.mark.parametrize("fails", [False, True], ids=["", "a run that dies before its verdict"])
def test_a_counter_that_comes_back_on_a_date_of_which_nothing_was_left(
    life: Life, usage: Usage, decision: Decision, value: int, fails: bool
) -> None:
    """The date was sealed. Redis lost it all, and what is counted late begins anew and overtakes."""
    life.count(ACME, 50)
    life.run(NOW)
    usage.client.delete(raw(ACME))
    life.now = NOW + HOUR
    assert usage.verdicts(usage.aggregate(now=life.now)) == {YESTERDAY: "source_expired"}
    life.count(ACME, 60)
    if fails:
        usage.store_only(now=NOW + HOUR + HOUR / 2)
    life.count(ACME, 5)
    for hours in (2, 3):
        life.now = NOW + hours * HOUR
        assert usage.verdicts(usage.aggregate(now=life.now)) == {YESTERDAY: "mismatch"}
        assert open_letters(usage) == [(raw(ACME), Reason.COUNTER_REGRESSED)]
    rule(usage, decision, key=raw(ACME))
    assert usage.verdicts(usage.aggregate(now=NOW + 4 * HOUR)) == {YESTERDAY: "verified"}
    assert usage.rows() == {ACME: value}
    life.count(ACME, 1)
    assert usage.verdicts(usage.aggregate(now=NOW + 5 * HOUR)) == {YESTERDAY: "verified"}
    assert usage.rows() == {ACME: value + 1}


@pytest.mark.parametrize("value", [50, 30], ids=["the same", "less"])
def test_redis_comes_back_with_a_backup_of_a_sealed_date(usage: Usage, value: int) -> None:
    usage.write({ACME: 50, BETA: 1})
    usage.aggregate()
    usage.client.flushdb()
    assert usage.verdicts(usage.aggregate(now=NOW + HOUR)) == {YESTERDAY: "source_expired"}
    usage.write({ACME: value, BETA: 1})
    usage.aggregate(now=NOW + 2 * HOUR)
    assert open_letters(usage) == ([(raw(ACME), Reason.COUNTER_REGRESSED)] if value < 50 else [])
    assert is_sealed(usage, YESTERDAY) == (value == 50)


# A counter that turns bad.


@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
def test_a_counter_that_is_bad_by_the_time_it_is_verified(usage: Usage, date: dt.date, logged: list[str]) -> None:
    acme = key("acme", date)
    usage.write({acme: 5, key("beta", date): 1})
    stored = usage.store_only(date)
    usage.write({acme: "x"})
    assert usage.verdicts(usage.prove(stored)) == {date: "mismatch"}
    assert open_letters(usage) == [(raw(acme), Reason.NOT_AN_INTEGER)]
    assert logged[-1].endswith("errors: 1")


@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
def test_a_stored_counter_that_turned_bad_keeps_its_date_open_until_it_is_good(usage: Usage, date: dt.date) -> None:
    acme = key("acme", date)
    usage.write({acme: 5, key("beta", date): 1})
    usage.aggregate(date)
    usage.write({acme: "x"})
    for _ in range(3):
        assert usage.verdicts(usage.aggregate(date)) == {date: "mismatch"}
    usage.write({acme: 8})
    assert usage.verdicts(usage.aggregate(date)) == {date: "verified"}
    assert usage.rows()[acme] == 8


@pytest.mark.usefixtures("quiet")
def test_garbage_over_midnight(life: Life, usage: Usage) -> None:
    """The run that settles the date finds a letter that is open already."""
    life.count(ACME, 5)
    life.count(BETA, 1)
    life.run(at(YESTERDAY, "23:00"))
    life.count(ACME, 2)
    usage.write({ACME: "x"})
    life.run_hours(at(TODAY, "00:00"), at(TODAY, "04:00"))
    assert not is_sealed(usage, YESTERDAY)
    usage.write({ACME: 7})
    life.run(at(TODAY, "05:00"))
    assert is_sealed(usage, YESTERDAY)
    assert usage.rows()[ACME] == 7


# Clean-up, and what comes late.


def cleaned(life: Life, usage: Usage) -> CounterKey:
    """A counter past the retention that was stored, proven and deleted from Redis."""
    stale = key("acme", OLD)
    life.settings = settings(start=life.settings.start, delete_stale_keys=True)
    life.count(stale, 70, ttl=None)
    life.run(at(OLD, "12:00"))
    life.run(at(OLD + DAY, "12:00"))
    life.run(at(TODAY, "01:00"))
    assert not usage.client.exists(raw(stale))
    return stale


@pytest.mark.usefixtures("quiet")
def test_what_comes_after_clean_up_is_added(life: Life, usage: Usage) -> None:
    stale = cleaned(life, usage)
    assert usage.rows() == {stale: 70}
    life.count(stale, 5000, ttl=None)
    life.run(at(TODAY + DAY, "01:00"))
    assert usage.rows() == {stale: 5070}
    assert open_letters(usage) == []


@pytest.mark.usefixtures("quiet")
def test_what_comes_after_clean_up_and_is_less_is_added_too(life: Life, usage: Usage) -> None:
    stale = cleaned(life, usage)
    life.count(stale, 5, ttl=None)
    life.run(at(TODAY + DAY, "01:00"))
    life.run(at(TODAY + 2 * DAY, "01:00"))
    assert usage.rows() == {stale: 75}
    assert open_letters(usage) == []


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("late", [70, 71, 5000], ids=["the same", "one more", "much more"])
def test_a_counter_that_expired_and_begins_anew_with_clean_up_on_is_too_late(
    life: Life, usage: Usage, late: int
) -> None:
    """It was not clean-up that deleted it, so whether it goes on or began anew is not known: a person is asked."""
    stale, other = key("acme", OLD), key("other", OLD)
    life.settings = settings(start=life.settings.start, delete_stale_keys=True)
    life.count(stale, 70)
    life.count(other, 5, ttl=None)
    life.run(at(OLD + DAY, "12:00"))
    assert is_sealed(usage, OLD)
    life.count(key("new", OLD), 1)
    usage.client.set(raw(stale), late + 1)
    life.run(at(TODAY, "01:00"))
    assert usage.rows() == {stale: 70, other: 5}, "what was billed changes by a person's word only"
    assert open_letters(usage) == [(raw(stale), Reason.TOO_LATE), (raw(key("new", OLD)), Reason.TOO_LATE)]
    assert usage.client.exists(raw(other)), "nothing of it is deleted meanwhile"
    usage.aggregate(OLD, now=at(TODAY, "02:00"))
    life.run(at(TODAY, "03:00"))
    assert usage.rows() == {stale: late + 1, other: 5, key("new", OLD): 1}
    assert open_letters(usage) == []
    assert not usage.client.exists(raw(other))


@pytest.mark.usefixtures("quiet")
def test_keys_from_before_the_go_live_day_are_told(life: Life, usage: Usage, logged: list[str]) -> None:
    life.count(key("acme", dt.date(2026, 10, 1)), 5)
    life.count(key("acme", TODAY), 1)
    life.run(NOW)
    assert usage.rows() == {key("acme", TODAY): 1}
    assert [line for line in logged if "USAGE_START_DATE" in line] == [
        "Redis has 1 keys of 2026-10-01, from before USAGE_START_DATE, 2026-11-01: they are not aggregated unless "
        "somebody asks for their dates."
    ]


@pytest.mark.usefixtures("quiet")
def test_a_late_counter_of_a_sealed_date_is_stored_though_each_first_run_of_a_day_fails(
    life: Life, usage: Usage
) -> None:
    """They sweep what is within the retention. When they do not come to it, the next run does."""
    life.count(ACME, 5)
    life.run(at(TODAY, "04:00"))
    assert is_sealed(usage, YESTERDAY)
    life.count(ZETA, 3)
    life.run_hours(at(TODAY, "05:00"), at(TODAY, "23:00"))
    assert usage.rows() == {ACME: 5}, "once a day is enough"
    assert YESTERDAY in life.run(at(TODAY + DAY, "04:00"))
    assert usage.rows() == {ACME: 5, ZETA: 3}
    assert YESTERDAY not in life.run(at(TODAY + DAY, "05:00"))


@pytest.mark.usefixtures("quiet")
def test_a_counter_of_a_closed_date_is_too_late_and_told(life: Life, usage: Usage) -> None:
    life.count(key("acme", OLD), 5)
    life.run(at(OLD + DAY, "12:00"))
    assert is_sealed(usage, OLD)
    late = key("late", OLD)
    life.count(late, 3)
    life.run(at(TODAY, "01:00"))
    assert open_letters(usage) == [(raw(late), Reason.TOO_LATE)]
    assert usage.rows() == {key("acme", OLD): 5}, "what was billed changes by a person's word only"
    life.run(at(TODAY, "02:00"))
    assert open_letters(usage) == [(raw(late), Reason.TOO_LATE)]
    usage.aggregate(OLD)
    assert usage.rows() == {key("acme", OLD): 5, late: 3}
    life.run(at(TODAY, "03:00"))
    assert open_letters(usage) == []


@pytest.mark.usefixtures("quiet")
def test_what_was_too_late_stays_told_when_its_key_is_gone(life: Life, usage: Usage) -> None:
    life.count(key("acme", OLD), 5)
    life.run(at(OLD + DAY, "12:00"))
    late = key("late", OLD)
    life.count(late, 3)
    life.run(at(TODAY, "01:00"))
    usage.client.delete(raw(late))
    life.run(at(TODAY + DAY, "01:00"))
    assert open_letters(usage) == [(raw(late), Reason.TOO_LATE)], "now it is lost for good: the last to be silent about"


@pytest.mark.usefixtures("quiet")
def test_a_stored_counter_that_grew_too_late_is_told(life: Life, usage: Usage) -> None:
    acme = key("acme", OLD)
    life.count(acme, 5, ttl=None)
    life.run(at(OLD + DAY, "12:00"))
    life.count(acme, 2, ttl=None)
    life.run(at(TODAY, "01:00"))
    assert open_letters(usage) == [(raw(acme), Reason.TOO_LATE)] or usage.rows() == {acme: 7}


@pytest.mark.usefixtures("quiet")
def test_a_counter_of_a_date_that_is_not_closed_is_stored(life: Life, usage: Usage) -> None:
    life.run(at(OLD - 2 * DAY, "12:00"))
    late = key("late", OLD)
    life.count(late, 3)
    life.run(at(TODAY, "01:00"))
    life.run(at(TODAY, "02:00"))
    assert usage.rows() == {late: 3}
    assert not is_sealed(usage, OLD)


# Settings that change what keys mean.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key_prefix": "counted"}, "USAGE_KEY_PREFIX was usage, is counted"),
        ({"timezone": ZoneInfo("Europe/Berlin")}, "USAGE_TIMEZONE was UTC, is Europe/Berlin"),
        ({"retention_days": 3}, "USAGE_RETENTION_DAYS was 7, is 3"),
        ({"settle_hours": 5}, "USAGE_SETTLE_HOURS was 2, is 5"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_a_change_is_said_once_and_written_down(
    usage: Usage, logged: list[str], changes: dict[str, Any], said: str
) -> None:
    usage.write({ACME: 5})
    usage.aggregate()
    assert not [line for line in logged if "were changed" in line]
    usage.aggregate(now=NOW + HOUR, **changes)
    usage.aggregate(now=NOW + 2 * HOUR, **changes)
    assert [said in line for line in logged if "were changed" in line] == [True]
    row = usage.conn.execute(
        "SELECT key_prefix, timezone, settle_hours, retention_days FROM usage_run ORDER BY started_at DESC LIMIT 1"
    ).fetchone()
    after: Settings = settings(**changes)
    assert row == (after.key_prefix, after.timezone.key, after.settle_hours, after.retention_days)


@pytest.mark.usefixtures("quiet")
def test_a_date_that_is_live_again_by_another_time_zone_is_not_done_with(life: Life, usage: Usage) -> None:
    """Sealed at two in the morning by UTC; then days end five hours later."""
    life.count(ACME, 5)
    life.run(at(TODAY, "02:00"))
    assert is_sealed(usage, YESTERDAY)
    life.settings = settings(start=life.settings.start, timezone=ZoneInfo("America/New_York"))
    life.count(ACME, 3)
    assert life.run(at(TODAY, "03:00"))[YESTERDAY] == "verified"
    assert usage.rows()[ACME] == 8
    life.count(ACME, 2)
    life.run_hours(at(TODAY, "04:00"), at(TODAY, "07:00"))
    assert usage.rows()[ACME] == 10
    assert is_sealed(usage, YESTERDAY)


@pytest.mark.usefixtures("quiet")
def test_a_date_is_settled_by_the_settings_of_all_its_runs(life: Life, usage: Usage) -> None:
    """Fewer settle hours from now on: what was still under way by the old ones is waited for."""
    life.settings = settings(start=life.settings.start, settle_hours=6)
    life.count(ACME, 5)
    life.run(at(TODAY, "02:00"))
    life.settings = settings(start=life.settings.start, settle_hours=0)
    life.run(at(TODAY, "03:00"))
    assert not is_sealed(usage, YESTERDAY)
    life.count(ACME, 2)
    life.run(at(TODAY, "06:00"))
    assert is_sealed(usage, YESTERDAY)
    assert usage.rows()[ACME] == 7


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
@pytest.mark.parametrize("anew", [60, 70], ids=["the same", "more"])
def test_a_date_that_was_counted_under_two_prefixes_is_not_sealed(
    life: Life, usage: Usage, date: dt.date, anew: int
) -> None:
    """Under the new one each counter began anew, and some overtake before a run sees them."""
    acme = key("acme", date)
    life.count(acme, 60)
    life.run(at(date, "12:00"))
    life.settings = settings(start=life.settings.start, key_prefix="counted")
    usage.client.set(build_key("counted", acme), anew, ex=7 * DAY)
    life.run_hours(at(date, "13:00"), at(date + DAY, "04:00"))
    assert not is_sealed(usage, date)
    assert "USAGE_KEY_PREFIX was changed" in newest_error(usage, date)
    assert "'counted' and 'usage'" in newest_error(usage, date)
    life.now += HOUR / 2
    rule(usage, Decision.KEEP, date=date)
    life.run(at(date + DAY, "05:00"))
    assert is_sealed(usage, date)


@pytest.mark.usefixtures("quiet")
def test_a_date_that_was_sealed_before_the_prefix_was_changed_stays_so(life: Life, usage: Usage) -> None:
    life.count(ACME, 60)
    life.run(NOW)
    life.settings = settings(start=life.settings.start, key_prefix="counted")
    usage.client.set(build_key("counted", key("acme", TODAY)), 1, ex=7 * DAY)
    life.run_hours(NOW + HOUR, at(TODAY + DAY, "02:00"))
    assert is_sealed(usage, YESTERDAY)
    assert not is_sealed(usage, TODAY) or usage.rows()[key("acme", TODAY)] == 1


def test_a_letter_from_before_the_prefix_was_changed_can_be_decided(usage: Usage) -> None:
    for value in (100, 5):
        usage.write({ACME: value})
        usage.aggregate()
    usage.aggregate(TODAY, key_prefix="counted")
    decide(usage.client, usage.conn, Ruling(Decision.CARRY, "a person"), "counted", key=raw(ACME))
    assert usage.rows() == {ACME: 105}
    assert open_letters(usage) == []


# The seal is taken away when it is not true any more.


def lose_row(usage: Usage) -> None:
    usage.conn.execute("DELETE FROM merchant_usage WHERE merchant_id = 'acme'")


def lower_row(usage: Usage) -> None:
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 3 WHERE merchant_id = 'acme'")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("damage", [lose_row, lower_row])
def test_rows_that_somebody_changed_are_stored_again(life: Life, usage: Usage, damage: Callable[[Usage], None]) -> None:
    life.count(ACME, 5)
    life.count(BETA, 1)
    life.run(NOW)
    damage(usage)
    life.run_hours(NOW + HOUR, at(TODAY + DAY, "02:00"))
    assert usage.rows()[ACME] == 5
    assert is_sealed(usage, YESTERDAY)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("damage", [lose_row, lower_row])
def test_rows_that_somebody_changed_after_their_keys_expired_are_told(
    life: Life, usage: Usage, damage: Callable[[Usage], None]
) -> None:
    life.count(ACME, 5)
    life.count(BETA, 1)
    life.run(NOW)
    usage.client.flushall()
    damage(usage)
    life.run_hours(at(TODAY + DAY, "00:00"), at(TODAY + DAY, "02:00"))
    assert not is_sealed(usage, YESTERDAY)


def test_a_later_mismatch_takes_the_seal_away(usage: Usage) -> None:
    usage.write({ACME: 5})
    usage.aggregate()
    assert is_sealed(usage, YESTERDAY)
    stored = usage.store_only(now=NOW + HOUR)
    lower_row(usage)
    with pytest.raises(UsageError):
        usage.prove(stored)
    assert not is_sealed(usage, YESTERDAY)
    usage.aggregate(now=NOW + 2 * HOUR)
    assert is_sealed(usage, YESTERDAY)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("decision", [Decision.KEEP, Decision.CARRY], ids=str)
def test_a_counter_that_fell_and_expired_before_anybody_decided(life: Life, usage: Usage, decision: Decision) -> None:
    """Nothing is left to verify by, and what had been verified stands by a person's word."""
    life.count(ACME, 5)
    life.run(NOW)
    usage.write({ACME: 4})
    life.run(at(TODAY + DAY, "01:00"))
    usage.client.delete(raw(ACME))
    life.run(at(TODAY + DAY, "02:00"))
    assert not is_sealed(usage, YESTERDAY)
    life.now += HOUR / 2
    rule(usage, decision, date=YESTERDAY)
    assert not is_sealed(usage, YESTERDAY), "no run has seen it yet"
    assert YESTERDAY in life.run(at(TODAY + DAY, "03:00"))
    assert YESTERDAY not in life.run(at(TODAY + DAY, "04:00"))
    if decision is Decision.KEEP:
        assert usage.rows() == {ACME: 5}
        assert is_sealed(usage, YESTERDAY)


def test_a_later_mismatch_of_one_merchant_takes_the_seal_away(usage: Usage) -> None:
    usage.write({ACME: 5, BETA: 1})
    usage.aggregate()
    run = Run("one merchant", "manual", (YESTERDAY,), NOW + HOUR, ("acme",))
    plan, batches = scan.scan(usage.client, usage.conn, run, settings())
    results = [pipeline.store(usage.client, usage.conn, batch, run.run_id, settings()) for batch in batches]
    lower_row(usage)
    with pytest.raises(UsageError):
        usage.prove(Stored(plan, batches, results))
    assert not is_sealed(usage, YESTERDAY)
    early = settings(start=dt.datetime.combine(YESTERDAY, dt.time()))
    assert proven_until(usage.conn, NOW + 2 * HOUR, early).until <= NOW
    usage.aggregate(now=NOW + 2 * HOUR, merchants=("acme",))
    assert not is_sealed(usage, YESTERDAY), "of some merchants only"
    usage.aggregate(now=NOW + 3 * HOUR)
    assert is_sealed(usage, YESTERDAY)


@pytest.mark.usefixtures("quiet")
def test_a_counter_that_fell_after_its_date_was_sealed(life: Life, usage: Usage) -> None:
    """A failover, hours later: what is stored was right, but nobody has said so yet."""
    life.count(ACME, 5)
    life.run(NOW)
    usage.write({ACME: 4})
    life.run_hours(at(TODAY + DAY, "00:00"), at(TODAY + DAY, "02:00"))
    assert not is_sealed(usage, YESTERDAY)
    rule(usage, Decision.KEEP, date=YESTERDAY)
    life.run(at(TODAY + DAY, "03:00"))
    assert is_sealed(usage, YESTERDAY)
    assert usage.rows() == {ACME: 5}
