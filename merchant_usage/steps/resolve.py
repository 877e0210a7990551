"""Decides counters that went backwards, and dates whose end nobody read: what a person says becomes what is stored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from psycopg import Connection

from merchant_usage import clock
from merchant_usage.errors import SettingsError
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, build_key, parse_key
from merchant_usage.model.pages import pages
from merchant_usage.sink import absences, dead_letters, decisions, ledger, readings
from merchant_usage.sink.dead_letters import Regression
from merchant_usage.sink.decisions import DecisionRow, Proposal, ProposalRow
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
    """What a person decided, who it is, and why.

    Attributes:
        approvals: how many persons it takes to lower a value.
    """

    decision: Decision
    decided_by: str
    reason: str | None = None
    approvals: int = 1

    @property
    def needs_second_person(self) -> bool:
        """Whether it changes nothing until somebody else says the same: nothing but an accept lowers a bill."""
        return self.decision is Decision.ACCEPT and self.approvals > 1

    def is_by(self, name: str) -> bool:
        """Whether this is that person: however the name is written, in capitals or with spaces around it."""
        return _folded(self.decided_by) == _folded(name)


def _folded(name: str) -> str:
    return name.strip().casefold()


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision that was carried out; of a whole date, with the sum that stands.

    Attributes:
        proposed_by: who had said so first, where it took two.
    """

    subject: CounterKey | dt.date
    before: int
    after: int
    proposed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Proposed:
    """A lower value that waits for a second person.

    Attributes:
        is_new: it was proposed now; else the same person has said so before.
        instead_of: an earlier proposal, which does not hold any more: the counter or its row have changed since.
    """

    key: CounterKey
    proposed_by: str
    before: int
    after: int
    is_new: bool = True
    instead_of: Proposal | None = None


