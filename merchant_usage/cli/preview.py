"""The command that looks before anything is written."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import timedelta

from merchant_usage import clock
from merchant_usage.cli.output import progress, say, say_json, width
from merchant_usage.cli.requests import requested_run, run_of
from merchant_usage.cli.servers import both_servers
from merchant_usage.model.dates import format_dates, local_date, oldest_kept
from merchant_usage.model.look import Look
from merchant_usage.model.run import Run
from merchant_usage.settings import Settings, load_settings
from merchant_usage.steps.look import look
from merchant_usage.tables import render


def preview(options: argparse.Namespace) -> int:
    """Look at both servers, and write nothing."""
    settings = load_settings()
    run = _run(options, settings)
    with both_servers() as (client, conn), progress("Scanning Redis", "Reading counters", "Comparing") as show:
        found = look(client, conn, run, settings, show)
    if options.json:
        say_json(found.to_json())
    else:
        say("\n".join(_lines(found, settings)))
    return 0


def _run(options: argparse.Namespace, settings: Settings) -> Run:
    """Of the dates that are given; else of all that Redis may still have."""
    now = clock.now()
    if options.day or options.date or options.from_date or options.to_date or options.merchant:
        return requested_run(options, now, settings)
    today = local_date(now, settings)
    oldest = oldest_kept(today, settings)
    return run_of((oldest + timedelta(days=number) for number in range((today - oldest).days + 1)), now)


def _lines(found: Look, settings: Settings) -> Iterator[str]:
    headings = (
        "date",
        "merchants",
        "counters",
        "Redis",
        "PostgreSQL",
        "new",
        "raised",
        "unchanged",
        "lower",
        "bad",
        "rows only",
    )
    rows = (
        (
            day.date,
            day.merchants,
            day.keys,
            day.redis_total,
            day.postgres_total,
            day.new,
            day.raised,
            day.unchanged,
            day.lower,
            day.bad,
            day.without_counter,
        )
        for day in found.days
    )
    yield render("Both servers as they are, and what a run would do. Nothing was written", headings, rows, width())
    yield f"Redis: {found.keys:,} keys begin with '{settings.key_prefix}:'."
    if found.other_dates:
        yield f"{found.other_dates.total():,} of them are of other dates: {format_dates(found.other_dates)}."
    yield f"PostgreSQL: {found.tables}"
    yield (
        f"This look: {found.scan_seconds:.1f} s for one SCAN of all keys, {found.read_seconds:.1f} s for "
        f"{found.pages:,} requests for values."
    )
    yield (
        f"A run of these dates, about: {found.run_seconds:.1f} s, one SCAN, {2 * found.pages:,} requests for values, "
        f"{found.to_write:,} rows written, {found.run_bytes / 1_000_000:,.1f} MB more in PostgreSQL."
    )
    if found.unseen:
        yield f"Not looked at: {'; '.join(found.unseen)}."
    yield "Odd:" if found.odd else "Odd: nothing."
    yield from (f"  {sentence}" for sentence in found.odd)
