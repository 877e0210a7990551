"""`status`: what the ledger says of dates, and on request what Redis and PostgreSQL say now."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from merchant_usage import clock
from merchant_usage.cli.differences import as_document, mismatches, tell_comparison
from merchant_usage.cli.durations import parse_duration, tell_duration
from merchant_usage.cli.output import complain, progress, say, say_json, width
from merchant_usage.cli.parser import PROGRAM
from merchant_usage.cli.requests import requested_dates
from merchant_usage.connections import postgres_from_url, redis_from_url
from merchant_usage.model.dates import local_date, oldest_kept
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Run
from merchant_usage.model.verdict import Proof
from merchant_usage.settings import Settings, load_settings
from merchant_usage.sink import ledger, schema
from merchant_usage.sink.ledger import Verified
from merchant_usage.steps import preview
from merchant_usage.tables import render


def status(options: argparse.Namespace) -> int:
    """Say how dates stand, and whether the runs go on."""
    settings, now = load_settings(), clock.now()
    max_lag = None if options.max_lag is None else parse_duration("--max-lag", options.max_lag)
    dates = _requested_dates(options, now, settings)
    with postgres_from_url() as conn:
        schema.check(conn)
        newest = ledger.newest_runs(conn, dates[0], dates[-1])
        history = ledger.runs(conn, dates[0], dates[0]) if len(dates) == 1 else None
        last = ledger.newest_verified(conn)
    proof = _compare(dates, now, settings) if options.live else None
    begun = {row["usage_date"] for row in newest}
    never = sorted(set(dates) - begun)
    in_part = sorted(begun - {row["usage_date"] for row in newest if row["merchant_ids"] is None})
    if options.json:
        told = _last(last, settings, now)
        document = {
            "dates": newest,
            "history": history,
            "never_aggregated": never,
            "aggregated_in_part": in_part,
            "newest_verified": told,
        }
        say_json(document | ({"live": as_document(proof)} if proof else {}))
    else:
        if newest:
            say(_tell_history(history) if history else _tell_dates(newest))
            _tell_errors(newest)
        if never:
            say(_tell_never(never))
        if in_part:
            say(_tell_in_part(in_part))
        if max_lag is not None and last is not None:
            say(f"Usage is verified {_tell_last(last, settings, now)}")
        if proof:
            say(tell_comparison(proof))
    problems = _problems(newest, proof, None if max_lag is None else _lag_problem(last, settings, now, max_lag))
    if problems:
        complain(" ".join(problems))
    return int(bool(problems))


def _requested_dates(options: argparse.Namespace, now: dt.datetime, settings: Settings) -> list[dt.date]:
    if any(given is not None for given in (options.date, options.from_date, options.to_date)):
        return requested_dates(options, now, settings, "DATE")
    today = local_date(now, settings)
    oldest = oldest_kept(today, settings)
    return [oldest + dt.timedelta(days=days) for days in range((today - oldest).days + 1)]


def _compare(dates: Sequence[dt.date], now: dt.datetime, settings: Settings) -> Proof:
    run = Run(f"cli__{now.isoformat()}", "cli", tuple(dates), now)
    with redis_from_url() as client, postgres_from_url() as conn, progress("Comparing", "", ""):
        return preview.compare(client, conn, run, settings)


def _problems(newest: Sequence[dict[str, Any]], proof: Proof | None, lag: str | None) -> list[str]:
    """All that makes the exit code 1, a sentence each."""
    first = {row["usage_date"]: row for row in reversed(newest)}
    rows = [first[date] for date in sorted(first)]
    over_all = [row for row in reversed(newest) if row is not first[row["usage_date"]]]
    live = mismatches(proof.reports) if proof else []
    problems = [*_bad_ends("The newest run of", rows), *_bad_ends("The newest run over all merchants of", over_all)]
    if live:
        problems.append(f"PostgreSQL does not hold what Redis holds now of {', '.join(live)}.")
    if lag:
        problems.append(lag)
    return problems


def _bad_ends(which: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    if told := [str(row["usage_date"]) for row in rows if row["verdict"] == DateVerdict.MISMATCH]:
        yield f"{which} {', '.join(told)} ended in a mismatch."
    if failed := [str(row["usage_date"]) for row in rows if _failed(row)]:
        yield f"{which} {', '.join(failed)} failed."


def _lag_problem(last: Verified | None, settings: Settings, now: dt.datetime, max_lag: dt.timedelta) -> str | None:
    if last is None:
        return f"No run was ever verified; --max-lag allows {tell_duration(max_lag)}."
    until = last.verified_until(settings)
    if until - now > max_lag:
        # It would look fresh until the clocks agree, whatever stops meanwhile.
        return f"Run {last.run_id} began at {_moment(until)}, which is still to come: a clock is wrong."
    if now - until > max_lag:
        return f"The newest verified usage is older than {tell_duration(max_lag)}: {_tell_last(last, settings, now)}."
    return None


def _tell_last(last: Verified, settings: Settings, now: dt.datetime) -> str:
    until = last.verified_until(settings)
    return f"up to {_moment(until)}, {tell_duration(now - until)} ago, by the run {last.run_id}"


def _last(last: Verified | None, settings: Settings, now: dt.datetime) -> dict[str, Any] | None:
    if last is None:
        return None
    until = last.verified_until(settings)
    age = max(0, int((now - until).total_seconds()))
    return {
        "run_id": last.run_id,
        "finished_at": last.finished_at,
        "verified_until": until,
        "age_seconds": age,
    }


def _tell_dates(rows: Sequence[dict[str, Any]]) -> str:
    return render(
        "The newest run of each date",
        ("date", "verdict", "last verified", "merchants", "keys", "Redis", "PostgreSQL", "run"),
        (
            (
                row["usage_date"],
                _verdict(row),
                _moment(row["verified_at"]),
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


def _tell_history(rows: Sequence[dict[str, Any]]) -> str:
    return render(
        f"Runs of {rows[0]['usage_date']}, newest first",
        ("started", "verdict", "merchants", "keys", "new", "raised", "Redis", "PostgreSQL", "run"),
        (
            (
                _moment(row["started_at"]),
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


def _verdict(row: dict[str, Any]) -> str:
    return row["verdict"] or ("failed" if _failed(row) else "not finished")


def _failed(row: dict[str, Any]) -> bool:
    return row["verdict"] is None and bool(row["error"])


def _merchants(row: dict[str, Any]) -> str:
    return "all" if row["merchant_ids"] is None else f"only {len(row['merchant_ids'])}"


def _total(total: Decimal | None) -> int | str:
    return "-" if total is None else int(total)


def _tell_errors(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        if row["error"]:
            say(f"{row['usage_date']}: {row['error']}")


def _tell_never(dates: Sequence[dt.date]) -> str:
    """Which dates nobody aggregated, and what to run."""
    if len(dates) == 1:
        return f"{dates[0]} has not been aggregated by any run. To aggregate it: {_command(dates)}"
    return f"Not aggregated by any run: {_told(dates)}. To aggregate them: {_command(dates)}"


def _tell_in_part(dates: Sequence[dt.date]) -> str:
    """Of which dates nobody aggregated all merchants, and what to run."""
    return f"Aggregated for some merchants only: {_told(dates)}. To aggregate all of them: {_command(dates)}"


def _told(dates: Sequence[dt.date]) -> str:
    return ", ".join(map(str, dates)) if len(dates) <= 10 else f"{len(dates)} dates from {dates[0]} to {dates[-1]}"


def _command(dates: Sequence[dt.date]) -> str:
    asked = f"--date {dates[0]}" if len(dates) == 1 else f"--from {dates[0]} --to {dates[-1]}"
    return f"{PROGRAM} aggregate {asked}"


def _moment(moment: dt.datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
