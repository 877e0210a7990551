"""One key of several, of a date that was sealed, is gone before its time: it may begin anew, and overtake."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.pages import PAGE
from merchant_usage.model.run import Run
from merchant_usage.settings import OnRegression
from merchant_usage.steps import judgement, preview
from merchant_usage.steps.resolve import Decision
from tests.faults.long_life import DAY, HOUR, Life, at, is_sealed, open_letters, rule
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

ACME, BETA = key("acme"), key("beta")


def absences(usage: Usage) -> list[tuple[str, dt.date]]:
    return usage.conn.execute("SELECT merchant_id, date FROM usage_absence ORDER BY 1, 2").fetchall()


def seal_and_lose_one(life: Life, usage: Usage) -> dt.datetime:
    """Of two keys of a sealed date one vanishes, and the first run of the next day looks. Returns a day later."""
    life.count(ACME, 50)
    life.count(BETA, 1)
    life.run(NOW)
    usage.client.delete(raw(ACME))
    sweep = at(TODAY + DAY, "01:00")
    assert life.run(sweep)[YESTERDAY] == "verified"
    assert is_sealed(usage, YESTERDAY), "what was proven stands"
    assert open_letters(usage) == []
    assert absences(usage) == [("acme", YESTERDAY)]
    return sweep + DAY


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("decision", "value"),
    [(Decision.KEEP, 60), (Decision.CARRY, 110), (Decision.ACCEPT, 60)],
    ids=lambda each: str(each),
)
def test_one_counter_of_a_sealed_date_that_comes_back_with_more(
    life: Life, usage: Usage, decision: Decision, value: int
) -> None:
    """What is counted late begins anew and overtakes, while other keys of the date were there all the time."""
    sweep = seal_and_lose_one(life, usage)
    life.count(ACME, 60)
    assert life.run(sweep)[YESTERDAY] == "mismatch"
    assert open_letters(usage) == [(raw(ACME), Reason.COUNTER_REGRESSED)]
    assert not is_sealed(usage, YESTERDAY)
    rule(usage, decision, key=raw(ACME))
    assert life.run(sweep + HOUR)[YESTERDAY] == "verified"
    assert usage.rows() == {ACME: value, BETA: 1}
    assert absences(usage) == []


@pytest.mark.usefixtures("quiet")
def test_one_counter_of_a_sealed_date_that_comes_back_is_carried_where_that_is_chosen(life: Life, usage: Usage) -> None:
    life.settings = replace(life.settings, on_regression=OnRegression.CARRY)
    sweep = seal_and_lose_one(life, usage)
    life.count(ACME, 60)
    assert life.run(sweep)[YESTERDAY] == "verified"
    assert usage.rows() == {ACME: 110, BETA: 1}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("value", [50, 30], ids=["the same", "less"])
def test_one_counter_of_a_sealed_date_comes_back_with_a_backup(life: Life, usage: Usage, value: int) -> None:
    sweep = seal_and_lose_one(life, usage)
    life.count(ACME, value)
    life.run(sweep)
    assert open_letters(usage) == ([(raw(ACME), Reason.COUNTER_REGRESSED)] if value < 50 else [])
    assert is_sealed(usage, YESTERDAY) == (value == 50)
    life.count(ACME, 50 - value + 1)
    life.run(sweep + DAY)
    assert usage.rows()[ACME] == 51, "it goes on"
    assert is_sealed(usage, YESTERDAY) == (value == 50)


@pytest.mark.usefixtures("quiet")
def test_one_counter_of_a_sealed_date_stays_away_until_its_time_is_over(life: Life, usage: Usage) -> None:
    """No alarm, and nothing is left of it; keys whose time is over are gone as they should be."""
    seal_and_lose_one(life, usage)
    for days in range(2, 10):
        if days == 6:
            usage.client.delete(raw(BETA))
        life.run(at(TODAY + days * DAY, "01:00"))
        assert is_sealed(usage, YESTERDAY)
        assert open_letters(usage) == []
        assert absences(usage) == ([("acme", YESTERDAY)] if days < 7 else [])


@pytest.mark.usefixtures("quiet")
def test_a_key_that_stays_away_by_decision_and_comes_back_with_more(life: Life, usage: Usage) -> None:
    """That what is stored was all says nothing of what is counted afterwards."""
    acme = key("acme", TODAY)
    life.count(acme, 50)
    life.count(key("other", TODAY), 1)
    life.run(NOW)
    usage.client.delete(raw(acme))
    life.run(NOW + HOUR)
    rule(usage, Decision.KEEP, key=raw(acme))
    assert life.run(NOW + 2 * HOUR)[TODAY] == "verified"
    life.count(acme, 60)
    assert life.run(NOW + 3 * HOUR)[TODAY] == "mismatch"
    rule(usage, Decision.CARRY, key=raw(acme))
    assert usage.rows()[acme] == 110


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("decision", Decision)
def test_a_key_that_is_gone_when_it_is_decided_and_back_before_a_run_looks(
    life: Life, usage: Usage, decision: Decision
) -> None:
    """It fell, was gone, and has overtaken: whoever decided has seen that it began anew."""
    acme = key("acme", TODAY)
    life.count(acme, 50)
    life.run(NOW)
    usage.client.delete(raw(acme))
    life.count(acme, 4)
    life.run(NOW + HOUR)
    usage.client.delete(raw(acme))
    rule(usage, decision, key=raw(acme))
    life.count(acme, 60)
    assert life.run(NOW + 2 * HOUR)[TODAY] == "mismatch"
    assert open_letters(usage) == [(raw(acme), Reason.COUNTER_REGRESSED)]
    rule(usage, Decision.CARRY, key=raw(acme))
    assert usage.rows()[acme] == {Decision.KEEP: 110, Decision.ACCEPT: 64, Decision.CARRY: 114}[decision]
    assert absences(usage) == []


@pytest.mark.usefixtures("quiet")
def test_counters_of_an_emptied_date_come_back_one_after_the_other(life: Life, usage: Usage) -> None:
    """By the second one Redis has something left of the date."""
    life.count(ACME, 50)
    life.count(BETA, 7)
    life.run(NOW)
    usage.client.flushdb()
    for days in (1, 2, 3):
        if days == 2:
            life.count(ACME, 50)
        if days == 3:
            life.count(BETA, 8)
        life.run(at(TODAY + days * DAY, "01:00"))
    assert open_letters(usage) == [(raw(BETA), Reason.COUNTER_REGRESSED)]


@pytest.mark.usefixtures("quiet")
def test_many_keys_that_are_gone_are_noted_by_several_runs(
    life: Life, usage: Usage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "MAX_ABSENCES_KEPT", 1)
    names = [key(f"m{n:04}") for n in range(PAGE + 5)]
    for name in (*names, BETA):
        life.count(name, 5)
    life.run(NOW)
    usage.client.delete(*map(raw, names))
    for days, number in enumerate([PAGE, PAGE + 5, PAGE + 5], start=1):
        life.run(at(TODAY + days * DAY, "01:00"))
        assert len(absences(usage)) == number


def test_who_only_looks_notes_nothing_that_is_gone(usage: Usage) -> None:
    usage.write({ACME: 50, BETA: 1})
    usage.aggregate()
    usage.client.delete(raw(ACME))
    before = usage.everything()
    run = Run("looks", "manual", (YESTERDAY,), NOW + HOUR)
    preview.compare(usage.client, usage.conn, run, settings())
    assert usage.everything() == before
