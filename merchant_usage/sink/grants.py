"""What each kind of work must be allowed in PostgreSQL, and the GRANTs for what a role lacks of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from psycopg import Connection

from merchant_usage.errors import PostgresRefused
from merchant_usage.sink.queries import query
from merchant_usage.text import escape

#: (table, right), or (function, EXECUTE). TEMPORARY is a right on the database.
Rights: TypeAlias = frozenset[tuple[str, str]]

_TEMPORARY: Final = ("", "TEMPORARY")
# As they stand in a GRANT.
_ORDER: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE")


def _on(table: str, rights: str) -> Rights:
    return frozenset((table, right) for right in rights.split())


_LEDGER: Final = _on("usage_run", "SELECT") | _on("usage_decision", "SELECT") | _on("usage_dead_letter", "SELECT")

#: `dead-letters`.
LETTERS: Final[Rights] = _on("usage_dead_letter", "SELECT")
#: `status`, and `decisions`.
STATUS: Final[Rights] = _LEDGER | _on("usage_proposal", "SELECT")
#: `explain --evidence`.
EVIDENCE: Final[Rights] = (
    _LEDGER | _on("merchant_usage", "SELECT") | _on("usage_explained", "SELECT") | _on("usage_seal", "SELECT")
)
#: `explain`.
EXPLAIN: Final[Rights] = EVIDENCE | _on("usage_seal_page", "SELECT")
#: `verify`, `status --live` and dry runs, which stage keys.
COMPARE: Final[Rights] = _LEDGER | _on("merchant_usage", "SELECT") | {_TEMPORARY}
#: A run.
RUN: Final[Rights] = (
    COMPARE
    | _on("merchant_usage", "INSERT UPDATE")
    | _on("usage_run", "INSERT UPDATE")
    | _on("usage_dead_letter", "INSERT UPDATE")
    | _on("usage_reading", "SELECT INSERT DELETE")
    | _on("usage_source", "SELECT INSERT UPDATE DELETE")
    | _on("usage_deletion", "SELECT")
    | _on("usage_absence", "SELECT INSERT DELETE")
    | _on("usage_hourly_history", "SELECT INSERT")
    | _on("usage_seal", "SELECT INSERT")
    | _on("usage_seal_page", "SELECT INSERT")
    | _on("usage_correction", "INSERT")
)
#: `audit`, `prove` and `seals`.
AUDIT: Final[Rights] = (
    _LEDGER | _on("merchant_usage", "SELECT") | _on("usage_seal", "SELECT") | _on("usage_seal_page", "SELECT")
)
#: A run that deletes from Redis.
CLEAN_UP: Final[Rights] = _on("usage_deletion", "SELECT INSERT UPDATE DELETE")
#: `resolve`.
DECIDE: Final[Rights] = (
    STATUS
    | _on("merchant_usage", "SELECT UPDATE")
    | _on("usage_dead_letter", "UPDATE")
    | _on("usage_decision", "INSERT")
    | _on("usage_proposal", "INSERT")
    | _on("usage_reading", "SELECT UPDATE")
    | _on("usage_absence", "SELECT INSERT")
    | _on("usage_hourly_history", "INSERT")
)
#: `history`.
CURVES: Final[Rights] = frozenset().union(
    *(
        _on(view, "SELECT")
        for view in ("merchant_usage_hourly", "merchant_usage_weekly", "merchant_usage_monthly", "usage_sealed_date")
    ),
    _on("merchant_usage", "SELECT"),
)
#: `prune`, and the first run of a day.
PRUNE: Final[Rights] = frozenset().union(
    *(_on(table, "SELECT UPDATE DELETE") for table in ("usage_alert", "usage_dead_letter", "usage_run")),
    _on("usage_keep_hourly_history(date)", "EXECUTE"),
)
#: The usage page.
PAGE: Final[Rights] = (
    STATUS
    | EXPLAIN
    | _on("merchant_usage_corrections", "SELECT")
    | _on("merchant_usage_hourly", "SELECT")
    | _on("usage_alert", "SELECT")
)
#: All that the pipeline's role may be asked to do, telling people included.
PIPELINE: Final[Rights] = RUN | CLEAN_UP | DECIDE | PRUNE | CURVES | EXPLAIN | _on("usage_alert", "INSERT")


class Missing(NamedTuple):
    """A right that a role lacks.

    `role` and `target` are as they stand in a GRANT, `on` is for people: `public.usage_run` and `usage_run`.
    """

    role: str
    right: str
    on: str
    target: str


def missing(conn: Connection, rights: Rights, role: str | None = None) -> list[Missing]:
    """Which of these rights a role lacks; on tables that are not there it lacks none.

    Args:
        role: None for the one of the connection.

    Raises:
        psycopg.errors.UndefinedObject: there is no such role.
    """
    of_tables = sorted(rights - {_TEMPORARY}, key=lambda each: (each[0], _ORDER.index(each[1])))
    parameters = {
        "role": role,
        "tables": [table for table, _ in of_tables],
        "rights": [right for _, right in of_tables],
        "with_temporary": _TEMPORARY in rights,
    }
    return [Missing(*row) for row in conn.execute(query("select_missing_rights"), parameters)]


def describe(lacking: Iterable[Missing]) -> str:
    """What a role lacks, and the GRANTs for it, in one sentence."""
    by_target: dict[Missing, list[str]] = defaultdict(list)
    for each in lacking:
        by_target[each._replace(right="")].append(each.right)
    # What is alike is said once, but a GRANT is on tables or on one thing of another kind.
    alike: dict[tuple[str, str], list[Missing]] = defaultdict(list)
    for target, rights in by_target.items():
        kind = "" if target.target.endswith(target.on) else target.on
        alike[", ".join(rights), kind].append(target)
    role = next(iter(by_target)).role
    lacks = "; ".join(f"{rights} on {_listed(each.on for each in some)}" for (rights, _), some in alike.items())
    grants = " ".join(
        f"GRANT {rights} ON {', '.join(each.target for each in some)} TO {role};" for (rights, _), some in alike.items()
    )
    return escape(f"The PostgreSQL role {role} lacks {lacks}. What gives it, said by the owner: {grants}")


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def require(conn: Connection, rights: Rights) -> None:
    """Make sure that the role of the connection has these rights.

    Raises:
        PostgresRefused: naming each that it lacks, and the GRANT for it.
    """
    if lacking := missing(conn, rights):
        raise PostgresRefused(describe(lacking))


def ledger_writers(conn: Connection) -> list[str]:
    """The roles beside the owner that may write the ledger: those that runs are made with."""
    return [role for (role,) in conn.execute(query("select_ledger_writers"))]
