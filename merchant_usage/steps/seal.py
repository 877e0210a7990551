"""Seals dates that are verified: what was proven of them can be shown later, and any change of it is evident.

A date whose rows change is sealed once more, as the next version, only if a run has verified it anew or people's
decisions account for the change. Whatever else changes rows is left for the audit to find.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, NamedTuple

import psycopg
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.driver_errors import explain
from merchant_usage.errors import NotSealed
from merchant_usage.log import Log
from merchant_usage.model.audit import MerchantChange
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.seal import SIZE, Seal, Tree
from merchant_usage.sink import ledger, seals
from merchant_usage.sink.ledger import DateState
from merchant_usage.sink.queries import query
from merchant_usage.sink.seals import Correction, Leaves
from merchant_usage.sink.transactions import transaction
from merchant_usage.steps.signature import Sign

log = Log(__name__)

#: Dates that were verified earlier and have no seal: a run seals so many. After an upgrade there may be a month.
MOST_EARLIER: Final = 7
#: The reasons of a seal, where it is not what people decided.
FIRST: Final = "first"
LATE: Final = "late"
CHANGED: Final = "changed"
CLEANED: Final = "clean-up"
#: Characters of a reason, and of why somebody decided.
LONGEST_REASON: Final = 1000
LONGEST_BECAUSE: Final = 200


class _Occasion(Enum):
    """Why a date is looked at: a run verified it just now, or did not; or a clean-up let its rows carry values."""

    VERIFIED = auto()
    SEEN = auto()
    CLEANED = auto()


class _NotProven(Exception):
    """Nobody has proven what is stored of a date."""


@dataclass(slots=True)
class Sealed:
    """What is stored of a date: its root, and what the root is over."""

    root: bytes
    counters: int = 0
    total: int = 0


def seal_dates(
    conn: Connection, reports: Sequence[DateReport], run_id: str, since: dt.date, sign: Sign | None = None
) -> list[Seal]:
    """Seal the dates of a run that are sealed by the ledger's word, and some earlier ones that have no seal.

    Safe to repeat: a date whose rows are as they were sealed gets no other seal.

    Args:
        reports: of the run, once they are in the ledger.
        since: earlier ones are looked for from this date on.

    Raises:
        NotSealed: PostgreSQL failed at it. What is verified stays verified, and the next run seals it.
    """
    whole = [each for each in reports if each.settled and each.merchants is None]
    verified = {each.date: each.postgres_total for each in whole if each.verdict is DateVerdict.VERIFIED}
    made: list[Seal] = []
    try:
        dates = sorted({each.date for each in whole}.union(seals.unsealed(conn, since, MOST_EARLIER)))
        for date, state in sorted(ledger.date_states(conn, dates).items()):
            if date in verified:
                # Of this very run, whichever of two runs at once the ledger takes for the newest.
                state, occasion = state._replace(verified_total=verified[date]), _Occasion.VERIFIED
            else:
                occasion = _Occasion.SEEN
            if seal := _seal_date(conn, state, run_id, sign, occasion):
                made.append(seal)
    except psycopg.errors.InsufficientPrivilege:
        raise  # what a role lacks is told by itself
    except psycopg.Error as error:
        raise NotSealed(explain(error)) from error
    for seal in made:
        _log(seal)
    return made


@contextmanager
def sealed_anew(conn: Connection, dates: Iterable[dt.date], run_id: str, sign: Sign | None) -> Iterator[None]:
    """Around a clean-up, which changes what rows carry and no value: dates that are intact before it are so after it.

    Raises:
        NotSealed: PostgreSQL failed at it.
    """
    intact = [date for date, seal in seals.newest(conn, dates).items() if _is_intact(conn, seal)]
    try:
        yield
    finally:
        try:
            for state in ledger.date_states(conn, intact).values():
                if seal := _seal_date(conn, state, run_id, sign, _Occasion.CLEANED):
                    _log(seal)
        except psycopg.Error as error:
            raise NotSealed(explain(error)) from error


def _is_intact(conn: Connection, seal: Seal) -> bool:
    with transaction(conn):
        return hash_of(seals.stored_leaves(conn, seal.date)).root == seal.root


def _log(seal: Seal) -> None:
    log.info(
        f"Sealed {seal.date} as version {seal.version} ({seal.reason}): {seal.total:,} in {seal.counters:,} counters, "
        f"seal {seal.number}, chain {seal.chain.hex()}",
        **seal.to_json(),
    )


def _seal_date(conn: Connection, state: DateState, run_id: str, sign: Sign | None, occasion: _Occasion) -> Seal | None:
    """Seal one date, if there is anything new to seal."""
    if state.is_undecided or state.verdict not in {DateVerdict.VERIFIED, DateVerdict.SOURCE_EXPIRED}:
        return None
    with transaction(conn):
        conn.execute(query("set_durable"))
        seals.lock(conn)
        before = seals.newest(conn, [state.date]).get(state.date)
        if before is None and not state.is_sealed:
            return None
        if before is not None and hash_of(seals.stored_leaves(conn, state.date)).root == before.root:
            return None
        sealed_at = clock.now()
        version = before.version + 1 if before else 1
        reason: str | None = None
        # A part of the transaction, so that the leaves go again when nobody has proven them.
        with suppress(_NotProven), conn.transaction():
            found = _keep(conn, state.date, version)
            reason = _reason(conn, state, before, found, occasion)
            if reason is None:
                raise _NotProven
        if reason is None:
            return None
        number, chain = seals.end_of_chain(conn)
        seal = Seal(
            number + 1,
            state.date,
            version,
            sealed_at,
            run_id,
            found.counters,
            found.total,
            found.root,
            reason,
            previous=chain,
        )
        seal = replace(seal, chain=seal.expected_chain)
        seal = replace(seal, signature=sign(seal.chain) if sign else None)
        seals.insert(conn, seal)
        if before is not None:
            seals.keep_corrections(conn, state.date, version)
    return seal


def hash_of(leaves: Iterable[Leaves]) -> Sealed:
    """The root over some leaves, and what it is over."""
    tree, found = Tree(), Sealed(b"")
    for page in leaves:
        tree.add(page.leaves)
        found.counters += page.counters
        found.total += sum(page.totals)
    found.root = tree.root
    return found


def _keep(conn: Connection, date: dt.date, version: int) -> Sealed:
    """Read what is stored of a date, and keep its leaves."""

    def kept() -> Iterator[Leaves]:
        for page in seals.stored_leaves(conn, date):
            seals.keep_leaves(conn, date, version, page)
            yield page

    return hash_of(kept())


def _reason(conn: Connection, state: DateState, before: Seal | None, found: Sealed, occasion: _Occasion) -> str | None:
    """Why a date gets a seal; None if it gets none: nobody has proven what is stored of it."""
    is_as_verified = state.is_sealed and found.total == state.verified_total
    if before is None:
        return FIRST if is_as_verified else None
    decided = seals.corrections(conn, state.date, before.sealed_at)
    if is_as_verified and occasion is _Occasion.VERIFIED:
        if decided:
            return format_corrections(decided)
        changes = changed_merchants(
            seals.kept_leaves(conn, state.date, before.version), seals.stored_leaves(conn, state.date)
        )
        return LATE if all(map(_has_risen, changes)) else CHANGED
    if occasion is _Occasion.CLEANED:
        return CLEANED if found.total == before.total else None
    has_expired = state.verdict is DateVerdict.SOURCE_EXPIRED
    if decided and has_expired and found.total == before.total + sum(each.more for each in decided):
        return format_corrections(decided)
    return None


def _has_risen(change: MerchantChange) -> bool:
    return change.after is not None and (change.before is None or change.before < change.after)


def format_corrections(decided: Iterable[Correction]) -> str:
    """What was decided, by whom and why, as the reason of a seal."""
    told = "; ".join(
        f"{each.decision} by {each.decided_by}"
        + (f" ({each.number:,} counters)" if each.number > 1 else "")
        + (f": {each.reason[:LONGEST_BECAUSE]}" if each.reason else "")
        for each in decided
    )
    return told if len(told) <= LONGEST_REASON else f"{told[: LONGEST_REASON - 1]}…"


def changed_merchants(before: Iterable[Leaves], after: Iterable[Leaves]) -> Iterator[MerchantChange]:
    """The merchants whose leaves differ, in the order of their ids. Holds no more than a page of each."""
    old, new = _each(before), _each(after)
    left, right = next(old, None), next(new, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.key < right.key):
            assert left is not None  # one of the two is there
            yield MerchantChange(left.merchant_id, left.total, None)
            left = next(old, None)
        elif left is None or right.key < left.key:
            yield MerchantChange(right.merchant_id, None, right.total)
            right = next(new, None)
        else:
            if left.leaf != right.leaf:
                yield MerchantChange(left.merchant_id, left.total, right.total)
            left, right = next(old, None), next(new, None)


class _Leaf(NamedTuple):
    key: bytes
    merchant_id: str
    total: int
    leaf: bytes


def _each(pages: Iterable[Leaves]) -> Iterator[_Leaf]:
    for page in pages:
        for i, (merchant_id, total) in enumerate(zip(page.merchant_ids, page.totals, strict=True)):
            yield _Leaf(merchant_id.encode(), merchant_id, total, page.leaves[i * SIZE : (i + 1) * SIZE])
