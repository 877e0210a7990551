"""The arguments, and the help that teaches them. Imports nothing heavy, so `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn, TypeAlias

from merchant_usage.errors import SettingsError

PROGRAM = "python -m merchant_usage"

EXIT_CODES = """\
exit codes:
  0    done, and every date that was looked at is verified or has nothing to verify
  1    PostgreSQL does not hold what Redis holds, a merchant could not be stored, the newest run of a date failed,
       or --max-lag is exceeded
  2    bad arguments or settings, or a schema that does not fit
  3    Redis or PostgreSQL cannot be reached, or refuses
  130  ended by Ctrl-C (141: by a reader that went away, as head does)
"""

OVERVIEW = f"""\
a first day:
  {PROGRAM} migrate                          create the tables
  {PROGRAM} aggregate --date 2026-11-20      move that day, and prove it
  {PROGRAM} status                           how every date stands
  {PROGRAM} COMMAND --help                   examples of each command

Answers go to stdout, as tables or with --json as one document; the log and errors go to stderr.

{EXIT_CODES}
environment:
  USAGE_REDIS_URL     redis://user:password@host:6379/0 (rediss:// for TLS, ?cluster=true for a cluster)
  USAGE_POSTGRES_URL  postgresql://user:password@host:5432/database
  USAGE_*             the settings, as in the README
"""

MIGRATE = f"""\
examples:
  {PROGRAM} migrate      needs USAGE_POSTGRES_URL only; a merchant_usage that is there already is kept

exit codes: 0 done, 2 a table that does not fit (nothing is changed then), 3 PostgreSQL
"""

AGGREGATE = f"""\
examples:
  {PROGRAM} aggregate                                        yesterday
  {PROGRAM} aggregate --date 2026-11-20                      one day
  {PROGRAM} aggregate --from 2026-11-20 --to 2026-11-23      four days, one scan for all of them
  {PROGRAM} aggregate --merchant acme --merchant b:2         only these merchants, yesterday
  {PROGRAM} aggregate --dry-run                              say what would change, write nothing
  {PROGRAM} aggregate --json | jq .dates                     for a program

Writes are absolute and never lower a stored value, so repeating a run is harmless.

exit codes:
  0  every date is verified or has nothing to verify; a dry run that could look
  1  a mismatch, a merchant that could not be stored, or a counter that went backwards
  2  bad arguments, settings or schema
  3  Redis or PostgreSQL cannot be reached, or refuses
"""

VERIFY = f"""\
examples:
  {PROGRAM} verify                                           yesterday
  {PROGRAM} verify --from 2026-11-20 --to 2026-11-23         four days
  {PROGRAM} verify --date 2026-11-20 --merchant acme         one merchant
  {PROGRAM} verify --json | jq '.differences[]'              every key that does not agree

Reads Redis and PostgreSQL anew and compares them key by key; writes nothing, the ledger neither. A date that is
over and settled must be equal. A live date may be behind Redis (growing), never ahead of it.

exit codes:
  0  no date is a mismatch
  1  a key is missing, behind or regressed
  2  bad arguments, settings or schema
  3  Redis or PostgreSQL cannot be reached, or refuses
"""

STATUS = f"""\
examples:
  {PROGRAM} status                                           every date that Redis may still have
  {PROGRAM} status 2026-11-20                                one date, with all its runs
  {PROGRAM} status --from 2026-11-01 --to 2026-11-30         the newest run of each date
  {PROGRAM} status 2026-11-20 --live                         and compare Redis with PostgreSQL now (writes nothing)
  {PROGRAM} status --max-lag 2h                              for a monitor: fails when the runs have stopped

Answers from the ledger usage_run; only --live needs Redis.

exit codes:
  0  no date shown is a mismatch; a date that nobody aggregated is told, and is none
  1  the newest run of a date failed or ended in a mismatch, --live found one, or the newest verified usage is older
     than --max-lag
  2  bad arguments, settings or schema
  3  PostgreSQL (with --live: or Redis) cannot be reached, or refuses
"""

DEAD_LETTERS = f"""\
examples:
  {PROGRAM} dead-letters                                     what is open
  {PROGRAM} dead-letters --reason counter_regressed          what waits for a decision: see resolve
  {PROGRAM} dead-letters --all --most 1000 --json            resolved ones too, for a program

Every run tries open ones again by itself; mend the key in Redis, and the next run resolves it.

exit codes: 0 done (open letters or not), 2 bad arguments, settings or schema, 3 PostgreSQL
"""

RESOLVE = f"""\
examples:
  {PROGRAM} resolve usage:acme:2026-11-20:queries --keep     the stored value was right
  {PROGRAM} resolve usage:acme:2026-11-20:queries --accept   the lower value is right: a correction
  {PROGRAM} resolve --date 2026-11-20 --carry                Redis restarted from zero, for all counters of a day

