"""What an audit says of sealed dates and of the chain, and how that reads. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from merchant_usage.model.seal import Seal
from merchant_usage.text import shown

#: Merchants that a sentence names.
MOST_TOLD: Final = 10
#: Merchants of a date that are named; the others are counted. And problems of the chain.
MOST_NAMED: Final = 100


class MerchantChange(NamedTuple):
    """A merchant whose leaf is another than it was: what it had in all, and has. None: no counter at all."""

    merchant_id: str
    before: int | None
    after: int | None


class SealState(StrEnum):
    """How a date stands beside its seal."""

    INTACT = "intact"
    CHANGED = "changed"
    NOT_SEALED = "not sealed"


@dataclass(slots=True)
class DateAudit:
    """What an audit says of a date.

    Attributes:
        seal: the newest version; None if there is none.
        root: that of what is stored now.
        total: the sum that is stored now.
        merchants: those that changed; of many the first.
        merchant_count: how many changed.
        leaves_changed: the leaves that were kept beside the seal are not those that were sealed, so that they may not
            say which merchants changed.
    """

    date: dt.date
    state: SealState
    seal: Seal | None = None
    root: bytes = b""
    total: int = 0
    merchants: list[MerchantChange] = field(default_factory=list)
    merchant_count: int = 0
    leaves_changed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "date": self.date.isoformat(),
            "state": str(self.state),
            "seal": self.seal and self.seal.to_json(),
            "root": self.root.hex() or None,
            "total": str(self.total),
            "changed_merchants": self.merchant_count,
            "merchants": [
                {"merchant_id": who, "sealed": _text(before), "stored": _text(after)}
                for who, before, after in self.merchants
            ],
            "leaves_changed": self.leaves_changed,
        }


@dataclass(slots=True)
class Audit:
    """What an audit found: of dates, the chain and its signatures, and beside checkpoints. Problems are sentences.

    Attributes:
        signed: how many seals are signed; None if nobody looked.
        unsigned: how many are not that were made before the first that is.
    """

    dates: list[DateAudit] = field(default_factory=list)
    chain: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    signed: int | None = None
    unsigned: int = 0

    @property
    def is_intact(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.chain or self.against or self.signatures) and all(
            each.state is SealState.INTACT for each in self.dates
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "intact": self.is_intact,
            "dates": [each.to_json() for each in self.dates],
            "chain": self.chain,
            "against": self.against,
            "signatures": self.signatures,
            "signed": self.signed,
            "unsigned": None if self.signed is None else self.unsigned,
        }


class MerchantState(StrEnum):
    """How a merchant's day stands beside its seal."""

    INTACT = "intact"
    CHANGED = "changed"
    #: The date, or nothing of the merchant, which has nothing now either. Leaves cannot prove who is not among them.
    NOT_SEALED = "not sealed"
    #: What it could be compared with is not what was sealed.
    NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class MerchantAudit:
    """What an audit says of a single merchant on a date.

    Attributes:
        seal: the newest version; None if there is none.
        change: what the merchant had in all when it was sealed, and has.
        why: why it is not known.
    """

    date: dt.date
    state: MerchantState
    seal: Seal | None
    change: MerchantChange
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "state": str(self.state),
            "version": self.seal and self.seal.version,
            "seal_number": self.seal and self.seal.number,
            "sealed": _text(self.change.before),
            "stored": _text(self.change.after),
            "told": format_merchant(self),
        }


def format_merchant(found: MerchantAudit) -> str:
    """Whether what is stored of a merchant's day is what was sealed of it, in a sentence."""
    whose = f"What is stored of {shown(found.change.merchant_id)} on {found.date}"
    if found.state is MerchantState.NOT_KNOWN:
        return f"Nobody can tell whether what is stored of {shown(found.change.merchant_id)} was sealed: {found.why}."
    if found.seal is None:
        return f"{whose} cannot be compared with a seal: there is none of this date."
    if found.state is MerchantState.CHANGED:
        return f"{whose} is not what was sealed as version {found.seal.version}: {format_change(found.change)}."
    if found.state is MerchantState.NOT_SEALED:
        return f"{whose} is nothing, and none of the leaves beside version {found.seal.version} bears its id."
    return f"{whose} is what was sealed as version {found.seal.version}."


def format_changed(found: DateAudit) -> str:
    """That a date is not what was sealed, and which merchants changed."""
    return f"{found.date} is not what was sealed. {format_changes(found)}"


def format_changes(found: DateAudit) -> str:
    """Which merchants of a date changed, and how, in sentences."""
    named = "; ".join(map(format_change, found.merchants[:MOST_TOLD]))
    more = f"; and {found.merchant_count - MOST_TOLD:,} more" if found.merchant_count > MOST_TOLD else ""
    told = (
        f"Merchants that changed: {named}{more}." if found.merchants else "No leaf that was kept tells which merchant."
    )
    return (
        f"{told} The leaves beside the seal were changed, too, so there may be others."
        if found.leaves_changed
        else told
    )


def format_change(change: MerchantChange) -> str:
    """What a merchant had and has."""
    who = shown(change.merchant_id)
    if change.before is None:
        return f"{who} was not there, and has {change.after:,}"
    if change.after is None:
        return f"{who} had {change.before:,}, and is not there"
    if change.before == change.after:
        return f"{who} has {change.after:,} in all as it had, in other counters"
    return f"{who} had {change.before:,}, and has {change.after:,}"


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
