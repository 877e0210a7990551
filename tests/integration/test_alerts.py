"""What was told is kept in PostgreSQL, for all processes; what a verification finds is told once."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from threading import Barrier

import psycopg
import pytest

from merchant_usage.alerts import store
from merchant_usage.alerts.alert import Alert, AlertKind
from merchant_usage.alerts.collect import PendingAlerts, discrepancy_of_proof, failing_dates, gather, mark_unsent
from merchant_usage.alerts.register import AT_MOST, FailedDelivery, Notification, Register
from merchant_usage.alerts.slack_message import render
from merchant_usage.connections import prepare
from merchant_usage.errors import UsageMismatch
from merchant_usage.model.dates import Scope
from merchant_usage.model.run import Run
from merchant_usage.model.verdict import Proof
from merchant_usage.pipeline import prove
from merchant_usage.pipeline import store as store_batch
from merchant_usage.steps.scan import scan
from tests.support import NOW, TODAY, YESTERDAY, Connect, Usage, key, raw, settings

DAY_BEFORE = YESTERDAY - dt.timedelta(days=1)


def failed(run: str) -> Alert:
    return Alert(AlertKind.FAILED, f"run {run}", "title", "what", run_id=run)


def raise_in(connect: Connect, run: str, now: dt.datetime = NOW) -> bool:
    """Whether it is told, by a process of its own."""
    alert = failed(run)
    with closing(connect()) as conn, store.register(conn, [alert.key], now) as register:
        return register.raise_alert(alert, now) is not None


def test_another_process_knows_what_was_told(connect: Connect) -> None:
    assert raise_in(connect, "a")
    assert not raise_in(connect, "a")
    assert not raise_in(connect, "a", NOW + dt.timedelta(days=3))


def test_of_two_at_once_one_tells(database_url: str) -> None:
    together = Barrier(8)

    def tell(number: int) -> bool:
        with psycopg.connect(database_url) as conn:
            prepare(conn)
            alert = failed(f"{number % 2}")
            together.wait()
            with store.register(conn, [alert.key], NOW) as register:
                return register.raise_alert(alert, NOW) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(tell, range(8))) == 2


def test_168_runs_that_fail_are_a_handful_and_all_are_known(connect: Connect) -> None:
    assert sum(raise_in(connect, f"{n}", NOW + n * dt.timedelta(minutes=1)) for n in range(168)) == AT_MOST
    with closing(connect()) as conn, store.register(conn, [], NOW + dt.timedelta(days=9)) as register:
        assert register.is_failing()
        assert len(register.recover(NOW)) == 168
    with closing(connect()) as conn, store.register(conn, [], NOW) as register:
        assert register.recover(NOW) == []


def test_what_goes_wrong_meanwhile_undoes_it(connect: Connect) -> None:
    with suppress(ZeroDivisionError), closing(connect()) as conn, store.register(conn, [], NOW) as register:
        register.raise_alert(failed("a"), NOW)
        raise ZeroDivisionError
    assert raise_in(connect, "a")


def test_it_waits_for_nobodys_lock(connect: Connect) -> None:
    with closing(connect()) as other, other.transaction():
        other.execute("LOCK TABLE usage_alert")
        with closing(connect()) as conn, pytest.raises(psycopg.errors.LockNotAvailable), store.register(conn, [], NOW):
            pass


@pytest.fixture
def quiet(usage: Usage) -> None:
    """Yesterday and the day before have usage, and all of it is stored."""
    usage.write({key("acme", DAY_BEFORE): 5, key("acme"): 10, key("b&b"): 20})
    usage.aggregate(DAY_BEFORE, YESTERDAY)
    assert by_kind(news(usage, DAY_BEFORE, YESTERDAY)) == {}


def proof_of(usage: Usage, *dates: dt.date, now: dt.datetime = NOW, merchants: tuple[str, ...] | None = None) -> Proof:
    """What a run found, be it green or not."""
    run = Run(usage.new_run_id(), "manual", dates, now, merchants)
    plan, batches = scan(usage.client, usage.conn, run, settings())
    found: list[Proof] = []
    results = [store_batch(usage.client, usage.conn, batch, run.run_id, settings()) for batch in batches]
    with suppress(UsageMismatch):
        prove(usage.client, usage.conn, plan, batches, results, settings(), on_proof=found.append)
    return found[0]


def news(
    usage: Usage, *dates: dt.date, now: dt.datetime = NOW, merchants: tuple[str, ...] | None = None
) -> PendingAlerts:
    proof = proof_of(usage, *dates, now=now, merchants=merchants)
    scopes = [Scope(date, settled=True, merchant_ids=merchants) for date in dates]
    return gather(usage.client, usage.conn, proof, scopes, usage.new_run_id(), settings(), now)


def by_kind(found: PendingAlerts) -> dict[AlertKind, Alert]:
    alerts = {message.alert.kind: message.alert for message in found.notifications}
    assert len(alerts) == len(found.notifications)
    return alerts


@pytest.mark.usefixtures("quiet")
def test_a_good_run_has_no_news(usage: Usage) -> None:
    assert by_kind(news(usage, YESTERDAY)) == {}


@pytest.mark.usefixtures("quiet")
def test_a_counter_that_went_backwards_is_told_once_with_both_numbers(usage: Usage) -> None:
    usage.write({key("b&b"): 15})
    (alert,) = by_kind(news(usage, YESTERDAY)).values()
    assert alert.kind is AlertKind.COUNTER_REGRESSED
    assert [(gap.merchant_id, gap.redis, gap.postgres) for gap in alert.discrepancy.gaps] == [("b&b", 15, 20)]
    assert alert.dates == (YESTERDAY,)
    assert by_kind(news(usage, YESTERDAY)) == {}
    usage.write({key("acme"): 1})
    (alert,) = by_kind(news(usage, YESTERDAY)).values()
    assert [gap.merchant_id for gap in alert.discrepancy.gaps] == ["acme"], "the new one only"


@pytest.mark.usefixtures("quiet")
def test_new_dead_letters_are_counted_by_reason_and_told_once(usage: Usage) -> None:
    usage.write({key("acme", metric_type=f"m{n}"): "1.5" for n in range(4)} | {key("acme", metric_type="minus"): "-1"})
    usage.client.set("usage:\n<!channel>", 1)
    (alert,) = by_kind(news(usage, YESTERDAY)).values()
    assert alert.kind is AlertKind.DEAD_LETTERS
    assert alert.title == "6 new usage key(s) cannot be counted"
    assert "4 not_an_integer, such as usage:acme:" in alert.what
    assert "1 negative, such as " in alert.what
    assert "1 malformed_key, such as usage:\\n<!channel>" in alert.what
    assert by_kind(news(usage, YESTERDAY)) == {}
    usage.write({key("acme", metric_type="m5"): "x"})
    (alert,) = by_kind(news(usage, YESTERDAY)).values()
    assert alert.title == "1 new usage key(s) cannot be counted"


@pytest.mark.usefixtures("quiet")
def test_what_could_not_be_sent_is_told_by_the_next_run(usage: Usage) -> None:
    usage.write({key("b&b"): 15, key("acme", metric_type="half"): "1.5"})
    first = news(usage, YESTERDAY)
    kinds = {AlertKind.COUNTER_REGRESSED, AlertKind.DEAD_LETTERS}
    assert set(by_kind(first)) == kinds
    mark_unsent(usage.conn, first, [FailedDelivery(message.alert.key) for message in first.notifications])
    assert set(by_kind(news(usage, YESTERDAY))) == kinds
    assert by_kind(news(usage, YESTERDAY)) == {}


@pytest.mark.usefixtures("quiet")
def test_what_may_have_arrived_is_told_once_more_and_no_more(usage: Usage) -> None:
    usage.write({key("b&b"): 15, key("acme", metric_type="half"): "1.5"})
    kinds = {AlertKind.COUNTER_REGRESSED, AlertKind.DEAD_LETTERS}
    for expected in (kinds, kinds, set[AlertKind]()):
        found = news(usage, YESTERDAY)
        assert set(by_kind(found)) == expected
        mark_unsent(
            usage.conn, found, [FailedDelivery(message.alert.key, perhaps=True) for message in found.notifications]
        )


@pytest.mark.usefixtures("quiet")
def test_a_stream_of_bad_keys_is_a_handful_and_none_is_forgotten(usage: Usage) -> None:
    counted = 0
    for hour in range(13):
        usage.write({key("acme", metric_type=f"m{hour}"): "x"})
        for alert in by_kind(news(usage, YESTERDAY, now=NOW + dt.timedelta(minutes=30 * hour))).values():
            counted += int(alert.title.split()[0])
    assert counted == 13, "the last message tells of all that came while there was no room"
    row = usage.conn.execute("SELECT count(*) FROM usage_alert WHERE told").fetchone()
    assert row == (AT_MOST + 1,)


@pytest.mark.usefixtures("quiet")
def test_a_date_without_usage_is_told_once_if_the_day_before_had_some(usage: Usage) -> None:
    usage.client.delete(raw(key("acme")), raw(key("b&b")))
    usage.conn.execute("DELETE FROM merchant_usage WHERE date = %s", [YESTERDAY])
    (alert,) = by_kind(news(usage, YESTERDAY)).values()
    assert (alert.kind, alert.dates) == (AlertKind.NO_DATA, (YESTERDAY,))
    assert by_kind(news(usage, YESTERDAY)) == {}


def test_days_before_the_first_usage_are_no_news(usage: Usage) -> None:
    usage.write({key("acme"): 10})
    assert by_kind(news(usage, DAY_BEFORE, YESTERDAY)) == {}


@pytest.mark.usefixtures("quiet")
def test_a_date_without_some_merchants_is_no_news(usage: Usage) -> None:
    usage.write({key("known", DAY_BEFORE): 1})
    usage.aggregate(DAY_BEFORE)
    assert by_kind(news(usage, YESTERDAY, merchants=("known",))) == {}


@pytest.mark.parametrize(("hours", "is_news"), [(23, False), (25, True)], ids=["not yet then", "by then"])
@pytest.mark.usefixtures("quiet")
def test_today_is_missed_once_the_day_before_had_usage_at_that_time(usage: Usage, hours: int, is_news: bool) -> None:
    moment = NOW - dt.timedelta(hours=hours)
    usage.conn.execute("UPDATE merchant_usage SET created_at = %s WHERE date = %s", [moment, YESTERDAY])
    proof = proof_of(usage, TODAY)
    assert not proof.reports[0].settled
    found = gather(usage.client, usage.conn, proof, [Scope(TODAY, settled=False)], "r", settings(), NOW)
    assert [message.alert.dates for message in found.notifications] == ([(TODAY,)] if is_news else [])


@pytest.mark.usefixtures("quiet")
def test_keys_that_vanished_before_their_time_are_told(usage: Usage) -> None:
    usage.client.flushall()
    (alert,) = by_kind(news(usage, YESTERDAY)).values()
    assert alert.kind is AlertKind.NO_DATA
    assert "PostgreSQL keeps the 30" in alert.what
    usage.conn.execute("UPDATE merchant_usage SET date = date - 20")
    assert by_kind(news(usage, YESTERDAY - dt.timedelta(days=20))) == {}, "expired as it should"


@pytest.mark.parametrize(("hours", "is_news"), [(23, True), (25, False)], ids=["within a day", "later"])
@pytest.mark.usefixtures("quiet")
def test_usage_that_is_not_stored_and_expires_soon_is_told(usage: Usage, hours: int, is_news: bool) -> None:
    lose = "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    usage.conn.execute(lose)
    usage.conn.execute(
        "CREATE TRIGGER lose BEFORE UPDATE ON merchant_usage FOR EACH ROW"
        " WHEN (NEW.merchant_id = 'acme') EXECUTE FUNCTION lose()"
    )
    usage.write({key("acme"): 17, key("b&b"): 21})
    for counter in (key("acme"), key("b&b")):
        usage.client.expire(raw(counter), dt.timedelta(hours=hours))
    found = by_kind(news(usage, YESTERDAY))
    assert set(found) == ({AlertKind.ABOUT_TO_EXPIRE} if is_news else set())
    for alert in found.values():
        assert [(gap.merchant_id, gap.behind) for gap in alert.discrepancy.gaps] == [("acme", 7)]
    assert by_kind(news(usage, YESTERDAY)) == {}


def test_what_was_put_right_lately_is_known_however_long_it_lasted(connect: Connect) -> None:
    """A recovery that could not be told is told with what it put right."""
    assert raise_in(connect, "a")
    later = NOW + dt.timedelta(days=1)
    with closing(connect()) as conn, store.register(conn, [], later) as register:
        register.recover(later)
    with closing(connect()) as conn, store.register(conn, [], later + dt.timedelta(hours=1)) as register:
        assert set(register.entries) == {"run a"}


@pytest.mark.usefixtures("quiet")
def test_of_very_many_that_fail_all_are_counted_and_no_number_passes_for_the_whole(usage: Usage) -> None:
    usage.conn.execute("CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    usage.conn.execute("CREATE TRIGGER lose BEFORE INSERT ON merchant_usage FOR EACH ROW EXECUTE FUNCTION lose()")
    usage.write({key(f"m{n:04}"): 7 for n in range(1200)})
    proof = proof_of(usage, YESTERDAY)
    discrepancy = discrepancy_of_proof(proof)
    assert (discrepancy.counters, discrepancy.merchants, discrepancy.at_least) == (1200, 1000, True)
    assert failing_dates(proof) == [YESTERDAY]


def test_the_register_is_empty_at_first(connect: Connect) -> None:
    with closing(connect()) as conn, store.register(conn, ["k"], NOW) as register:
        assert isinstance(register, Register)
        assert register.entries == {}


@pytest.mark.usefixtures("quiet")
def test_a_counter_that_went_backwards_is_named_and_nothing_that_is_pasted_first_decides(usage: Usage) -> None:
    usage.write({key("acme"): 7, key("b&b"): 19})
    found = by_kind(news(usage, YESTERDAY))[AlertKind.COUNTER_REGRESSED]
    assert found.command == "merchant-usage dead-letters --reason counter_regressed"
    lines = found.what.splitlines()
    assert lines[1:] == [
        f"acme queries of {YESTERDAY}: Redis 7, PostgreSQL 10 (usage:acme:{YESTERDAY}:queries)",
        f"b&b queries of {YESTERDAY}: Redis 19, PostgreSQL 20 (usage:b&b:{YESTERDAY}:queries)",
    ]
    key_of_acme = f"usage:acme:{YESTERDAY}:queries"
    assert found.decisions.splitlines()[:3] == [
        f"merchant-usage resolve {key_of_acme} --keep    # the stored value is right",
        f"merchant-usage resolve {key_of_acme} --accept  # the lower one is",
        f"merchant-usage resolve {key_of_acme} --carry   # Redis began again from zero",
    ]
    pasted = [
        line
        for block in render(Notification(found))["blocks"]
        for line in block["text"]["text"].splitlines()
        if line.startswith("merchant-usage ")
    ]
    assert pasted == [found.command, *found.decisions.splitlines()[:3]], "what is read first only looks"
