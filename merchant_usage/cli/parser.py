"""The arguments, and the help that teaches them. Imports nothing heavy, so `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn, TypeAlias

from merchant_usage import __version__
from merchant_usage.errors import NAME, PROGRAM, SettingsError
from merchant_usage.text import capitalized

EXIT_CODES = """\
exit codes:
  0    done, and every date that was looked at is verified or has nothing to verify
  1    PostgreSQL does not hold what Redis holds, a merchant could not be stored, the newest run of a date failed
       or never finished, or --max-lag is exceeded
  2    bad arguments or settings, or a schema that does not fit
  3    Redis or PostgreSQL cannot be reached, or refuses
  130  ended by Ctrl-C (143: by SIGTERM; 141: by a reader that went away, as head does)
"""

OVERVIEW = f"""\
a first day:
  {PROGRAM} preview                          look at both servers, write nothing
  {PROGRAM} migrate                          create the tables
  {PROGRAM} aggregate --date 2026-11-20      move that day, and prove it
  {PROGRAM} status                           how every date stands
  {PROGRAM} COMMAND --help                   examples of each command

Answers go to stdout, as tables or with --json as one document; the log and errors go to stderr.

{EXIT_CODES}
environment:
  USAGE_REDIS_URL     redis://user:password@host:6379/0 (rediss:// for TLS, ?cluster=true for a cluster; several
                      servers that are no cluster: a comma between them)
  USAGE_POSTGRES_URL  postgresql://user:password@host:5432/database
  USAGE_*             the settings: docs/reference/settings.md
"""

PREVIEW = f"""\
examples:
  {PROGRAM} preview                                          every date that Redis may still have
  {PROGRAM} preview 2026-11-20                               one date
  {PROGRAM} preview --json | jq .odd                         for a program

Needs the right to read, no more: in Redis SCAN, MGET, GET and TYPE, in PostgreSQL SELECT on merchant_usage, if there is
one. It is asked in a transaction that is read only. No table of ours has to be there yet.

exit codes: 0 done, whatever was found, 2 bad arguments or settings, 3 Redis or PostgreSQL
"""

MIGRATE = f"""\
examples:
  {PROGRAM} migrate                          a merchant_usage that is there already is kept
  {PROGRAM} migrate --role usage_pipeline    and say which GRANTs this role lacks

It needs USAGE_POSTGRES_URL only, as the owner of the tables.

exit codes: 0 done, 2 a table that does not fit (nothing is changed then), 3 PostgreSQL
"""

AGGREGATE = f"""\
examples:
  {PROGRAM} aggregate                                        yesterday
  {PROGRAM} aggregate --date 2026-11-20                      one day; so does aggregate 2026-11-20
  {PROGRAM} aggregate -2                                     the day before yesterday
  {PROGRAM} aggregate --from 2026-11-20 --to 2026-11-23      four days, one scan for all of them
  {PROGRAM} aggregate --merchant acme --merchant b:2         only these merchants, yesterday
  {PROGRAM} aggregate --due                                  for a scheduler: what is due now
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
  1  the newest run of a date failed, proved nothing, ended in a mismatch or has not finished within
     USAGE_DEADLINE_SECONDS, the end of a date was never read, --live found a mismatch, or --max-lag is exceeded: by
     the newest verified usage, or by a day that is over and not proven
  2  bad arguments, settings or schema
  3  PostgreSQL (with --live: or Redis) cannot be reached, or refuses
"""

HISTORY = f"""\
examples:
  {PROGRAM} history acme                                     yesterday, from reading to reading
  {PROGRAM} history acme --date today                        the day so far
  {PROGRAM} history acme --from 2026-11-16 --to 2026-11-22   day by day
  {PROGRAM} history acme --date 2026-11-20 --by month        the month that it lies in, and whether it is closed
  {PROGRAM} history acme --date 2026-11-20 --csv             for a spreadsheet; with --json for a program

Answers from PostgreSQL alone. Hours are those of USAGE_TIMEZONE; one in which nothing was read lies within a longer
row. What was corrected has a row of its own.

exit codes: 0 done, whatever was found, 2 bad arguments, settings or schema, 3 PostgreSQL
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

With USAGE_APPROVALS=2 an --accept changes nothing until another person (--by) has said the same. Names are claimed
here, not proven.

exit codes:
  0  done
  1  a counter waits for a second person, or could not be decided
  2  nothing to decide, the same person a second time, bad arguments or schema
  3  Redis or PostgreSQL cannot be reached, or refuses
"""

DECISIONS = f"""\
examples:
  {PROGRAM} decisions                      what waits, and what was decided: by whom, and why
  {PROGRAM} decisions 2026-11-20           of one date
  {PROGRAM} decisions --json               for a program

Needs USAGE_POSTGRES_URL only. To decide: {PROGRAM} resolve

