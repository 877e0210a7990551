"""`status`: what the ledger says of dates, and on request what Redis and PostgreSQL say now."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from merchant_usage import clock
from merchant_usage.cli import differences
from merchant_usage.cli.differences import format_comparison, proof_to_json
from merchant_usage.cli.durations import format_moment, parse_duration
from merchant_usage.cli.freshness import Freshness
from merchant_usage.cli.output import complain, progress, say, say_json, width
from merchant_usage.cli.remedies import aggregate_command, verify_command
from merchant_usage.cli.requests import requested_dates, run_of
from merchant_usage.cli.servers import both_servers
from merchant_usage.clock import format_duration
from merchant_usage.connections import postgres_from_url
from merchant_usage.errors import PROGRAM
from merchant_usage.model.dates import format_dates, local_date, oldest_kept
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.verdict import Proof
from merchant_usage.settings import Settings, load_settings
from merchant_usage.sink import decisions, lag, ledger, schema
from merchant_usage.sink.decisions import Waiting
from merchant_usage.steps import preview
from merchant_usage.tables import render

#: A row of the ledger.
Row: TypeAlias = dict[str, Any]


def status(options: argparse.Namespace) -> int:
    """Say how dates stand, and whether the runs go on."""
    settings, now = load_settings(), clock.now()
    max_lag = None if options.max_lag is None else parse_duration("--max-lag", options.max_lag)
    dates = _requested_dates(options, now, settings)
    with postgres_from_url() as conn:
        schema.check(conn)
        history = ledger.runs(conn, dates[0], dates[0]) if len(dates) == 1 else None
        standing = Standing(dates, ledger.newest_runs(conn, dates[0], dates[-1]), history)
        owed_since = lag.owed_since(conn, now, settings)
        freshness = Freshness.of(ledger.newest_verified(conn), owed_since, now, settings)
        waiting = decisions.waiting_counts(conn)
    proof = _compare(dates, now, settings) if options.live else None
    if options.json:
        say_json(_to_json(standing, freshness, proof) | {"waiting": [each._asdict() for each in waiting]})
    else:
        _say(standing, freshness if options.max_lag and freshness.run else None, proof)
        if waiting:
            say(_format_waiting(waiting))
    problems = [*standing.problems(), *standing.unfinished(now, settings)]
    if proof is not None:
        problems += differences.problems(proof)
    if max_lag is not None and (problem := freshness.problem(max_lag)):
        problems.append(problem)
    if problems:
        complain(" ".join(problems))
    return int(bool(problems))


def _requested_dates(options: argparse.Namespace, now: dt.datetime, settings: Settings) -> list[dt.date]:
    if any(given is not None for given in (options.day, options.date, options.from_date, options.to_date)):
        return requested_dates(options, now, settings)
    today = local_date(now, settings)
    oldest = oldest_kept(today, settings)
    return [oldest + dt.timedelta(days=days) for days in range((today - oldest).days + 1)]


def _compare(dates: Sequence[dt.date], now: dt.datetime, settings: Settings) -> Proof:
    with both_servers() as (client, conn), progress("Comparing", "", ""):
        return preview.compare(client, conn, run_of(dates, now), settings)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says of some dates.

    Attributes:
        newest: the newest row of each date; if that is of some merchants only, the newest over all follows, if any.
        history: all rows, if it is one date that was asked for.
    """

    dates: Sequence[dt.date]
    newest: Sequence[Row]
    history: Sequence[Row] | None

    @property
    def never_aggregated(self) -> list[dt.date]:
        """The dates without any run."""
        return sorted(set(self.dates) - {row["usage_date"] for row in self.newest})

    @property
    def aggregated_in_part(self) -> list[dt.date]:
        """The dates of which there are runs, but none over all merchants."""
        whole = {row["usage_date"] for row in self.newest if row["merchant_ids"] is None}
        return sorted({row["usage_date"] for row in self.newest} - whole)

    def problems(self) -> Iterator[str]:
        """All that is wrong with the dates, a sentence each."""
        first = {row["usage_date"]: row for row in reversed(self.newest)}
        over_all = [row for row in reversed(self.newest) if row is not first[row["usage_date"]]]
        yield from _bad_ends("The newest run of", [first[date] for date in sorted(first)])
        yield from _bad_ends("The newest run over all merchants of", over_all)

    def unfinished(self, now: dt.datetime, settings: Settings) -> Iterator[str]:
        """Newest runs that are past their deadline without an end, a sentence each."""
        deadline = dt.timedelta(seconds=settings.deadline_seconds)
        for row in reversed(self.newest):
            if row["verdict"] is None and not row["error"] and (age := now - row["started_at"]) > deadline:
                of_all = "" if row["merchant_ids"] is None else f" ({_merchants(row)} merchants)"
                yield (
                    f"The newest run of {row['usage_date']}{of_all} began at {format_moment(row['started_at'])}, "
                    f"{format_duration(age)} ago, and has not finished: if nothing works on it any more, it was "
                    f"killed. To aggregate it: {aggregate_command([row['usage_date']])}"
                )


