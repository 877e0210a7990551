"""`audit`, `seals` and `prove`: what was sealed, whether it still holds, and what shows it to others."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from merchant_usage import clock
from merchant_usage.cli.output import complain, say, say_json, width
from merchant_usage.cli.requests import day_of
from merchant_usage.connections import postgres_from_url
from merchant_usage.errors import SettingsError
from merchant_usage.model.audit import Audit, DateAudit, SealState, format_changed
from merchant_usage.model.dates import local_date
from merchant_usage.model.seal import Seal
from merchant_usage.settings import Settings, load_settings
from merchant_usage.sink import grants, schema, seals
from merchant_usage.sink.transactions import transaction
from merchant_usage.steps import audit as auditing
from merchant_usage.steps.signature import signature_check
from merchant_usage.tables import render
from merchant_usage.text import capitalized

#: Digits of a hash that a table shows.
SHOWN: Final = 16


def audit(options: argparse.Namespace) -> int:
    """Hash what is stored anew, and compare it with what was sealed."""
    settings, now = load_settings(), clock.now()
    first, last = _range(options, now, settings)
    checkpoints = _checkpoints(options.against) if options.against else []
    check = signature_check(options.public_key, settings.seal_key_file)
    with postgres_from_url() as conn:
        schema.check(conn, grants.AUDIT)
        found = auditing.audit(conn, first, last, checkpoints, check)
    if options.json:
        say_json(found.to_json())
    else:
        headings = ("date", "state", "version", "sealed", "stored", "root")
        say(render(f"Seals of {first} to {last}", headings, map(_cells, found.dates), width()))
        if not found.chain:
            say("The chain of seals is whole.")
        if found.signed is not None:
            say(_format_signatures(found.signed, found.unsigned))
    if problems := [*_problems(found)]:
        complain("\n".join(problems))
    return int(bool(problems))


def _range(options: argparse.Namespace, now: dt.datetime, settings: Settings) -> tuple[dt.date, dt.date]:
    """The days of the arguments; the last USAGE_AUDIT_DAYS if none are given."""
    yesterday = local_date(now, settings) - dt.timedelta(days=1)
    last = day_of("--to", options.to_date, now, settings) if options.to_date else yesterday
    first = last - dt.timedelta(days=settings.audit_days - 1)
    if options.from_date:
        first = day_of("--from", options.from_date, now, settings)
    if first > last:
        raise SettingsError(f"--from={first} is after --to={last}.")
    return first, last


def _checkpoints(path: str) -> list[Seal]:
    try:
        with Path(path).open(encoding="utf-8") as lines:
            return auditing.read_checkpoints(lines, path)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--against={path!r} cannot be read: {error}.") from None


def _cells(found: DateAudit) -> tuple[object, ...]:
    seal = found.seal
    if seal is None:
        return found.date, found.state, "", "", "", ""
    return found.date, found.state, seal.version, seal.total, found.total, seal.root.hex()[:SHOWN]


def _format_signatures(signed: int, unsigned: int) -> str:
    """How far the signatures reach. Who can make the chain anew without the key can do so with those that have none."""
    if not unsigned:
        return f"Seals that are signed: {signed:,}."
    return f"Seals that are signed: {signed:,}. Those before the first of them are not: {unsigned:,}."


def _problems(found: Audit) -> Iterator[str]:
    """What is wrong: a sentence each."""
    for each in found.dates:
        if each.state is SealState.CHANGED:
            yield format_changed(each)
    if unsealed := [str(each.date) for each in found.dates if each.state is SealState.NOT_SEALED]:
        yield f"Not sealed: {', '.join(unsealed)}."
    for problem in (*found.chain, *found.signatures, *found.against):
        yield f"{capitalized(problem)}."


def list_seals(options: argparse.Namespace) -> int:
    """List the seals, or write them as checkpoints: a line a seal."""
    with postgres_from_url() as conn:
        schema.check(conn, grants.AUDIT)
        with transaction(conn):
            chain = seals.every(conn, options.after)
            if options.export:
                for seal in chain:
                    sys.stdout.write(json.dumps(seal.to_json()) + "\n")
                return 0
            found = [*chain]
    headings = ("seal", "date", "version", "sealed at", "counters", "total", "reason", "chain")
    rows = (
        (
            seal.number,
            seal.date,
            seal.version,
            f"{seal.sealed_at:%Y-%m-%d %H:%M}",
            seal.counters,
            seal.total,
            seal.reason,
            seal.chain.hex()[:SHOWN],
        )
        for seal in found
    )
    say(render("Seals", headings, rows, width()))
    return 0


def prove(options: argparse.Namespace) -> int:
    """Write what shows to others what was sealed of a merchant on a date."""
    date = day_of("DATE", options.day, clock.now(), load_settings())
    with postgres_from_url() as conn:
        schema.check(conn, grants.AUDIT)
        say_json(auditing.prove_merchant(conn, options.merchant, date))
    return 0
