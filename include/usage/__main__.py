"""The command line: the same engine without a scheduler. `python -m include.usage --help`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import structlog

from include.usage import clock, dead_letters, ledger, schema
from include.usage.connections import postgres_from_url, redis_from_url
from include.usage.dates import dates_of_range, parse_day
from include.usage.dead_letters import Reason
from include.usage.errors import (
    PostgresRefused,
    PostgresUnavailable,
    RedisRefused,
    RedisUnavailable,
    SchemaError,
    SettingsError,
    UsageError,
)
from include.usage.ledger import DateVerdict
from include.usage.pipeline import Run, aggregate
from include.usage.report import describe_letters, render
from include.usage.resolution import Decision, decide
from include.usage.settings import load_settings

EXIT_CODES = """\
exit codes:
  0  done; for aggregate: every date was verified, or had nothing to verify
  1  PostgreSQL does not hold what Redis holds, or a merchant could not be stored
  2  bad arguments or settings, or a schema that does not fit
  3  Redis or PostgreSQL cannot be reached, or refuses

environment:
  USAGE_REDIS_URL     redis://user:password@host:6379/0 (rediss:// for TLS, ?cluster=true for a cluster)
  USAGE_POSTGRES_URL  postgresql://user:password@host:5432/database
  USAGE_*             the settings, as in the README
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        return int(options.command(options))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, RedisUnavailable | RedisRefused | PostgresUnavailable | PostgresRefused):
            return 3
        return 2 if isinstance(error, SettingsError | SchemaError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m include.usage",
        description="Moves usage counters from Redis to PostgreSQL, and proves it.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migrate = commands.add_parser("migrate", help="create or migrate the tables; safe to repeat")
    migrate.set_defaults(command=_migrate)
    run = commands.add_parser("aggregate", help="move and verify one date or a range (yesterday if none is given)")
    run.add_argument("--date", metavar="YYYY-MM-DD", help="one date")
    run.add_argument("--from", dest="from_date", metavar="YYYY-MM-DD", help="first date of a range")
    run.add_argument("--to", dest="to_date", metavar="YYYY-MM-DD", help="last date of the range, included")
    run.add_argument("--merchant", action="append", metavar="ID", help="only this merchant; may be repeated")
    run.set_defaults(command=_aggregate)
    status = commands.add_parser("status", help="what the ledger says of a date (yesterday if none is given)")
    status.add_argument("date", nargs="?", metavar="YYYY-MM-DD")
    status.set_defaults(command=_status)
    letters = commands.add_parser("dead-letters", help="keys that cannot be counted, and why, newest first")
    letters.add_argument("--all", action="store_true", help="with those that are resolved")
    letters.add_argument("--reason", choices=[str(reason) for reason in Reason], help="only these")
    letters.add_argument("--most", type=int, default=100, metavar="N", help="at most so many lines (default 100)")
    letters.set_defaults(command=_dead_letters)
    resolve = commands.add_parser(
        "resolve",
        help="decide counters that went backwards",
        description="Decides counters that are lower in Redis than in PostgreSQL: one key, or all of a date.",
    )
    which = resolve.add_mutually_exclusive_group(required=True)
    which.add_argument("key", nargs="?", metavar="KEY", help="the key as Redis has it: usage:acme:2026-11-01:queries")
    which.add_argument("--date", metavar="YYYY-MM-DD", help="all open regressions of this usage date")
    decision = resolve.add_mutually_exclusive_group(required=True)
    for choice, meaning in (
        (Decision.KEEP, "the stored value was right; it stays until the counter overtakes it"),
        (Decision.ACCEPT, "the lower value is right: lower the stored value to it"),
        (Decision.CARRY, "Redis restarted from zero: carry what was stored, and count on from there"),
    ):
        decision.add_argument(f"--{choice}", dest="decision", action="store_const", const=choice, help=meaning)
    resolve.set_defaults(command=_resolve)
    return parser


def _migrate(_: argparse.Namespace) -> int:
    with postgres_from_url() as conn:
        for name in schema.migrate(conn):
            print(f"applied {name}")
    return 0


def _aggregate(options: argparse.Namespace) -> int:
    settings = load_settings()
    now = clock.now()
    if options.date and (options.from_date or options.to_date):
        raise SettingsError("--date names one day, --from and --to a range: give one of the two.")
    dates = dates_of_range(options.from_date or options.date, options.to_date or options.date, now, settings)
    merchants = tuple(sorted(set(options.merchant))) if options.merchant else None
    run = Run(f"cli__{now.isoformat()}", "cli", tuple(dates), now, merchants)
    with redis_from_url() as client, postgres_from_url() as conn:
        proof = aggregate(client, conn, run, settings)
    return int(any(report.verdict is DateVerdict.MISMATCH for report in proof.reports))


def _status(options: argparse.Namespace) -> int:
    settings = load_settings()
    (date,) = dates_of_range(options.date, options.date, clock.now(), settings)
    with postgres_from_url() as conn:
        schema.check(conn)
        runs = ledger.runs(conn, date, date)
    if not runs:
        print(f"{date} has not been aggregated by any run.")
        return 0
    headings = ("run", "started", "verdict", "keys", "new", "raised", "Redis", "PostgreSQL")
    print(
        render(
            f"Runs of {date}, newest first",
            headings,
            (
                (
                    run["run_id"],
                    f"{run['started_at']:%Y-%m-%d %H:%M:%S %Z}",
                    run["verdict"] or run["error"] or "not finished",
                    run["keys_scanned"],
                    run["rows_inserted"],
                    run["rows_updated"],
                    run["redis_total"] if run["redis_total"] is None else int(run["redis_total"]),
                    run["postgres_total"] if run["postgres_total"] is None else int(run["postgres_total"]),
                )
                for run in runs
            ),
        )
    )
    return 0


def _dead_letters(options: argparse.Namespace) -> int:
    with postgres_from_url() as conn:
        schema.check(conn)
        counts = dead_letters.open_counts(conn)
        rows = dead_letters.listed(conn, with_resolved=options.all, reason=options.reason, most=options.most)
    print("Open: " + (", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"))
    if rows:
        print(describe_letters(rows))
    return 0


def _resolve(options: argparse.Namespace) -> int:
    settings = load_settings()
    date = parse_day("--date", options.date) if options.date else None
    key = options.key.encode() if options.key else None
    with redis_from_url() as client, postgres_from_url() as conn:
        schema.check(conn)
        for decided in decide(client, conn, options.decision, settings.key_prefix, key=key, date=date):
            print(f"{options.decision}: {decided.key}: stored {decided.before} -> {decided.after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