def _bad_ends(which: str, rows: Sequence[Row]) -> Iterator[str]:
    if mismatched := [row["usage_date"] for row in rows if row["verdict"] == DateVerdict.MISMATCH]:
        named = ", ".join(map(str, mismatched))
        yield f"{which} {named} ended in a mismatch. To see why: {verify_command(mismatched)}"
    if unproven := [str(row["usage_date"]) for row in rows if row["verdict"] == DateVerdict.NOT_PROVEN]:
        yield f"{which} {', '.join(unproven)} could not prove it: a part of the run failed."
    if incomplete := [str(row["usage_date"]) for row in rows if row["verdict"] == DateVerdict.INCOMPLETE]:
        yield f"{which} {', '.join(incomplete)} found that nobody had read the end of it: it waits for a decision."
    if failed := [str(row["usage_date"]) for row in rows if _failed(row)]:
        yield f"{which} {', '.join(failed)} failed."


def _to_json(standing: Standing, freshness: Freshness, proof: Proof | None) -> dict[str, Any]:
    answer = {
        "dates": standing.newest,
        "history": standing.history,
        "never_aggregated": standing.never_aggregated,
        "aggregated_in_part": standing.aggregated_in_part,
        "newest_verified": freshness.to_json(),
    }
    return answer if proof is None else answer | {"live": proof_to_json(proof)}


def _say(standing: Standing, freshness: Freshness | None, proof: Proof | None) -> None:
    if standing.newest:
        say(_format_history(standing.history) if standing.history else _format_newest(standing.newest))
    for row in standing.newest:
        if row["error"]:
            say(f"{row['usage_date']}: {row['error']}")
    for sentence in _why_unequal(standing.history or standing.newest):
        say(sentence)
    if never := standing.never_aggregated:
        say(_format_never_aggregated(never))
    if in_part := standing.aggregated_in_part:
        say(_format_partly_aggregated(in_part))
    if freshness is not None:
        say(f"Usage is verified {freshness}")
    if proof is not None:
        say(format_comparison(proof))


def _format_newest(rows: Sequence[Row]) -> str:
    return render(
        "The newest run of each date",
        ("date", "verdict", "last verified", "merchants", "keys", "Redis", "PostgreSQL", "run"),
        (
            (
                row["usage_date"],
                _verdict(row),
                format_moment(row["verified_at"]),
                _merchants(row),
                row["keys_scanned"],
                _total(row["redis_total"]),
                _total(row["postgres_total"]),
                row["run_id"],
            )
            for row in rows
        ),
        width(),
    )


def _format_history(rows: Sequence[Row]) -> str:
    return render(
        f"Runs of {rows[0]['usage_date']}, newest first",
        ("started", "verdict", "merchants", "keys", "new", "raised", "Redis", "PostgreSQL", "run"),
        (
            (
                format_moment(row["started_at"]),
                _verdict(row),
                _merchants(row),
                row["keys_scanned"],
                row["rows_inserted"],
                row["rows_updated"],
                _total(row["redis_total"]),
                _total(row["postgres_total"]),
                row["run_id"],
            )
            for row in rows
        ),
        width(),
    )


def _why_unequal(rows: Sequence[Row]) -> Iterator[str]:
    """Why totals of verified dates differ, a sentence for those that go on and one for those that are over."""
    unequal = [
        row for row in rows if row["verdict"] == DateVerdict.VERIFIED and row["redis_total"] != row["postgres_total"]
    ]
    if live := sorted({row["usage_date"] for row in unequal if not row["settled"]}):
        yield f"{format_dates(live)}: Redis counted on while a run verified it; the next one takes that."
    if over := sorted({row["usage_date"] for row in unequal if row["settled"]}):
        yield (
            f"{format_dates(over)}: verified, and the totals differ by keys that expired, or by what a person decided. "
            f"To see them: {verify_command(over)}"
        )


def _verdict(row: Row) -> str:
    return row["verdict"] or ("failed" if _failed(row) else "not finished")


def _failed(row: Row) -> bool:
    return row["verdict"] is None and bool(row["error"])


def _merchants(row: Row) -> str:
    return "all" if row["merchant_ids"] is None else f"only {len(row['merchant_ids'])}"


def _total(total: Decimal | None) -> int | str:
    return "-" if total is None else int(total)


def _format_waiting(waiting: Sequence[Waiting]) -> str:
    """What waits for a person, whatever dates were asked for."""
    counters, proposed = sum(each.counters for each in waiting), sum(each.proposed for each in waiting)
    told = f"{counters:,} counter{' waits' if counters == 1 else 's wait'} for a decision"
    if proposed:
        told += f", {proposed:,} of them for a second person"
    return f"{format_dates([each.date for each in waiting])}: {told}. To see them: {PROGRAM} decisions"


def _format_never_aggregated(dates: Sequence[dt.date]) -> str:
    """Which dates nobody aggregated, and what to run."""
    if len(dates) == 1:
        return f"{dates[0]} has not been aggregated by any run. To aggregate it: {aggregate_command(dates)}"
    return f"Not aggregated by any run: {format_dates(dates)}. To aggregate them: {aggregate_command(dates)}"


def _format_partly_aggregated(dates: Sequence[dt.date]) -> str:
    """Of which dates nobody aggregated all merchants, and what to run."""
    named, command = format_dates(dates), aggregate_command(dates)
    return f"Aggregated for some merchants only: {named}. To aggregate all of them: {command}"
