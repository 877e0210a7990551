"""Decisions of people, and proposals that wait for a second person: rows that are only ever added."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.rows import dict_row

from merchant_usage.sink.queries import query


class Proposal(NamedTuple):
    """That somebody would accept a lower value: which, and what they saw (`counter` None: the key was gone)."""

    id: int
    proposed_by: str
    reason: str | None
    counter: int | None
    before: int
    after: int


class Waiting(NamedTuple):
    """Counters of a date that wait for a decision, and of how many somebody has proposed to accept the lower value."""

    date: dt.date
    counters: int
    proposed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """A decision to be written down. `redis_key` None: of a whole date."""

    redis_key: bytes | None
    usage_date: dt.date
    decision: str
    decided_by: str
    decided_at: dt.datetime
    reason: str | None
    value_before: int
    value_after: int
    approved_by: str | None = None
    approved_at: dt.datetime | None = None
    approval_reason: str | None = None
    proposal_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRow:
    """A proposal to be written down. `redis_value` None: the key is gone."""

    letter_id: int
    redis_key: bytes
    usage_date: dt.date
    proposed_by: str
    proposed_at: dt.datetime
    reason: str | None
    redis_value: int | None
    value_before: int
    value_after: int


def write_down(conn: Connection, row: DecisionRow) -> None:
    """Write a decision down. Needs a transaction."""
    conn.execute(query("insert_decision"), asdict(row))


def propose(conn: Connection, row: ProposalRow) -> None:
    """Write a proposal down. Needs a transaction in which the writers of dead letters are locked out."""
    conn.execute(query("insert_proposal"), asdict(row))


def proposals(conn: Connection, letters: Iterable[int]) -> dict[int, Proposal]:
    """The newest proposal of each of these dead letters that has any."""
    ids = list(letters)
    rows = conn.execute(query("select_proposals"), {"letters": ids}) if ids else ()
    return {letter: Proposal(*rest) for letter, *rest in rows}


def waiting_counts(conn: Connection) -> list[Waiting]:
    """How much waits for a decision, by date."""
    return [Waiting(*row) for row in conn.execute(query("count_waiting"))]


def waiting(conn: Connection, date: dt.date | None, limit: int) -> list[dict[str, Any]]:
    """Counters that wait for a decision, oldest date first, with what somebody has proposed."""
    return _rows(conn, "select_waiting", date, limit)


def decided(conn: Connection, date: dt.date | None, limit: int) -> list[dict[str, Any]]:
    """What was decided, newest first."""
    return _rows(conn, "select_decisions", date, limit)


def _rows(conn: Connection, name: str, date: dt.date | None, limit: int) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name), {"usage_date": date, "limit": limit}).fetchall()
