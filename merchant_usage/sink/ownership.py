"""Whose the tables are that stand under our names, and in which schema: no others than those that are meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from psycopg import Connection

from merchant_usage.errors import MIGRATE_COMMAND, PostgresRefused, SchemaError
from merchant_usage.sink import grants
from merchant_usage.sink.queries import query

_SET_SEARCH_PATH: Final = (
    "The search_path of the role must begin with the schema that they stand in: ALTER ROLE ... SET search_path."
)


class _Place(NamedTuple):
    """Where a table of one of our names stands, and whose it is."""

    name: str
    schema: str
    owner: str
    is_ours: bool

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def require_one_schema(conn: Connection, tables: Iterable[str]) -> None:
    """Make sure that no table of another schema takes the place of one that stands beside the others.

    Raises:
        SchemaError: one does.
    """
    if hidden := [*_hidden(_places(conn, tables))]:
        raise SchemaError(f"The tables are not those of one schema: {'; '.join(hidden)}. {_SET_SEARCH_PATH}")


def require_owner(conn: Connection, tables: Iterable[str]) -> None:
    """Make sure that this role may change the tables that are there and make others, beside them.

    Raises:
        PostgresRefused: it may not.
        SchemaError: new tables would be made in another schema than those that are there.
    """
    row = conn.execute(query("select_home")).fetchone()
    if row is None or row[1] is None:
        raise SchemaError(f"There is no schema to make tables in: search_path is {row[-1] if row else None}.")
    role, home, target, lacking, path = row
    places = _places(conn, tables)
    spread = [*_hidden(places), *_left_behind(places, home, path)]
    used: dict[str, _Place] = {}
    for place in places:
        used.setdefault(place.name, place)
    if foreign := [place for place in used.values() if not place.is_ours]:
        owners = sorted({place.owner for place in foreign})
        whom = owners[0] if len(owners) == 1 else f"a role that is a member of {' and '.join(owners)}"
        reason = f"{_named(foreign)}. Run {MIGRATE_COMMAND} as {whom}."
    elif lacking:
        reason = (
            f"it lacks {', '.join(lacking)} on schema {home}. What gives it, said by the owner of the schema: "
            f"GRANT {', '.join(lacking)} ON SCHEMA {target} TO {role};"
        )
    elif spread:
        raise SchemaError(
            f"The tables are not those of one schema, and nothing was changed: {'; '.join(spread)}. {_SET_SEARCH_PATH}"
        )
    else:
        return
    also = f" Besides, {'; '.join(spread)}." if spread else ""
    rights = grants.missing(conn, grants.PIPELINE)
    lacks = f" {grants.describe(rights)}" if rights else ""
    raise PostgresRefused(f"The PostgreSQL role {role} may not migrate, and nothing was changed: {reason}{also}{lacks}")


def _places(conn: Connection, tables: Iterable[str]) -> list[_Place]:
    """All of them, in the order of the search_path."""
    return [_Place(*row) for row in conn.execute(query("select_table_places"), {"tables": list(tables)})]


def _hidden(places: Sequence[_Place]) -> Iterator[str]:
    """Which tables stand before another of their name, where ours are spread over schemas so that one may be meant."""
    by_name: dict[str, list[_Place]] = defaultdict(list)
    for place in places:
        by_name[place.name].append(place)
    if len({first.schema for first, *_ in by_name.values()}) > 1:
        for first, *others in by_name.values():
            if others:
                yield f"{first}, which belongs to {first.owner}, hides {others[0]}, which belongs to {others[0].owner}"


def _left_behind(places: Iterable[_Place], home: str, path: str) -> Iterator[str]:
    """Which tables a new one would hide."""
    known = {place.name for place in places if place.schema == home}
    behind = [str(place) for place in places if place.name not in known and place.schema != home]
    if behind:
        yield f"a table that is made now is made in {home} (search_path: {path}), and hides {', '.join(behind)}"


def _named(places: Iterable[_Place]) -> str:
    """Which tables belong to whom."""
    by_owner: dict[str, list[str]] = defaultdict(list)
    for place in places:
        by_owner[place.owner].append(str(place))
    return "; ".join(
        f"{', '.join(tables)} belong{'s' * (len(tables) == 1)} to {owner}" for owner, tables in by_owner.items()
    )