exit codes: 0 done, whatever waits, 2 bad arguments, settings or schema, 3 PostgreSQL
"""

EXPLAIN = f"""\
examples:
  {PROGRAM} explain acme 2026-11-20              why these numbers: what happened to them, in that order
  {PROGRAM} explain acme 2026-11-20 queries      of one metric
  {PROGRAM} explain acme yesterday --json        for a program
  {PROGRAM} explain acme 2026-11-20 --evidence acme-20                            as files, for who checks it
  {PROGRAM} explain --evidence november --from 2026-11-01 --to 2026-11-30         of all merchants
  {PROGRAM} explain --evidence two --merchant acme --merchant b:2 --from -7 --to yesterday

How the counters grew, the runs that proved the day, dead letters, who decided what and why, seals, and whether what is
stored of the merchant is what was sealed. Times are in UTC. Needs USAGE_POSTGRES_URL only; in SQL it is the view
usage_explained.

exit codes: 0 done, whatever there is to tell, 2 bad arguments, settings or schema, 3 PostgreSQL
"""

PRUNE = f"""\
examples:
  {PROGRAM} prune --dry-run      how many rows would be deleted, and delete none
  {PROGRAM} prune                needs USAGE_POSTGRES_URL only

Deletes resolved dead letters, alerts and superseded attempts that are older than USAGE_LEDGER_RETENTION_DAYS. Counters,
verdicts and decisions stay. The first scheduled run of each day does the same by itself.

exit codes: 0 done, 2 bad settings or schema, 3 PostgreSQL
"""

AUDIT = f"""\
examples:
  {PROGRAM} audit                                            the last USAGE_AUDIT_DAYS days
  {PROGRAM} audit --from 2026-11-20 --to 2026-11-21          these days
  {PROGRAM} audit --against checkpoints.jsonl                and look whether these seals are still there
  {PROGRAM} audit --public-key seal.pub.pem                  and whether they are signed with this key
  {PROGRAM} audit --json | jq '.dates[] | select(.state != "intact")'

Hashes what PostgreSQL holds anew, and compares it with what was sealed: each date is intact, changed (with the
merchants that did) or not sealed. The chain of all seals is followed, too. A checkpoint is a line of seals --export,
kept elsewhere. Signatures are looked at with --public-key, or where USAGE_SEAL_KEY_FILE is set.

exit codes: 0 all intact, 1 not, 2 bad arguments, settings or schema, 3 PostgreSQL
"""

SEALS = f"""\
examples:
  {PROGRAM} seals                                            what was sealed, when and why
  {PROGRAM} seals --export                                   checkpoints for audit --against: keep them elsewhere
  {PROGRAM} seals --export --after 1200                      those after seal 1200

exit codes: 0 done, 2 bad arguments, settings or schema, 3 PostgreSQL
"""

PROVE = f"""\
examples:
  {PROGRAM} prove acme 2026-11-20                            what was sealed of acme on that day, as JSON

Who has a checkpoint of the seal can check it without us: docs/reference/verify_seal.py.

exit codes: 0 done, 2 nothing that could be proven, bad arguments, settings or schema, 3 PostgreSQL
"""

PAGE = f"""\
examples:
  {PROGRAM} page                          serve the usage page on this machine, and print its address
  {PROGRAM} page --port 8765              at a port of your choice

Shows what is stored, and changes nothing. Only this machine can reach it, and on this machine everybody: there is no
login. Needs USAGE_POSTGRES_URL only, or USAGE_PAGE_POSTGRES_URL for a role that may only read; and the packages of
{NAME}[page]. In Airflow 3.1 or newer the page is in the navigation. Ctrl-C ends it.

exit codes: 0 ended by Ctrl-C or SIGTERM, 2 bad arguments or settings, a port that is taken, a package that is missing
"""

DAG_FILE = f"""\
examples:
  {PROGRAM} dag-file                      show it
  {PROGRAM} dag-file /opt/airflow/dags    write usage_aggregation.py into Airflow's DAGs folder
  {PROGRAM} dag-file --decisions /opt/airflow/dags    and usage_decisions.py, which asks people (Airflow 3.1 or newer)

Once after each installation of another version, older or newer. A file that this command has not written, or that was
changed since, is left as it is without --force.

exit codes: 0 done, 2 a path that cannot be written, or a file that is left as it is
"""

COMPLETION = f"""\
examples:
  {NAME} completion bash      eval "$({NAME} completion bash)" in ~/.bashrc
  {NAME} completion zsh       the same in ~/.zshrc
  {NAME} completion fish      into ~/.config/fish/completions/{NAME}.fish

