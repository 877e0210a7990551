"""Looks whether dates are still what was sealed of them, and whether the chain of seals is whole."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from typing import Any

from psycopg import Connection

from merchant_usage.errors import SettingsError
from merchant_usage.log import Log
from merchant_usage.model.audit import (
    MOST_NAMED,
    Audit,
    DateAudit,
    MerchantAudit,
    MerchantChange,
    MerchantState,
    SealState,
    format_changed,
)
from merchant_usage.model.dates import local_date
from merchant_usage.model.seal import NOTHING, SIZE, Counter, Seal, Tree, leaf_of, path_of, root_by
from merchant_usage.settings import Settings
from merchant_usage.sink import seals
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction
from merchant_usage.steps.seal import changed_merchants, hash_of
from merchant_usage.steps.signature import SignatureCheck
from merchant_usage.text import capitalized, shown

log = Log(__name__)


def audit_daily(conn: Connection, now: dt.datetime, settings: Settings) -> Audit:
    """Audit the last `USAGE_AUDIT_DAYS`, and say in the log what is not as it was sealed."""
    last = local_date(now, settings) - dt.timedelta(days=1)
    found = audit(conn, last - dt.timedelta(days=settings.audit_days - 1), last)
    changed = [each for each in found.dates if each.state is SealState.CHANGED]
    for each in changed:
        log.warning(format_changed(each), date=str(each.date))
    for problem in found.chain:
        log.warning(f"{capitalized(problem)}.")
    if not (changed or found.chain):
        log.info(f"Audited {len(found.dates)} dates: all that is sealed is as it was sealed", dates=len(found.dates))
    return found


def audit(
    conn: Connection,
    first: dt.date,
    last: dt.date,
    checkpoints: Iterable[Seal] = (),
    check: SignatureCheck | None = None,
) -> Audit:
    """Hash the dates of a range anew, follow the whole chain, and look for checkpoints in it and at its signatures."""
    parameters = {"from_date": first, "to_date": last}
    dates = [row[0] for row in conn.execute(query("select_auditable"), parameters)]
    newest = seals.newest(conn, dates)
    found = Audit([audit_date(conn, date, newest.get(date)) for date in dates])
    expected = {seal.number: seal for seal in checkpoints}
    with transaction(conn):
        for seal, problems in followed(seals.every(conn)):
            found.chain += problems
            if check is not None:
                found.signatures += check.problems_of(seal)
            if (other := expected.pop(seal.number, None)) is not None and other != seal:
                found.against.append(_made_anew(other, seal))
    found.against += [f"{each.name} was cut off: it is not there any more" for each in expected.values()]
    if check is not None:
        found.signatures += check.problems_of_all()
        found.signed, found.unsigned = check.signed, check.unsigned
    for problems in (found.chain, found.against, found.signatures):
        _shorten(problems)
    return found


def audit_date(conn: Connection, date: dt.date, seal: Seal | None) -> DateAudit:
    """Hash what is stored of a date, and find the merchants that changed."""
    if seal is None:
        return DateAudit(date, SealState.NOT_SEALED)
    with transaction(conn):
        stored = hash_of(seals.stored_leaves(conn, date))
        found = DateAudit(date, SealState.INTACT, seal, stored.root, stored.total)
        if stored.root == seal.root:
            return found
        found.state = SealState.CHANGED
        found.leaves_changed = hash_of(seals.kept_leaves(conn, date, seal.version)).root != seal.root
        for change in changed_merchants(seals.kept_leaves(conn, date, seal.version), seals.stored_leaves(conn, date)):
            found.merchant_count += 1
            if len(found.merchants) < MOST_NAMED:
                found.merchants.append(change)
    return found


def followed(chain: Iterable[Seal]) -> Iterator[tuple[Seal, list[str]]]:
    """Each seal, with what is wrong of its place in the chain."""
    before: Seal | None = None
    versions: dict[dt.date, int] = {}
    for seal in chain:
        problems = []
        expected = before.number + 1 if before else 1
        if seal.number != expected:
            gap = f"{expected:,}" if seal.number == expected + 1 else f"{expected:,} to {seal.number - 1:,}"
            problems.append(f"the chain has no {gap} before {seal.name}")
        elif seal.previous != (before.chain if before else NOTHING) or seal.chain != seal.expected_chain:
            problems.append(f"{seal.name} is not the one that was sealed: the chain breaks there")
        if seal.version != versions.get(seal.date, 0) + 1:
            problems.append(f"{seal.name} follows version {versions.get(seal.date, 0)} of its date")
        versions[seal.date] = seal.version
        yield seal, problems
        before = seal


def _made_anew(expected: Seal, found: Seal) -> str:
    return (
        f"{expected.name} was made anew: its chain was {expected.chain.hex()} with {expected.total:,}, and it is "
        f"{found.chain.hex()} with {found.total:,} now"
    )


def _shorten(problems: list[str]) -> None:
    if len(problems) > MOST_NAMED:
        problems[MOST_NAMED:] = [f"and {len(problems) - MOST_NAMED:,} more"]


def read_checkpoints(lines: Iterable[str], name: str) -> list[Seal]:
    """The checkpoints of a file: JSON, a line each, as `seals --export` writes them.

    Raises:
        SettingsError: a line is none.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                found.append(Seal.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            raise SettingsError(
                f"Line {number} of {name} is no checkpoint; it takes what `seals --export` writes, a line a seal."
            ) from None
    if not found:
        raise SettingsError(f"{name} holds no checkpoint.")
    return found


def audit_merchant(conn: Connection, merchant_id: str, date: dt.date) -> MerchantAudit:
    """Hash what is stored of one merchant on a date, and compare it with the leaf that the newest seal is over.

    Takes a tenth of a second where `audit_date` takes seconds: of all others the leaves that were kept are enough, if
    they lead to the root that was sealed. Needs a transaction; one snapshot, so that a run meanwhile does not matter.
    """
    seal = seals.newest(conn, [date]).get(date)
    counters = _counters_of(conn, merchant_id, date)
    stored = sum(each.metric_value for each in counters) if counters else None

    def found(state: MerchantState, before: int | None = None, why: str = "") -> MerchantAudit:
        return MerchantAudit(date, state, seal, MerchantChange(merchant_id, before, stored), why)

    if (newest := seals.newest_leaves(conn, date)) > (seal.version if seal else 0):
        return found(MerchantState.NOT_KNOWN, why=f"{date} was sealed as version {newest}, and that seal is gone")
    if seal is None:
        return found(MerchantState.NOT_SEALED)
    if seal.chain != seal.expected_chain:
        return found(MerchantState.NOT_KNOWN, why=f"{seal.name} does not fit into the chain of seals")
    tree, leaf, before = Tree(), b"", None
    for page in seals.kept_pages(conn, merchant_id, date, seal.version):
        tree.add(page.leaves)
        if page.place is not None:
            leaf, before = page.leaves[page.place * SIZE : (page.place + 1) * SIZE], page.total
    if tree.root != seal.root:
        return found(MerchantState.NOT_KNOWN, why=f"the leaves kept beside {seal.name} are not those of its root")
    if not leaf and not counters:
        return found(MerchantState.NOT_SEALED)
    if counters and leaf == leaf_of(merchant_id, counters):
        return found(MerchantState.INTACT, stored)
    return found(MerchantState.CHANGED, before)


def _counters_of(conn: Connection, merchant_id: str, date: dt.date) -> list[Counter]:
    rows = conn.execute(query("select_merchant_counters"), {"merchant_id": merchant_id, "date": date})
    return [Counter(*row) for row in rows]


def prove_merchant(conn: Connection, merchant_id: str, date: dt.date) -> dict[str, Any]:
    """What shows, to somebody who has but a checkpoint, what was sealed of a merchant on a date. Plain JSON.

    Raises:
        SettingsError: the date has no seal, the merchant no usage on it, or what is stored is not what was sealed.
    """
    seal = seals.newest(conn, [date]).get(date)
    if seal is None:
        raise SettingsError(f"{date} is not sealed, so there is nothing to prove.")
    with transaction(conn):
        counters = _counters_of(conn, merchant_id, date)
        merchants, index, leaves = 0, None, bytearray()
        for page in seals.kept_pages(conn, merchant_id, date, seal.version):
            if page.place is not None:
                index = merchants + page.place
            merchants += page.merchants
            leaves += page.leaves
    if index is None:
        raise SettingsError(f"{shown(merchant_id)} has nothing sealed on {date}.")
    path = path_of(bytes(leaves), index)
    if root_by(leaf_of(merchant_id, counters), path) != seal.root:
        raise SettingsError(
            f"What is stored of {shown(merchant_id)} on {date} is not what was sealed, so it cannot be proven."
        )
    return {
        "proof": 1,
        "merchant_id": merchant_id,
        "counters": [
            {"metric_type": metric, "metric_value": str(value), "carried": str(carried)}
            for metric, value, carried in counters
        ],
        "path": [{"side": "left" if step.is_left else "right", "hash": step.hash.hex()} for step in path],
        "seal": seal.to_json(),
    }
