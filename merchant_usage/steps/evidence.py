"""Which dates of a period are proven, and why others are not: the ledger, beside what is stored and sealed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Final

from psycopg import Connection

from merchant_usage.model.report import DateVerdict
from merchant_usage.model.seal import Seal
from merchant_usage.sink import ledger, period, seals
from merchant_usage.sink.ledger import DateState
from merchant_usage.sink.period import Period, Sums
from merchant_usage.steps.seal import hash_of

#: What the last verdict about the end of a date means for it, where it is none that lets it be sealed.
_UNPROVEN: Final = {
    DateVerdict.MISMATCH: "the last verdict about its end is mismatch: PostgreSQL did not hold what Redis held",
    DateVerdict.NOT_PROVEN: "the last run that read its end failed in part",
    DateVerdict.INCOMPLETE: "nobody read its end while its keys lived, so usage may be missing",
    DateVerdict.EMPTY: "neither Redis nor PostgreSQL had anything of it, so that nothing was sealed",
}


@dataclass(slots=True)
class Day:
    """How a date stands.

    Attributes:
        sums: of the merchants that were asked for.
        verdict: the last one about its end.
        seal: the newest version; None if there is none.
        stored_root: over what is stored of all merchants now; empty if there is no seal to compare it with.
        why: it is not proven; empty if it is.
        told: what happened to the whole date, a sentence each.
    """

    date: dt.date
    sums: Sums
    verdict: DateVerdict | None
    seal: Seal | None
    stored_root: bytes
    why: str
    told: list[str] = field(default_factory=list)

    @property
    def is_proven(self) -> bool:
        """Whether what is stored is what was proven and sealed."""
        return not self.why

    @property
    def state(self) -> str:
        """In words."""
        return "not proven" if self.why else "proven"


def days_of(conn: Connection, asked: Period) -> list[Day]:
    """Each date of a period, those of which nothing is known too. Needs a transaction that is one snapshot."""
    states = ledger.date_states(conn, asked.dates)
    newest = seals.newest(conn, asked.dates)
    sums = period.sums(conn, asked)
    days = []
    for date in asked.dates:
        seal, state = newest.get(date), states[date]
        root = hash_of(seals.stored_leaves(conn, date)).root if seal else b""
        why = _why_not_proven(state, seal, root)
        days.append(Day(date, sums.get(date, Sums()), state.verdict, seal, root, why))
    return days


def _why_not_proven(state: DateState, seal: Seal | None, stored_root: bytes) -> str:
    """Nothing if the date is proven. That nothing is left in Redis takes nothing away from what was sealed."""
    if state.is_undecided:
        return "a counter went backwards, and waits for a decision"
    if state.verdict is None:
        return "no run has come to a verdict about its end"
    if state.verdict in _UNPROVEN:
        return _UNPROVEN[state.verdict]
    if seal is None:
        return "it has no seal"
    if seal.chain != seal.expected_chain:
        return f"version {seal.version} of its seal is not the one that was made: the chain of seals breaks there"
    if seal.root != stored_root:
        return f"what is stored is not what was sealed as version {seal.version}"
    return ""
