"""Tells what comparing Redis with PostgreSQL found: for `verify`, `status --live` and, to programs, a dry run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from merchant_usage.cli.output import width
from merchant_usage.cli.remedies import aggregate_command
from merchant_usage.errors import PROGRAM, UsageMismatch
from merchant_usage.model.dates import format_dates
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.verdict import Difference, Proof, Verdict
from merchant_usage.tables import describe_merchants, render


def problems(proof: Proof) -> Iterator[str]:
    """What is wrong with dates that do not match, and what to do about it: a sentence each."""
    wrong = [report for report in proof.reports if report.verdict is DateVerdict.MISMATCH]
    if unequal := [report.date for report in wrong if any(report.keys.get(each) for each in Verdict if each.fails)]:
        yield (
            f"PostgreSQL does not hold what Redis holds of {format_dates(unequal)}. "
            f"To store what is missing or behind: {aggregate_command(unequal)}"
        )
    if lower := [report.date for report in wrong if report.undecided or report.keys.get(Verdict.REGRESSED)]:
        yield (
            f"Counters of {format_dates(lower)} went backwards. Once a run has seen them, they wait for a decision. "
            f"See: {PROGRAM} dead-letters --reason {Reason.COUNTER_REGRESSED}"
        )
    if bad := [report.date for report in wrong if report.turned_bad]:
        yield f"Keys of {format_dates(bad)} that were stored hold no number any more. See: {PROGRAM} dead-letters"


def format_comparison(proof: Proof) -> str:
    """The verdicts by date, the keys that do not agree, and the merchants while these are few enough to read."""
    dates = render(
        "Redis and PostgreSQL, both read just now",
        ("date", "state", "verdict", "Redis", "PostgreSQL", "keys", "bad keys"),
        (
            (
                report.name,
                "settled" if report.settled else "live",
                report.verdict,
                report.redis_total,
                report.postgres_total,
                report.keys_told,
                report.bad_values,
            )
            for report in proof.reports
        ),
        width(),
    )
    return "\n".join([dates, *describe_merchants(proof, width()), *_format_differences(proof)])


def proof_to_json(proof: Proof, *, with_verdicts: bool = True) -> dict[str, Any]:
    """The same for a program. `differences` are those that fail or went backwards, the first thousand of each kind.

    Args:
        with_verdicts: False for a dry run, which passes none.
    """
    return {
        "dates": [_date(report, with_verdict=with_verdicts) for report in proof.reports],
        "differences": [_plain(difference) for difference in proof.failing + proof.regressed],
        "difference_count": proof.failing_count + proof.regressed_count,
    }


def _date(report: DateReport, *, with_verdict: bool) -> dict[str, Any]:
    verdict = {"settled": report.settled, "verdict": report.verdict} if with_verdict else {}
    return {
        "date": report.date,
        **verdict,
        "redis_total": report.redis_total,
        "postgres_total": report.postgres_total,
        "keys": report.keys,
        "bad_values": report.bad_values,
    }


def _plain(difference: Difference) -> dict[str, Any]:
    return {
        "merchant_id": difference.key.merchant_id,
        "date": difference.key.date,
        "metric_type": difference.key.metric_type,
        "verdict": difference.verdict,
        "redis": difference.now,
        "postgres": difference.stored,
        "carried": difference.carried,
    }


def _format_differences(proof: Proof) -> list[str]:
    found = proof.failing + proof.regressed
    more = proof.failing_count + proof.regressed_count - len(found[: UsageMismatch.SHOWN])
    return [*map(str, found[: UsageMismatch.SHOWN]), *([f"... and {more} more (--json has them)"] if more else [])]