exit codes: 0 done, 2 a shell that is not known
"""

MAX_LISTED = 1_000_000
MAX_PORT = 65_535
#: How a day may be given.
DAYS = "YYYY-MM-DD, today, yesterday, or -2 for two days ago"


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
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    parser.set_defaults(json=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_preview(commands)
    _add_migrate(commands)
    _add_aggregate(commands)
    _add_verify(commands)
    _add_status(commands)
    _add_history(commands)
    _add_dead_letters(commands)
    _add_resolve(commands)
    _add_decisions(commands)
    _add_explain(commands)
    _add_prune(commands)
    _add_audit(commands)
    _add_seals(commands)
    _add_prove(commands)
    _add_page(commands)
    _add_dag_file(commands)
    _add_completion(commands)
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    return dict(next(found).choices)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001  # it has no public name


def _add(commands: Commands, name: str, function: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{capitalized(summary)}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(command=function)
    return command


def _add_migrate(commands: Commands) -> None:
    command = _add(commands, "migrate", "commands:migrate", "create or migrate the tables; safe to repeat", MIGRATE)
    command.add_argument(
        "--role",
        metavar="NAME",
        help="the role of PostgreSQL that runs are made with: say which GRANTs it lacks (default: of each that may "
        "write usage_run)",
    )
    _add_json(command)


def _add_preview(commands: Commands) -> None:
    summary = "a first look: what is there, what a run would store, what is odd, and what it would cost; writes nothing"
    command = _add(commands, "preview", "preview:preview", summary, PREVIEW)
    _add_dates(command)
    _add_merchant(command)
    _add_json(command)


def _add_aggregate(commands: Commands) -> None:
    summary = "move and verify one date or a range (yesterday if none is given)"
    command = _add(commands, "aggregate", "commands:aggregate", summary, AGGREGATE)
    _add_dates(command)
    command.add_argument(
        "--due",
        action="store_true",
        help="what a scheduled run takes: today, the day before while it settles, and what is owed",
    )
    _add_merchant(command)
    command.add_argument(
        "--dry-run", action="store_true", help="read and compare, say what would change, write nothing"
    )
    _add_json(command)


def _add_verify(commands: Commands) -> None:
    summary = "compare Redis with PostgreSQL now, key by key, and write nothing (yesterday if no date is given)"
    command = _add(commands, "verify", "commands:verify", summary, VERIFY)
    _add_dates(command)
    _add_merchant(command)
    _add_json(command)


def _add_status(commands: Commands) -> None:
    summary = "what the ledger says: which dates are aggregated, when, by whom, and do they match"
    command = _add(commands, "status", "status:status", summary, STATUS)
    _add_dates(command, "one date, with all its runs")
    command.add_argument("--live", action="store_true", help="also compare Redis with PostgreSQL now, as verify does")
    command.add_argument(
        "--max-lag",
        metavar="DURATION",
        help="fail when the newest usage that a run over all merchants verified is older, or when a day has been "
        "settled for longer and is not proven: 90m, 2h, 1d",
    )
    _add_json(command)


def _add_history(commands: Commands) -> None:
    summary = "how a merchant's counters grew, by hours, days, weeks or months"
    command = _add(commands, "history", "history:history", summary, HISTORY)
    command.add_argument("merchant", metavar="MERCHANT", help="its id (after -- if it begins with -)")
    _add_range(command)
    command.set_defaults(day=None)
    command.add_argument(
        "--by", choices=("hour", "day", "week", "month"), help="of what a row is (default: hour for one date, else day)"
    )
    command.add_argument("--csv", action="store_true", help="answer with comma-separated values on stdout")
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
    command = _add(commands, "resolve", "decisions:resolve", summary, RESOLVE)
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "key", nargs="?", type=os.fsencode, metavar="KEY", help="the key as Redis has it: usage:acme:2026-11-01:queries"
    )
    which.add_argument(
        "--date", metavar="DATE", help="all open regressions of this usage date, or that its end was not read"
    )
    decision = command.add_mutually_exclusive_group(required=True)
    for choice, meaning in (
        ("keep", "the stored value was right; it stays until the counter overtakes it"),
        ("accept", "the lower value is right: lower the stored value to it"),
        ("carry", "Redis restarted from zero: carry what was stored, and count on from there"),
    ):
        decision.add_argument(f"--{choice}", dest="decision", action="store_const", const=choice, help=meaning)
    command.add_argument("--because", metavar="TEXT", help="why; it is written down with the decision")
    command.add_argument("--by", metavar="NAME", help="who decides (default: the user of the operating system)")
    _add_json(command)


def _add_decisions(commands: Commands) -> None:
    summary = "what waits for a decision, and what was decided: by whom, and why"
    command = _add(commands, "decisions", "decisions:list_decisions", summary, DECISIONS)
    command.add_argument("day", nargs="?", metavar="DATE", help=f"one date: {DAYS}")
    command.add_argument("--most", type=_how_many, default=100, metavar="N", help="at most so many (default 100)")
    _add_json(command)


def _add_explain(commands: Commands) -> None:
    summary = "why a merchant's numbers of a day are what they are"
    command = _add(commands, "explain", "explain:explain", summary, EXPLAIN)
    command.add_argument("merchant_id", nargs="?", metavar="MERCHANT", help="a merchant's id, as it is in the key")
    command.add_argument("day", nargs="?", metavar="DATE", help=f"a date: {DAYS}")
    command.add_argument("metric", nargs="?", metavar="METRIC", help="one metric; left out: all of them")
    evidence = command.add_argument_group("evidence")
    evidence.add_argument(
        "--evidence",
        metavar="DIR",
        help="write all of it as files into this folder, which must not exist or be empty: of MERCHANT, or of all",
    )
    evidence.add_argument("--from", dest="from_date", metavar="DATE", help="first date of a period")
    evidence.add_argument("--to", dest="to_date", metavar="DATE", help="last date of it, included")
    _add_merchant(evidence)
    command.set_defaults(date=None)
    _add_json(command)


def _add_prune(commands: Commands) -> None:
    summary = "forget resolved dead letters, alerts and superseded attempts that are old"
    command = _add(commands, "prune", "commands:prune", summary, PRUNE)
    command.add_argument("--dry-run", action="store_true", help="say what would be deleted, delete nothing")
    _add_json(command)


def _add_audit(commands: Commands) -> None:
    summary = "look whether what is stored is still what was sealed, and whether the chain of seals is whole"
    command = _add(commands, "audit", "audit:audit", summary, AUDIT)
    command.add_argument("--from", dest="from_date", metavar="DATE", help=f"first date: {DAYS}")
    command.add_argument("--to", dest="to_date", metavar="DATE", help="last date, included (default: yesterday)")
    command.add_argument("--against", metavar="FILE", help="checkpoints that must be in the chain, a line a seal")
    help_of_key = "look whether seals are signed with it (PEM); may be given again for an older one"
    command.add_argument("--public-key", action="append", default=[], metavar="FILE", help=help_of_key)
    _add_json(command)


def _add_seals(commands: Commands) -> None:
    summary = "list the seals, or export them as checkpoints"
    command = _add(commands, "seals", "audit:list_seals", summary, SEALS)
    command.add_argument("--export", action="store_true", help="write a line of JSON a seal")
    command.add_argument("--after", type=_how_many, default=0, metavar="N", help="only seals with a larger number")


def _add_prove(commands: Commands) -> None:
    command = _add(commands, "prove", "audit:prove", "write what shows what was sealed of a merchant on a date", PROVE)
    command.add_argument("merchant", metavar="MERCHANT", help="its id")
    command.add_argument("day", metavar="DATE", help=DAYS)


def _add_page(commands: Commands) -> None:
    command = _add(commands, "page", "page:page", "serve the usage page on this machine, read only", PAGE)
    command.add_argument("--port", type=_port, default=0, metavar="N", help="the port (default: any that is free)")


def _add_dag_file(commands: Commands) -> None:
    summary = "show or write an Airflow DAG that belongs to this version"
    command = _add(commands, "dag-file", "dag_file:dag_file", summary, DAG_FILE)
    command.add_argument("path", nargs="?", metavar="PATH", help="a file, or the folder for it")
    command.add_argument(
        "--decisions", action="store_true", help="the DAG that asks what to do about counters that went backwards"
    )
    command.add_argument("--force", action="store_true", help="replace whatever file is there")


def _add_completion(commands: Commands) -> None:
    summary = "print what lets a shell complete commands and options"
    command = _add(commands, "completion", "completion:completion", summary, COMPLETION)
    command.add_argument("shell", choices=("bash", "zsh", "fish"))


def _add_dates(command: argparse.ArgumentParser, one: str = "one date") -> None:
    command.add_argument("day", nargs="?", metavar="DATE", help=f"{one}: {DAYS}")
    _add_range(command, "the same")


def _add_range(command: argparse.ArgumentParser, one: str = f"one date: {DAYS}") -> None:
    command.add_argument("--date", metavar="DATE", help=one)
    command.add_argument("--from", dest="from_date", metavar="DATE", help="first date of a range")
    command.add_argument("--to", dest="to_date", metavar="DATE", help="last date of the range, included")


def _add_merchant(command: argparse._ActionsContainer) -> None:
    command.add_argument(
        "--merchant",
        action="append",
        metavar="ID",
        help="only this merchant; may be repeated (--merchant=ID for an id that begins with -)",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="answer with one JSON document on stdout")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: it takes a whole number from 1 to {MAX_PORT}")
    return int(text)


def _how_many(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= MAX_LISTED):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_LISTED}")
    return int(text)
