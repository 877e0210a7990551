"""What is told and what is left out."""

from __future__ import annotations

import datetime as dt

import pytest

from merchant_usage.alerts.alert import Alert, AlertKind
from merchant_usage.alerts.register import (
    AT_MOST,
    AT_MOST_OF,
    STILL_FAILING_FROM,
    WINDOW,
    Entry,
    FailedDelivery,
    Notification,
    Register,
)

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


def alert(kind: AlertKind, key: str) -> Alert:
    return Alert(kind, key, "title", "what", run_id=key)


def fails(register: Register, number: int, now: dt.datetime = NOW) -> Notification | None:
    return register.raise_alert(alert(AlertKind.FAILED, f"run {number}"), now)


def test_a_failure_is_told_once_however_often_the_run_is_repeated() -> None:
    register = Register()
    assert fails(register, 1)
    assert [fails(register, 1, NOW + n * SECOND) for n in range(5)] == [None] * 5
    assert not register.is_failing()


def test_a_run_that_fails_again_after_a_recovery_is_news() -> None:
    register = Register()
    fails(register, 1)
    register.recover(NOW)
    assert fails(register, 1)


def test_a_repeated_run_that_nobody_heard_of_counts_once() -> None:
    register = Register()
    fails(register, 1)
    assert register.unsent([FailedDelivery("run 1")], NOW) == ["run 1"]
    again = fails(register, 1)
    assert again
    assert again.in_a_row == 1


def test_the_third_failure_in_a_row_escalates() -> None:
    register = Register()
    told = [fails(register, n) for n in range(STILL_FAILING_FROM)]
    assert [t and (t.alert.kind, t.in_a_row) for t in told] == [
        (AlertKind.FAILED, 1),
        (AlertKind.FAILED, 2),
        (AlertKind.STILL_FAILING, 3),
    ]
    assert register.is_failing()


def test_a_mismatch_counts_as_a_failure() -> None:
    register = Register()
    told = [register.raise_alert(alert(AlertKind.MISMATCH, f"run {n}"), NOW) for n in range(3)]
    assert [t and t.alert.kind for t in told] == [AlertKind.MISMATCH, AlertKind.MISMATCH, AlertKind.STILL_FAILING]


def test_a_verified_run_in_between_ends_the_row() -> None:
    register = Register()
    for number in range(10):
        fails(register, number)
        register.recover(NOW)
    assert not register.is_failing()
    assert {entry.kind for entry in register.entries.values()} == {AlertKind.FAILED}


MESSAGES = [kind for kind in AlertKind if kind not in {AlertKind.INCIDENT, AlertKind.UNANSWERED}]


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if not kind.is_failure], ids=str)
def test_a_storm_of_any_kind_is_a_handful(kind: AlertKind) -> None:
    register = Register()
    told = [register.raise_alert(alert(kind, f"{n}"), NOW + n * SECOND) for n in range(168)]
    assert sum(t is not None for t in told) == AT_MOST_OF.get(kind, AT_MOST)


@pytest.mark.parametrize("hours", [1 / 60, 3.5], ids=["at once", "with retries"])
def test_a_week_of_failing_runs_is_a_handful(hours: float) -> None:
    """As fast as they fail at once, and as slowly as they do with all their retries, four at a time."""
    register = Register()
    told = [t for n in range(168) if (t := fails(register, n, NOW + n * dt.timedelta(hours=hours) / 168))]
    assert [t.alert.kind for t in told] == [AlertKind.FAILED, AlertKind.FAILED, AlertKind.STILL_FAILING]


def test_an_outage_of_days_is_told_again_from_time_to_time_with_what_was_left_out() -> None:
    register = Register()
    told = [t for n in range(25) if (t := fails(register, n, NOW + n * dt.timedelta(hours=1)))]
    assert [(t.alert.kind, t.in_a_row, t.left_out) for t in told[2:]] == [
        (AlertKind.STILL_FAILING, 3, 0),
        (AlertKind.STILL_FAILING, 9, 5),
        (AlertKind.STILL_FAILING, 15, 5),
        (AlertKind.STILL_FAILING, 21, 5),
    ]


def test_what_was_left_out_may_be_told_later() -> None:
    register = Register()
    for number in range(AT_MOST):
        assert register.raise_alert(alert(AlertKind.NO_DATA, f"{number}"), NOW)
    assert register.raise_alert(alert(AlertKind.NO_DATA, "one more"), NOW) is None
    later = register.raise_alert(alert(AlertKind.NO_DATA, "one more"), NOW + WINDOW)
    assert later
    assert register.raise_alert(alert(AlertKind.NO_DATA, "one more"), NOW + 2 * WINDOW) is None


