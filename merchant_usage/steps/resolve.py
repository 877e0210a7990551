"""Decides counters that went backwards, and dates whose end nobody read: what a person says becomes what is stored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from psycopg import Connection

from merchant_usage import clock
from merchant_usage.errors import SettingsError
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, build_key, parse_key
from merchant_usage.model.pages import pages
from merchant_usage.model.report import DateVerdict
from merchant_usage.sink import absences, dead_letters, ledger, readings
from merchant_usage.sink.dead_letters import Regression
from merchant_usage.sink.merchant_usage import RowWrite, lock_rows, set_rows
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction
from merchant_usage.source.counters import MAX_VALUE, read_page
from merchant_usage.source.shards import RedisClient
from merchant_usage.text import shown


class Decision(StrEnum):
    """What a person says of a counter that went backwards."""

    #: The stored value was right; it stays until the counter overtakes it.
    KEEP = "keep"
    #: The lower value is right: a correction. The only way in which a stored value is ever lowered.
    ACCEPT = "accept"
    #: Redis restarted from zero: what was stored then is carried, and the counter comes on top.
    CARRY = "carry"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a person decided, who it is, and why."""

    decision: Decision
    decided_by: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision that was carried out; of a whole date, with the sum that stands."""

    subject: CounterKey | dt.date
    before: int
    after: int


@dataclass(slots=True)
class Outcome:
    """What was decided, and what could not be, with the reason."""

    decided: list[Decided]
    refused: list[str]


def decide(
    client: RedisClient,
    conn: Connection,
    ruling: Ruling,
    prefix: str,
    *,
    key: bytes | None = None,
    date: dt.date | None = None,
) -> Outcome:
    """Carry out a decision on one key, or on all regressed counters of a date, and close their dead letters.

    Rows and letters are locked and Redis is read again, page by page, so runs may go on meanwhile, and what a colleague
    decides meanwhile stands. A key that is gone by now counts with what was last seen of it. One that cannot be decided
    holds up no other. A date whose end nobody read is decided as a whole: what is stored stands.

    Raises:
        SettingsError: there is nothing to decide, or the only key cannot be decided.
    """
    letters = [bytes(row[0]) for row in conn.execute(query("select_regressions"), {"key": key, "usage_date": date})]
    outcome = Outcome([], [])
    prefixes = {prefix, *ledger.key_prefixes(conn)} if letters else {prefix}
    for page in pages(letters):
        _decide_page(client, conn, ruling, prefixes, page, outcome)
    if date is not None and _is_incomplete(conn, date):
        _decide_date(conn, ruling, date, outcome)
    if not outcome.decided:
        which = f"for {shown(key.decode(errors='backslashreplace'))}" if key else f"on {date}"
        raise SettingsError("; ".join(outcome.refused) or f"No open counter_regressed {which}.")
    return outcome


def _is_incomplete(conn: Connection, date: dt.date) -> bool:
    state = ledger.date_states(conn, [date])[date]
    return state.verdict is DateVerdict.INCOMPLETE and not state.is_decided_since


def _decide_date(conn: Connection, ruling: Ruling, date: dt.date, outcome: Outcome) -> None:
    if ruling.decision is not Decision.KEEP:
        outcome.refused.append(
            f"{date} is incomplete: nobody read its end, so there is no other number to {ruling.decision}; it takes "
            "--keep (what is stored stands)."
        )
        return
    with transaction(conn):
        conn.execute(query("set_durable"))
        row = conn.execute(query("select_day_totals"), {"dates": [date]}).fetchone()
        total = int(row[2]) if row else 0
        _write_down(conn, ruling, None, date, total, total)
    outcome.decided.append(Decided(date, total, total))


def _decide_page(
    client: RedisClient,
    conn: Connection,
    ruling: Ruling,
    prefixes: Iterable[str],
    raw_keys: list[bytes],
    outcome: Outcome,
) -> None:
    keys = {raw: parsed for raw in raw_keys if (parsed := _parsed(raw, prefixes)) is not None}
    outcome.refused += [
        f"{shown(raw.decode(errors='backslashreplace'))} is no usage key" for raw in raw_keys if raw not in keys
    ]
    writes: list[RowWrite] = []
    decided: list[Decided] = []
    gone: list[CounterKey] = []
    with transaction(conn):
        conn.execute(query("set_durable"))
        rows = {key: (stored, carried) for key, stored, carried in lock_rows(conn, list(keys.values()))}
        # What a colleague has decided since the list was made is no open letter any more.
        letters = dead_letters.lock_regressions(conn, keys)
        open_keys = {raw: key for raw, key in keys.items() if raw in letters}
        for (raw, key), now in zip(open_keys.items(), read_page(client, list(open_keys)), strict=True):
            if isinstance(now, DeadLetter):
                outcome.refused.append(f"{key} cannot be decided: {now.detail} ({now.reason}). Mend the key first.")
                continue
            row = rows.get(key)
            stored, carried = row or (letters[raw].base, 0)
            write = _decide_counter(ruling.decision, RowWrite(key, stored, carried), letters[raw], now)
            if write.metric_value > MAX_VALUE:
                outcome.refused.append(
                    f"{key} cannot be carried: the sum would be {write.metric_value}, too much to store."
                )
                continue
            if row is not None:
                writes.append(write)
                gone += [key] if now is None else []
            decided.append(Decided(key, stored, write.metric_value))
            conn.execute(
                query("decide_regression"),
                {
                    "key": raw,
                    "decision": str(ruling.decision),
                    "redis_value": now,
                    "postgres_value": write.metric_value,
                    "now": clock.now(),
                },
            )
            _write_down(conn, ruling, raw, key.date, stored, write.metric_value)
        set_rows(conn, writes)
        if ruling.decision is Decision.ACCEPT:
            readings.accept(conn, {write.key: write.metric_value for write in writes})
        # No run need look before it is back, and then it began anew.
        absences.note(conn, gone, clock.now())
    outcome.decided += decided


def _decide_counter(decision: Decision, row: RowWrite, letter: Regression, now: int | None) -> RowWrite:
    """What the row holds after a decision.

    Args:
        row: what is stored.
        letter: what was last seen, and what carrying would carry.
        now: the counter; None if the key is gone.
    """
    counted = row.metric_value - row.carried
    last_seen = letter.last_seen or 0
    # Gone since it was last seen: what it had reached counts. Once the row has overtaken that, the row knows better.
    counter = now if now is not None else max(last_seen, counted if row.metric_value > letter.base else 0)
    has_fallen = now is not None and now < last_seen
    base = letter.base + (last_seen if has_fallen else 0)
    if decision is Decision.ACCEPT:
        return row._replace(metric_value=row.carried + counter)
    if decision is Decision.CARRY:
        return row._replace(metric_value=base + counter, carried=base)
    return row


def _parsed(raw: bytes, prefixes: Iterable[str]) -> CounterKey | None:
    """The counter of a key, which may be from before the prefix was changed."""
    for prefix in prefixes:
        key = parse_key(raw, prefix)
        if isinstance(key, CounterKey) and build_key(prefix, key) == raw:
            return key
    return None


def _write_down(conn: Connection, ruling: Ruling, raw: bytes | None, date: dt.date, before: int, after: int) -> None:
    conn.execute(
        query("insert_decision"),
        {
            "redis_key": raw,
            "usage_date": date,
            "decision": str(ruling.decision),
            "decided_by": ruling.decided_by,
            "decided_at": clock.now(),
            "reason": ruling.reason,
            "value_before": before,
            "value_after": after,
        },
    )