@dataclass(slots=True)
class Outcome:
    """What was decided, what waits for a second person, and what could not be decided, with the reason."""

    decided: list[Decided] = field(default_factory=list)
    waiting: list[Proposed] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


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
        SettingsError: there is nothing to decide, or nothing of it can be decided by this person.
    """
    outcome = _decide_letters(client, conn, ruling, prefix, _Choice(key, date))
    if date is not None and ledger.date_states(conn, [date])[date].is_incomplete:
        _decide_date(conn, ruling, date, outcome)
    if not outcome.decided and not any(each.is_new for each in outcome.waiting):
        which = f"for {shown(key.decode(errors='backslashreplace'))}" if key else f"on {date}"
        why = [*outcome.refused, *_why_not_twice(outcome)]
        raise SettingsError("; ".join(why) or f"No open counter_regressed {which}.")
    return outcome


def decide_letters(
    client: RedisClient, conn: Connection, ruling: Ruling, prefix: str, letters: tuple[int, int]
) -> Outcome:
    """The same for the dead letters whose ids lie between two, as far as they are open still.

    Those that were decided before are passed over, so that repeating it does no harm.
    """
    return _decide_letters(client, conn, ruling, prefix, _Choice(letters=letters))


class _Choice(NamedTuple):
    """Which counters are decided: each part that is not None chooses among those that wait."""

    key: bytes | None = None
    date: dt.date | None = None
    letters: tuple[int, int] | None = None

    def admits(self, letter: Regression) -> bool:
        """Whether a letter is among those that were asked about: the counter may have fallen anew since."""
        return self.letters is None or self.letters[0] <= letter.id <= self.letters[1]


def _decide_letters(client: RedisClient, conn: Connection, ruling: Ruling, prefix: str, choice: _Choice) -> Outcome:
    first, last = choice.letters or (None, None)
    parameters = {"key": choice.key, "usage_date": choice.date, "first": first, "last": last}
    raw_keys = [bytes(row[0]) for row in conn.execute(query("select_regressions"), parameters)]
    outcome = Outcome()
    prefixes = {prefix, *ledger.key_prefixes(conn)} if raw_keys else {prefix}
    for page in pages(raw_keys):
        keys = {raw: parsed for raw in page if (parsed := _parsed(raw, prefixes)) is not None}
        outcome.refused += [
            f"{shown(raw.decode(errors='backslashreplace'))} is no usage key" for raw in page if raw not in keys
        ]
        _decide_page(client, conn, ruling, keys, choice, outcome)
    return outcome


def _why_not_twice(outcome: Outcome) -> Iterator[str]:
    if own := outcome.waiting:
        these = f"{own[0].key}" if len(own) == 1 else f"{len(own):,} counters"
        yield (
            f"{own[0].proposed_by} has proposed already to accept the lower value of {these}: nobody lowers a bill "
            "alone (USAGE_APPROVALS=2), so another person has to say the same"
        )


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
        decisions.write_down(
            conn,
            DecisionRow(
                redis_key=None,
                usage_date=date,
                decision=str(ruling.decision),
                decided_by=ruling.decided_by,
                decided_at=clock.now(),
                reason=ruling.reason,
                value_before=total,
                value_after=total,
            ),
        )
    outcome.decided.append(Decided(date, total, total))


def _decide_page(
    client: RedisClient,
    conn: Connection,
    ruling: Ruling,
    keys: Mapping[bytes, CounterKey],
    choice: _Choice,
    outcome: Outcome,
) -> None:
    """Decide some counters in one transaction; nothing of the outcome is told before that is committed."""
    page, now = _Page(), clock.now()
    with transaction(conn):
        conn.execute(query("set_durable"))
        rows = {key: RowWrite(key, stored, carried) for key, stored, carried in lock_rows(conn, list(keys.values()))}
        # What a colleague has decided since the list was made is no open letter any more.
        found = dead_letters.lock_regressions(conn, keys)
        letters = {raw: found[raw] for raw in keys if raw in found and choice.admits(found[raw])}
        proposals = decisions.proposals(conn, (letter.id for letter in letters.values()))
        for (raw, letter), counter in zip(letters.items(), read_page(client, list(letters)), strict=True):
            key = keys[raw]
            if isinstance(counter, DeadLetter):
                problem = f"{counter.detail} ({counter.reason})"
                page.refused.append(f"{key} cannot be decided: {problem}. Mend the key first.")
                continue
            row = rows.get(key) or RowWrite(key, letter.base, 0)
            case = _Case(raw, row, letter, counter, proposals.get(letter.id), now)
            _decide_case(conn, ruling, case, page, has_row=key in rows)
        set_rows(conn, page.writes)
        if ruling.decision is Decision.ACCEPT:
            readings.accept(conn, {write.key: write.metric_value for write in page.writes})
        # No run need look before it is back, and then it began anew.
        absences.note(conn, page.gone, now)
    outcome.decided += page.decided
    outcome.waiting += page.waiting
    outcome.refused += page.refused


class _Case(NamedTuple):
    """One counter that went backwards: its row (what it would be, if there is none), locked, and all that is known."""

    raw_key: bytes
    row: RowWrite
    letter: Regression
    #: None: the key is gone.
    counter: int | None
    proposal: Proposal | None
    now: dt.datetime

    def holds(self, proposal: Proposal) -> bool:
        """Whether a proposal would still come to its number.

        What was counted on since changes nothing of it: the next run adds that, as after any decision.
        """
        if (self.counter is None) != (proposal.counter is None) or self.row.metric_value != proposal.before:
            return False
        if self.counter is not None and proposal.counter is not None and self.counter < proposal.counter:
            return False
        would_be = _decide_counter(Decision.ACCEPT, self.row, self.letter, proposal.counter)
        return would_be.metric_value == proposal.after


@dataclass(slots=True)
class _Page(Outcome):
    """What a page comes to, before it is committed."""

    writes: list[RowWrite] = field(default_factory=list)
    #: Decided ones whose keys are gone.
    gone: list[CounterKey] = field(default_factory=list)


def _decide_case(conn: Connection, ruling: Ruling, case: _Case, page: _Page, *, has_row: bool) -> None:
    key, before = case.row.key, case.row.metric_value
    write = _decide_counter(ruling.decision, case.row, case.letter, case.counter)
    if write.metric_value > MAX_VALUE:
        page.refused.append(f"{key} cannot be carried: the sum would be {write.metric_value}, too much to store.")
        return
    approved: Proposal | None = None
    if ruling.needs_second_person:
        proposal = case.proposal
        if proposal is None or not case.holds(proposal):
            _propose(conn, ruling, case, write.metric_value)
            page.waiting.append(Proposed(key, ruling.decided_by, before, write.metric_value, instead_of=proposal))
            return
        if ruling.is_by(proposal.proposed_by):
            page.waiting.append(Proposed(key, proposal.proposed_by, proposal.before, proposal.after, is_new=False))
            return
        # Just the number that two persons have seen.
        approved, write = proposal, write._replace(metric_value=proposal.after)
    if has_row:
        page.writes.append(write._replace(correction=True))
        page.gone += [key] if case.counter is None else []
    page.decided.append(Decided(key, before, write.metric_value, approved.proposed_by if approved else None))
    conn.execute(
        query("decide_regression"),
        {
            "key": case.raw_key,
            "decision": str(ruling.decision),
            "redis_value": case.counter,
            "postgres_value": write.metric_value,
            "now": case.now,
        },
    )
    _write_down(conn, ruling, case, write.metric_value, approved)


def _propose(conn: Connection, ruling: Ruling, case: _Case, after: int) -> None:
    decisions.propose(
        conn,
        ProposalRow(
            letter_id=case.letter.id,
            redis_key=case.raw_key,
            usage_date=case.row.key.date,
            proposed_by=ruling.decided_by,
            proposed_at=case.now,
            reason=ruling.reason,
            redis_value=case.counter,
            value_before=case.row.metric_value,
            value_after=after,
        ),
    )


def _write_down(conn: Connection, ruling: Ruling, case: _Case, after: int, approved: Proposal | None) -> None:
    """Of a decision of two persons the first one has decided, and the second approved."""
    row = DecisionRow(
        redis_key=case.raw_key,
        usage_date=case.row.key.date,
        decision=str(ruling.decision),
        decided_by=ruling.decided_by,
        decided_at=case.now,
        reason=ruling.reason,
        value_before=case.row.metric_value,
        value_after=after,
    )
    if approved is not None:
        row = replace(
            row,
            decided_by=approved.proposed_by,
            reason=approved.reason,
            approved_by=ruling.decided_by,
            approved_at=case.now,
            approval_reason=ruling.reason,
            proposal_id=approved.id,
        )
    decisions.write_down(conn, row)


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