def test_what_could_not_be_sent_is_not_told() -> None:
    register = Register()
    register.raise_alert(alert(AlertKind.NO_DATA, "a date"), NOW)
    assert register.unsent([FailedDelivery("a date"), FailedDelivery("unknown")], NOW) == ["a date"]
    assert register.raise_alert(alert(AlertKind.NO_DATA, "a date"), NOW)


def test_of_what_may_have_arrived_one_message_of_a_kind_is_told_once_more() -> None:
    register = Register()
    for again in (["a"], []):
        assert register.raise_alert(alert(AlertKind.NO_DATA, "a"), NOW)
        assert register.unsent([FailedDelivery("a", perhaps=True)], NOW) == again
    assert register.raise_alert(alert(AlertKind.NO_DATA, "a"), NOW) is None
    register.raise_alert(alert(AlertKind.NO_DATA, "b"), NOW)
    assert register.unsent([FailedDelivery("b", perhaps=True)], NOW) == []
    register.raise_alert(alert(AlertKind.LATE, "c"), NOW)
    assert register.unsent([FailedDelivery("c", perhaps=True)], NOW) == ["c"], "of another kind"
    later = NOW + WINDOW
    register.raise_alert(alert(AlertKind.NO_DATA, "d"), later)
    assert register.unsent([FailedDelivery("d", perhaps=True)], later) == ["d"]


def test_a_week_of_failing_runs_is_a_handful_though_no_message_is_answered() -> None:
    register = Register()
    told = [
        t
        for n in range(168)
        if (t := fails(register, n)) and [register.unsent([FailedDelivery(t.alert.key, True)], NOW)]
    ]
    assert [t.alert.kind for t in told] == [AlertKind.FAILED] * 2 + [AlertKind.STILL_FAILING] * 2


def test_a_recovery_that_nobody_heard_of_is_told_with_the_next_verified_run() -> None:
    register = Register()
    fails(register, 1)
    closed = register.recover(NOW)
    assert register.raise_alert(alert(AlertKind.RECOVERED, "recovered"), NOW)
    register.unsent([FailedDelivery("recovered")], NOW)
    assert not register.is_failing()

    later = NOW + SECOND
    assert [entry.key for entry in register.recover(later)] == [entry.key for entry in closed]
    again = register.raise_alert(alert(AlertKind.RECOVERED, "recovered"), later)
    assert again
    assert again.left_out == 0, "it is the same news"
    assert register.recover(later + SECOND) == []


def test_recovery_closes_failures_and_lateness_and_nothing_else() -> None:
    register = Register()
    for kind in AlertKind:
        register.raise_alert(alert(kind, str(kind)), NOW)
    assert {entry.kind for entry in register.recover(NOW)} == {
        AlertKind.FAILED,
        AlertKind.MISMATCH,
        AlertKind.STILL_FAILING,
        AlertKind.LATE,
    }
    assert register.recover(NOW) == []


def test_an_incident_is_open_until_it_is_closed() -> None:
    register = Register()
    assert not register.has_incident()
    register.set_incident(NOW, is_open=True)
    assert register.has_incident()
    register.recover(NOW)
    assert register.has_incident(), "PagerDuty was not told yet"
    register.set_incident(NOW, is_open=False)
    assert not register.has_incident()


def test_another_registers_entries_are_taken_over_unless_older() -> None:
    register = Register([Entry("a", AlertKind.FAILED, NOW, sent=True), Entry("b", AlertKind.FAILED, NOW, sent=True)])
    newer = Entry("b", AlertKind.FAILED, NOW + SECOND)
    other = Entry("c", AlertKind.LATE, NOW)
    register.take_over([Entry("a", AlertKind.FAILED, NOW - SECOND), newer, other])
    assert register.changed == {"b": newer, "c": other}


@pytest.mark.parametrize(
    "other",
    [
        Entry("a", AlertKind.FAILED, NOW, sent=False),
        Entry("a", AlertKind.FAILED, NOW, sent=True, resolved_at=NOW + SECOND),
    ],
    ids=["taken back", "put right"],
)
def test_what_another_register_knows_of_an_alerts_end_is_taken_over_and_stays(other: Entry) -> None:
    register = Register([Entry("a", AlertKind.FAILED, NOW, sent=True)])
    register.take_over([other])
    register.take_over([Entry("a", AlertKind.FAILED, NOW, sent=True)])
    assert register.entries == register.changed == {"a": other}
