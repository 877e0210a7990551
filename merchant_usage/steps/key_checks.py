"""Brings up each key of a run for comparison, both ways: what the scan found, rows without a key, and what was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from merchant_usage.model.batches import Batch, Group
from merchant_usage.model.keys import CounterKey, build_key, parse_key
from merchant_usage.model.pages import PAGE, Page, branches, key_pages, pages
from merchant_usage.model.readings import WHOLE, digest
from merchant_usage.model.run import Attempt
from merchant_usage.model.verdict import Verdict
from merchant_usage.sink import readings
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import interpret_values, read_page
from merchant_usage.steps.judgement import Context, Observation, judge_keys, stored_rows
from merchant_usage.steps.page_comparison import PageComparison, compare_pages
from merchant_usage.steps.store import parts
from merchant_usage.steps.tally import Tally

#: A page of keys that the scan found, and what was read of it.
ScannedPage = tuple[Page, Sequence[str]]


def by_date(groups: Iterable[Group]) -> list[Group]:
    """Groups by date, because a page ends with its date."""
    return sorted(groups, key=attrgetter("date"))


def pages_with_readings(context: Context, attempt: Attempt, batches: Sequence[Batch]) -> Iterator[ScannedPage]:
    """The pages of live dates as they were stored, each with what was read of it; then those of the other dates.

    PostgreSQL may have refused a part as a whole: what was stored in other pages than these is looked up.
    """
    for batch in batches:
        if not batch.live_dates:
            continue
        kept = readings.of_batch(context.conn, attempt, batch.number)
        for part in parts(batch):
            for page in key_pages(part.groups, context.prefix):
                if page.date in batch.live_dates:
                    yield page, kept.pop(digest(page), ())
        if kept:
            _look_up_unsaved(context, readings.of_pages(context.conn, attempt, batch.number, kept))
    over = by_date(group for batch in batches for group in batch.groups if group.date not in batch.live_dates)
    yield from ((page, ()) for page in key_pages(over, context.prefix))


def check_scanned_keys(context: Context, scanned: Iterable[ScannedPage], tally: Tally) -> None:
    """Compare each key that the scan found with its row."""
    to_compare, beside = branches(scanned, 2)
    compared = compare_pages(context.client, context.conn, (page for page, _ in to_compare), context.suspects)
    for both, (_, of_page) in zip(compared, beside, strict=True):
        tally.by_date[both.page.date].with_row += len(both.raw_values)
        for reading in of_page:
            _note_unsaved(context, both, reading)
        if not both.equal or context.names_any(both.page.raw_keys):
            _judge_unequal(context, both, tally)


def _note_unsaved(context: Context, both: PageComparison, reading: str) -> None:
    """Note those keys of a page whose row may be less than what this run read: they are looked at one by one."""
    counters = reading.encode().split(b",")
    for i in both.below(counters):
        context.note_unsaved(both.page.raw_keys[i], int(counters[i].removeprefix(WHOLE)))


def _look_up_unsaved(context: Context, pages_read: Iterable[dict[CounterKey, int]]) -> None:
    """The same for pages that are not those of the batches."""
    for read in pages_read:
        rows = stored_rows(context.conn, list(read))
        for key, least in read.items():
            stored, _ = rows.get(key, (None, 0))
            if stored is None or stored < least:
                context.note_unsaved(build_key(context.prefix, key), least)


def _judge_unequal(context: Context, both: PageComparison, tally: Tally) -> None:
    """Judge those keys of a page whose row is missing, is not what Redis has, or less than was read."""
    of_page = both.page.raw_keys
    named = (i for i, raw_key in enumerate(of_page) if raw_key in context.unsaved or raw_key in context.undecided)
    chosen = sorted({*both.unequal(), *named})
    raw_keys = [of_page[i] for i in chosen]
    values = interpret_values(context.client, raw_keys, [both.raw_values[i] for i in chosen])
    keys = [key for raw_key in raw_keys if isinstance(key := parse_key(raw_key, context.prefix), CounterKey)]
    rows = stored_rows(context.conn, keys)
    seen: list[Observation] = []
    for key, raw_key, now in zip(keys, raw_keys, values, strict=True):
        found = tally.by_date[key.date]
        stored, carried = rows.get(key, (None, 0))
        read = context.unsaved.pop(raw_key, None)
        if key in rows:
            found.rows += 1
        else:
            found.with_row -= 1
        seen.append(Observation(key, raw_key, stored, carried, read, now))
    judge_keys(context, seen, tally, was_scanned=True)


def check_unscanned_rows(context: Context, parameters: dict[str, Any], tally: Tally) -> None:
    """Judge the rows whose keys the scan did not find; its keys are in usage_staged."""
    with context.conn.cursor(name="usage_unscanned") as cursor:
        cursor.execute(query("select_unscanned_rows"), parameters)
        while rows := cursor.fetchmany(PAGE):
            keys = [CounterKey(*row[:3]) for row in rows]
            raw_keys = [build_key(context.prefix, key) for key in keys]
            values = read_page(context.client, raw_keys)
            seen: list[Observation] = []
            for key, raw_key, (*_, stored, carried), now in zip(keys, raw_keys, rows, values, strict=True):
                found = tally.by_date[key.date]
                found.rows += 1
                read = context.unsaved.pop(raw_key, None)
                if parse_key(raw_key, context.prefix) != key:
                    # A row under a name that no counter can have: there is none in Redis.
                    found.verdicts[Verdict.EXPIRED] += 1
                    found.more_in_redis -= (stored or 0) - carried
                else:
                    seen.append(Observation(key, raw_key, stored, carried, read, now))
            judge_keys(context, seen, tally)


def check_unsaved(context: Context, tally: Tally) -> None:
    """Judge what this run read, and what neither the scan nor a row without a key has brought up."""
    for raw_keys in pages(context.unsaved):
        keys = [key for raw_key in raw_keys if isinstance(key := parse_key(raw_key, context.prefix), CounterKey)]
        rows = stored_rows(context.conn, keys)
        seen = [
            Observation(key, raw_key, *rows.get(key, (None, 0)), context.unsaved[raw_key], now)
            for key, raw_key, now in zip(keys, raw_keys, read_page(context.client, raw_keys), strict=True)
        ]
        judge_keys(context, seen, tally)