The date is a mismatch until its next run: {PROGRAM} aggregate --date 2026-11-20

exit codes: 0 done, 2 nothing to decide, bad arguments or schema, 3 Redis or PostgreSQL
"""

MAX_LISTED = 1_000_000


class Parser(argparse.ArgumentParser):
    """Leaves it to its caller to tell what is wrong with the arguments, as all else is told."""

    def error(self, message: str) -> NoReturn:
        """Show how the command is used.

        Raises:
            SettingsError: always.
        """
        self.print_usage(sys.stderr)
        raise SettingsError(message)

    def parse_known_args(self, *given: Any, **named: Any) -> Any:
        """The same, but what a command does not know is its own error: else the usage shown is not that command's."""
        options, unknown = super().parse_known_args(*given, **named)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. `command` of its result names the function, as `module:function` of this package."""
    parser = Parser(
        prog=PROGRAM,
        description="Moves usage counters from Redis to PostgreSQL, and proves it.",
        epilog=OVERVIEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(json=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "migrate", "commands:migrate", "create or migrate the tables; safe to repeat", MIGRATE)
    _add_aggregate(commands)
    _add_verify(commands)
    _add_status(commands)
    _add_dead_letters(commands)
    _add_resolve(commands)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001  # it has no public name


def _add(commands: Commands, name: str, function: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(command=function)
    return command


def _add_aggregate(commands: Commands) -> None:
    summary = "move and verify one date or a range (yesterday if none is given)"
    command = _add(commands, "aggregate", "commands:aggregate", summary, AGGREGATE)
    command.add_argument("--date", metavar="YYYY-MM-DD", help="one date")
    _add_range(command)
    _add_merchant(command)
    command.add_argument(
        "--dry-run", action="store_true", help="read and compare, say what would change, write nothing"
    )
    _add_json(command)


def _add_verify(commands: Commands) -> None:
    summary = "compare Redis with PostgreSQL now, key by key, and write nothing (yesterday if no date is given)"
    command = _add(commands, "verify", "commands:verify", summary, VERIFY)
    command.add_argument("--date", metavar="YYYY-MM-DD", help="one date")
    _add_range(command)
    _add_merchant(command)
    _add_json(command)


def _add_status(commands: Commands) -> None:
    summary = "what the ledger says: which dates are aggregated, when, by whom, and do they match"
    command = _add(commands, "status", "status:status", summary, STATUS)
    command.add_argument("date", nargs="?", metavar="DATE", help="one date YYYY-MM-DD, with all its runs")
    _add_range(command)
    command.add_argument("--live", action="store_true", help="also compare Redis with PostgreSQL now, as verify does")
    command.add_argument(
        "--max-lag",
        metavar="DURATION",
        help="fail when the newest usage that a run over all merchants verified is older: 90m, 2h, 1d",
    )
    _add_json(command)


def _add_dead_letters(commands: Commands) -> None:
    summary = "keys that cannot be counted, and why, newest first"
    command = _add(commands, "dead-letters", "commands:list_dead_letters", summary, DEAD_LETTERS)
    command.add_argument("--all", action="store_true", help="with those that are resolved")
    command.add_argument("--reason", metavar="REASON", help="only these, e.g. counter_regressed or not_an_integer")
    command.add_argument("--most", type=_how_many, default=100, metavar="N", help="at most so many (default 100)")
    _add_json(command)


def _add_resolve(commands: Commands) -> None:
    summary = "decide counters that are lower in Redis than in PostgreSQL: one key, or all of a date"
    command = _add(commands, "resolve", "commands:resolve", summary, RESOLVE)
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "key", nargs="?", type=os.fsencode, metavar="KEY", help="the key as Redis has it: usage:acme:2026-11-01:queries"
    )
    which.add_argument("--date", metavar="YYYY-MM-DD", help="all open regressions of this usage date")
    decision = command.add_mutually_exclusive_group(required=True)
    for choice, meaning in (
        ("keep", "the stored value was right; it stays until the counter overtakes it"),
        ("accept", "the lower value is right: lower the stored value to it"),
        ("carry", "Redis restarted from zero: carry what was stored, and count on from there"),
    ):
        decision.add_argument(f"--{choice}", dest="decision", action="store_const", const=choice, help=meaning)


def _add_range(command: argparse.ArgumentParser) -> None:
    command.add_argument("--from", dest="from_date", metavar="YYYY-MM-DD", help="first date of a range")
    command.add_argument("--to", dest="to_date", metavar="YYYY-MM-DD", help="last date of the range, included")


def _add_merchant(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--merchant",
        action="append",
        metavar="ID",
        help="only this merchant; may be repeated (--merchant=ID for an id that begins with -)",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="answer with one JSON document on stdout")


def _how_many(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= MAX_LISTED):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_LISTED}")
    return int(text)
