"""Decides counters that went backwards: what a person says of them becomes the stored value."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from psycopg import Connection

from merchant_usage.errors import SettingsError
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, as_columns, parse_key, shown
from merchant_usage.model.pages import pages
from merchant_usage.sink.merchant_usage import RowWrite, lock_rows, set_rows
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import RedisClient, read_page


class Decision(StrEnum):
    """What a person says of a counter that went backwards."""

    #: The stored value was right; it stays until the counter overtakes it.
    KEEP = "keep"
    #: The lower value is right: a correction. The only way in which a stored value is ever lowered.
    ACCEPT = "accept"
    #: Redis restarted from zero: what was stored then is carried, and the counter comes on top.
    CARRY = "carry"


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision that was carried out."""

    key: CounterKey
    before: int
    after: int


def decide(
    client: RedisClient,
    conn: Connection,
    decision: Decision,
    prefix: str,
    *,
    key: bytes | None = None,
    date: dt.date | None = None,
) -> list[Decided]:
    """Carry out a decision on one key, or on all regressed counters of a date, and close their dead letters.

    Rows are locked and Redis is read again, so runs may go on meanwhile. A key that is gone by now counts with what
    was last seen of it.

    Raises:
        SettingsError: there is no such open regression, or Redis holds no number under its key.
    """
    letters = conn.execute(query("select_regressions"), {"key": key, "usage_date": date}).fetchall()
    if not letters:
        which = f"for {shown(key.decode(errors='backslashreplace'))}" if key else f"on {date}"
        raise SettingsError(f"No open counter_regressed {which}.")
    return [decided for page in pages(letters) for decided in _decide_page(client, conn, decision, prefix, page)]


def _decide_page(
    client: RedisClient, conn: Connection, decision: Decision, prefix: str, letters: list[tuple[bytes, int, int]]
) -> list[Decided]:
    writes: list[RowWrite] = []
    decided: list[Decided] = []
    last_seen = {bytes(key): (redis_value, postgres_value) for key, redis_value, postgres_value in letters}
    keys = {raw: parsed for raw in last_seen if isinstance(parsed := parse_key(raw, prefix), CounterKey)}
    with conn.transaction():
        rows = {key: (stored, carried) for key, stored, carried in lock_rows(conn, list(keys.values()))}
        for (raw, key), now in zip(keys.items(), read_page(client, list(keys)), strict=True):
            if isinstance(now, DeadLetter):
                raise SettingsError(f"{key} cannot be decided: {now.detail} ({now.reason}). Mend the key first.")
            seen, stored_then = last_seen[raw]
            stored, carried = rows.get(key, (stored_then, 0))
            # Once the counter has overtaken what was stored, the row knows better what was last seen of it.
            counter = now if now is not None else seen if stored <= stored_then else stored - carried
            # Still below: what is stored is carried. Else what was stored when it fell; since then it counted anew.
            base = stored if counter < stored - carried else max(stored_then, carried)
            value, carried = {
                Decision.KEEP: (stored, carried),
                Decision.ACCEPT: (carried + counter, carried),
                Decision.CARRY: (base + counter, base),
            }[decision]
            writes.append(RowWrite(key, value, carried))
            decided.append(Decided(key, stored, value))
            conn.execute(
                query("decide_regression"),
                {"key": raw, "decision": str(decision), "redis_value": counter, "postgres_value": stored},
            )
        set_rows(conn, writes)
        if decision is Decision.ACCEPT:
            accepted = {"metric_values": [write.metric_value for write in writes]}
            conn.execute(query("lower_readings"), as_columns(write.key for write in writes) | accepted)
    return decided
