"""What the docs give each role is enough for its work, and nothing of it is too much.

The page is read: what stands there tomorrow is tried by itself.
"""

from __future__ import annotations

import datetime as dt
import html
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from itertools import count
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, TypeAlias

import psycopg
import pytest
import redis
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from psycopg import Connection

from local.servers import Valkey
from merchant_usage import clock
from merchant_usage.alerts import store
from merchant_usage.alerts.alert import Alert, AlertKind
from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL, REDIS_URL, postgres_from_url, redis_from_url
from merchant_usage.driver_errors import explained
from merchant_usage.errors import PostgresRefused, RedisRefused, UsageError
from merchant_usage.model.run import Run
from merchant_usage.page.alone import make_app
from merchant_usage.sink import grants
from merchant_usage.steps.cleanup import delete_stale, inspect_ttl
from merchant_usage.steps.clocks import require_right_clock
from merchant_usage.steps.scan import scan
from tests import docs
from tests.support import Usage, key, raw, settings

PASSWORD: Final = "a-password"
NOW = clock.now()
TODAY = NOW.date()
DAY, OLD = TODAY - dt.timedelta(days=3), TODAY - dt.timedelta(days=30)
SEALED = TODAY - dt.timedelta(days=4)
REGRESSED, STALE = key("regressed", DAY), key("stale", OLD)

# PostgreSQL


class Right(NamedTuple):
    """One right of the page: SELECT on a table, or CONNECT on the database."""

    role: str
    right: str
    kind: str
    on: str

    def __str__(self) -> str:
        return f"{self.role.removeprefix('usage_')}-{self.right}-{self.on}"

    def revoked_from(self, database: str) -> bytes:
        """The statement that takes it away."""
        on = database if self.kind == "DATABASE" else self.on
        return f"REVOKE {self.right} ON {self.kind} {on} FROM {self.role}".encode()


def rights_of_the_page() -> list[Right]:
    form = r"GRANT ([A-Z, ]+) ON (DATABASE|SCHEMA|FUNCTION|)\s*([\w,\s()]+?) TO (\w+);"
    found = re.findall(form, "\n".join(docs.grants("billing")))
    return [
        Right(role, right, kind, on)
        for rights, kind, objects, role in found
        for right in rights.split(", ")
        for on in re.split(r",\s*", objects)
    ]


RIGHTS: Final = rights_of_the_page()
ROLES: Final = ("usage_owner", "usage_pipeline", "usage_reader", "usage_page", "usage_shown")


def url_as(role: str, url: str) -> str:
    return re.sub("//[^@]+@", f"//{role}:{PASSWORD}@", url)


@pytest.fixture
def take_all() -> Iterator[Callable[[Connection], None]]:
    """Take from everybody what PostgreSQL gives to everybody, and make the roles of the page; they go in the end."""
    seen: list[Connection] = []

    def take(conn: Connection) -> None:
        seen.append(conn)
        name = conn.info.dbname
        conn.execute(f"REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON DATABASE {name} FROM PUBLIC".encode())
        for role in ROLES:
            conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'".encode())

    yield take
    for conn in seen:
        for role in ROLES:
            conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def give(conn: Connection, role: str) -> None:
    """Say what the page says for a role."""
    for text in docs.grants(conn.info.dbname):
        statements = [each for each in text.split(";") if f"TO {role}" in each]
        if statements:
            conn.execute(";".join(statements).encode())


def test_the_page_has_these_roles() -> None:
    text = "\n".join(docs.grants("billing"))
    assert tuple(re.findall(r"^CREATE ROLE (\w+) LOGIN PASSWORD 'a-password';$", text, re.MULTILINE)) == ROLES
    assert text.count("GRANT ") == len({line for line in text.split(";") if "GRANT" in line}), "each is read"
    assert {right.role for right in RIGHTS} == set(ROLES)


@pytest.mark.parametrize(("role", "asked"), [("usage_pipeline", grants.PIPELINE), ("usage_page", grants.PAGE)])
def test_the_page_gives_a_role_what_the_code_asks_for(role: str, asked: grants.Rights) -> None:
    """The code names what is missing of the one, and the page has the other."""
    told = {(right.on, right.right) for right in RIGHTS if right.role == role and right.kind in {"", "FUNCTION"}}
    assert told == {(table, right) for table, right in asked if table}


Work: TypeAlias = Callable[[], None]
Tell: TypeAlias = Callable[[Sequence[str]], None]


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Run a command. An error is its one line."""

    def run(arguments: Sequence[str]) -> None:
        capsys.readouterr()
        code = main(arguments)
        complained = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        if code in (2, 3):
            (line,) = complained
            raise PostgresRefused(line.removeprefix("error: "))

    return run


def sentence_of(work: Work) -> str | None:
    """What was said when it failed; None if it did not."""
    try:
        with explained():
            work()
    except UsageError as error:
        return str(error)
    return None


def assert_refused(works: Sequence[Work]) -> None:
    """Something fails, because PostgreSQL refuses it."""
    said = [sentence for work in works if (sentence := sentence_of(work)) is not None]
    refused = ("permission denied", "no schema", "does not exist", "is missing", "lacks")
    assert [sentence for sentence in said if any(words in sentence for words in refused)], "PostgreSQL needs it not"


def assert_needed(right: Right, works: Sequence[Work], monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    """Something fails, and names what is missing; and PostgreSQL refuses it, too, where nobody looks beforehand."""
    named = database if right.kind == "DATABASE" else right.on
    said = [sentence for work in works if (sentence := sentence_of(work)) is not None]
    assert [sentence for sentence in said if "\n" in sentence] == []
    assert [sentence for sentence in said if named in sentence and right.right in sentence] or [
        # What is needed at one place only, where nobody looks beforehand.
        sentence
        for sentence in said
        if re.search(f"permission denied for (table|view) {named}", sentence) and "merchant-usage migrate" in sentence
    ], said
    with monkeypatch.context() as patch:
        patch.setattr(grants, "require", lambda _, __: None)
        assert_refused(works)


def of(role: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("right", [right for right in RIGHTS if right.role == role], ids=str)


# The owner


@pytest.fixture
def owner_works(
    empty_database: Connection,
    empty_database_url: str,
    take_all: Callable[[Connection], None],
    tell: Tell,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Work]:
    take_all(empty_database)
    give(empty_database, "usage_owner")
    monkeypatch.setenv(POSTGRES_URL, url_as("usage_owner", empty_database_url))
    return [lambda: tell(["migrate"])]


def test_the_owner_may_migrate(owner_works: list[Work]) -> None:
    (migrate,) = owner_works
    migrate()
    migrate()


@of("usage_owner")
def test_the_owner_needs(
    right: Right, owner_works: list[Work], empty_database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = empty_database.info.dbname
    empty_database.execute(right.revoked_from(name))
    assert_needed(right, owner_works, monkeypatch, name)


# The pipeline


@pytest.fixture
def pipeline_works(
    usage: Usage,
    valkey: Valkey,
    database_url: str,
    take_all: Callable[[Connection], None],
    tell: Tell,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Work]:
    """All that the role does: on counters that are new, grew, went backwards, are bad, gone, live or stale."""
    take_all(usage.conn)
    give(usage.conn, "usage_pipeline")
    url = url_as("usage_pipeline", database_url)
    monkeypatch.setenv(POSTGRES_URL, url)
    monkeypatch.setenv(REDIS_URL, valkey.url)
    usage.write({key("grows", DAY): 1, key("goes", DAY): 3, REGRESSED: 9, STALE: 4, key("lives", TODAY): 1})
    usage.aggregate(OLD, DAY, TODAY, now=NOW)

    def aggregate() -> None:
        usage.write({key("grows", DAY): 2, REGRESSED: 5, key("new", DAY): 1, key("bad", DAY): "x"})
        usage.client.delete(raw(key("goes", DAY)))
        tell(["aggregate", "--from", str(DAY), "--to", str(TODAY)])

    def seal() -> None:
        """Twice: the second version is compared with the first."""
        for value in (1, 2):
            usage.write({key("acme", SEALED): value})
            tell(["aggregate", "--date", str(SEALED)])

    def clean() -> None:
        with redis_from_url() as client, postgres_from_url() as conn:
            run = Run(usage.new_run_id(), "manual", (DAY,), NOW)
            scan(client, conn, run, settings(delete_stale_keys=True))
            delete_stale(client, conn, [STALE], [OLD], "usage")

    def raise_alert() -> None:
        with postgres_from_url() as conn, store.register(conn, ["a"], NOW) as register:
            register.raise_alert(Alert(AlertKind.FAILED, "a", "t", "s"), NOW)

    def decide() -> None:
        with monkeypatch.context() as patch:
            patch.setenv("USAGE_APPROVALS", "2")
            for person in ("alice", "bob"):
                tell(["resolve", raw(REGRESSED).decode(), "--accept", "--by", person])

    return [aggregate, seal, clean, raise_alert, lambda: tell(["prune"]), decide, lambda: look(tell)]


def write_evidence(tell: Tell) -> None:
    """A folder for it must be new."""
    with TemporaryDirectory() as folder:
        tell(["explain", "--evidence", f"{folder}/evidence", "--from", str(DAY), "--to", str(TODAY)])


def look(tell: Tell) -> None:
    """All commands that only look."""
    tell(["status"])
    tell(["dead-letters"])
    tell(["explain", "grows", str(DAY)])
    write_evidence(tell)
    for by in ("hour", "day", "week", "month"):
        tell(["history", "grows", "--date", str(DAY), "--by", by])


def test_the_pipeline_may_do_its_work(pipeline_works: list[Work], usage: Usage) -> None:
    for work in pipeline_works:
        work()
    assert usage.rows()[key("new", DAY)] == 1
    assert usage.rows()[REGRESSED] == 5
    assert usage.client.get(raw(STALE)) is None


@of("usage_pipeline")
def test_the_pipeline_needs(
    right: Right, pipeline_works: list[Work], usage: Usage, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage.conn.execute(right.revoked_from(usage.conn.info.dbname))
    assert_needed(right, pipeline_works, monkeypatch, usage.conn.info.dbname)


@pytest.mark.parametrize("table", ["usage_decision", "usage_proposal"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET reason = 'another'", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_pipeline_cannot_change_what_was_decided(
    pipeline_works: list[Work], usage: Usage, table: str, statement: str
) -> None:
    for work in pipeline_works:
        work()
    before = usage.everything()[table]
    assert before
    with postgres_from_url() as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(statement.format(table).encode())
    assert usage.everything()[table] == before


# Those who read


def statements_on(page: str) -> list[str]:
    return [block.text for block in docs.blocks("sql") if block.page == page]


def ask(statement: str) -> Work:
    def work() -> None:
        with postgres_from_url() as conn:
            conn.execute(statement.encode())

    return work


@pytest.fixture
def reader_works(
    database: Connection,
    database_url: str,
    take_all: Callable[[Connection], None],
    tell: Tell,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Work]:
    take_all(database)
    give(database, "usage_reader")
    monkeypatch.setenv(POSTGRES_URL, url_as("usage_reader", database_url))
    asked = [ask(statement) for statement in [*statements_on("tables.md"), *statements_on("red-run.md")]]
    return [
        lambda: tell(["status"]),
        lambda: tell(["audit"]),
        lambda: tell(["dead-letters"]),
        lambda: tell(["decisions"]),
        lambda: tell(["explain", "acme", "2026-11-20"]),
        lambda: write_evidence(tell),
        *asked,
    ]


@pytest.fixture
def page_works(
    usage: Usage,
    database_url: str,
    take_all: Callable[[Connection], None],
    monkeypatch: pytest.MonkeyPatch,
) -> list[Work]:
    """Every page, of a date that is verified."""
    usage.write({key("acme", DAY): 5})
    usage.aggregate(DAY, now=NOW)
    take_all(usage.conn)
    give(usage.conn, "usage_page")
    monkeypatch.setenv(POSTGRES_URL, url_as("usage_page", database_url))
    app = make_app()
    site = TestClient(app, base_url="http://localhost")
    addresses = [route.path for route in app.routes if isinstance(route, APIRoute) and "GET" in route.methods]

    def look(address: str) -> Work:
        def work() -> None:
            answer = site.get(address, params={"date": str(DAY), "to": str(DAY), "merchant": "acme"})
            if answer.status_code != HTTPStatus.OK:
                (said,) = re.findall('<p class="[^"]*problem">(.*?)</p>', answer.text, re.DOTALL)
                raise PostgresRefused(html.unescape(said))

        return work

    return [look(address) for address in addresses if "{" not in address]


@pytest.fixture
def shown_works(
    database: Connection,
    database_url: str,
    take_all: Callable[[Connection], None],
    monkeypatch: pytest.MonkeyPatch,
) -> list[Work]:
    take_all(database)
    give(database, "usage_shown")
    monkeypatch.setenv(POSTGRES_URL, url_as("usage_shown", database_url))
    first, *_ = statements_on("tables.md")
    return [ask(first)]


def test_a_reader_may_read(reader_works: list[Work]) -> None:
    assert len(reader_works) > 4
    for work in reader_works:
        work()


def test_a_reader_with_temporary_tables_may_compare(
    reader_works: list[Work], usage: Usage, valkey: Valkey, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    del reader_works
    monkeypatch.setenv(REDIS_URL, valkey.url)
    usage.write({key("acme", DAY): 5})
    commands = (["verify", str(DAY)], ["status", "--live"], ["aggregate", "--dry-run", "--date", str(DAY)])
    for command in commands:
        with pytest.raises(PostgresRefused, match="lacks TEMPORARY on database"):
            tell(command)
    usage.conn.execute(f"GRANT TEMPORARY ON DATABASE {usage.conn.info.dbname} TO usage_reader".encode())
    for command in commands:
        tell(command)


@of("usage_reader")
def test_a_reader_needs(
    right: Right, reader_works: list[Work], database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(right.revoked_from(database.info.dbname))
    assert_needed(right, reader_works, monkeypatch, database.info.dbname)


def test_the_usage_page_may_read(page_works: list[Work]) -> None:
    assert page_works
    for work in page_works:
        work()


@of("usage_page")
def test_the_usage_page_needs(
    right: Right, page_works: list[Work], database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(right.revoked_from(database.info.dbname))
    assert_needed(right, page_works, monkeypatch, database.info.dbname)


def test_what_shows_merchants_their_usage_may_read(shown_works: list[Work]) -> None:
    for work in shown_works:
        work()


@of("usage_shown")
def test_what_shows_merchants_their_usage_needs(right: Right, shown_works: list[Work], database: Connection) -> None:
    """Its statements are not ours, so that PostgreSQL alone says so."""
    database.execute(right.revoked_from(database.info.dbname))
    assert_refused(shown_works)


@pytest.mark.parametrize("role", ["usage_reader", "usage_page", "usage_shown"])
def test_who_reads_may_write_nothing(
    role: str, database: Connection, database_url: str, take_all: Callable[[Connection], None]
) -> None:
    take_all(database)
    give(database, role)
    with (
        psycopg.connect(url_as(role, database_url), autocommit=True) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("UPDATE merchant_usage SET metric_value = 0")


# Redis


def rules_of_the_page() -> tuple[list[str], list[str]]:
    """What a run needs, and what clean-up needs besides."""
    found = [[rule for rule in shlex.split(line) if rule[0] in "+~"] for line in docs.commands_of("redis-cli")]
    (of_run, of_clean_up) = found
    return of_run, of_clean_up


OF_RUN, OF_CLEAN_UP = rules_of_the_page()


def without(rule: str) -> str:
    """What the page says of a right that is missing."""
    text = next(page.read_text(encoding="utf-8") for page in docs.PAGES if page.name == "grants.md")
    (told,) = re.findall(rf"^\| `{re.escape(rule)}` \|.*\| (.*) \|$", text, re.MULTILINE)
    return str(told)


@pytest.fixture
def by_rules(usage: Usage, valkey: Valkey) -> Iterator[Callable[[Sequence[str]], Usage]]:
    """The same Redis, for a user of these rules."""
    opened: list[redis.Redis] = []

    def connect(rules: Sequence[str]) -> Usage:
        usage.client.execute_command("ACL", "SETUSER", "usage", "reset", "on", f">{PASSWORD}", *rules)
        client = redis.Redis.from_url(url_as("usage", valkey.url))
        opened.append(client)
        return Usage(client, usage.conn, count(1))

    yield connect
    for client in opened:
        client.close()
    usage.client.execute_command("ACL", "DELUSER", "usage")


def run_all(usage: Usage, *, clean_up: bool) -> None:
    """A run that meets all there may be, then clean-up, which looks at keys' lives in any case."""
    with explained():
        usage.aggregate(DAY, now=NOW)
        if clean_up:
            assert delete_stale(usage.client, usage.conn, [STALE], [OLD], "usage").deleted == 1
        inspect_ttl(usage.client, usage.conn, [key("acme", DAY)], "usage")
        require_right_clock(usage.client, usage.conn)


@pytest.fixture
def counters(usage: Usage, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Usage:
    """A counter, a stale one that is stored, a huge value and something that is no counter."""
    monkeypatch.setenv(REDIS_URL, valkey.url)
    usage.write({key("acme", DAY): 5, STALE: 4, key("huge", DAY): "9" * 100_000})
    usage.client.rpush(raw(key("list", DAY)), "x")
    usage.aggregate(OLD, now=NOW)
    return usage


def test_the_user_of_the_page_may_do_the_work_and_no_more(
    counters: Usage, by_rules: Callable[[Sequence[str]], Usage]
) -> None:
    run_all(by_rules(OF_RUN), clean_up=False)
    cleaner = by_rules([*OF_RUN, *OF_CLEAN_UP])
    run_all(cleaner, clean_up=True)
    assert counters.rows()[key("acme", DAY)] == 5
    assert counters.client.get(raw(STALE)) is None
    with pytest.raises(redis.exceptions.NoPermissionError):
        cleaner.client.incrby(raw(key("acme", DAY)), 1)
    with pytest.raises(redis.exceptions.NoPermissionError):
        by_rules(OF_RUN).client.delete(raw(key("acme", DAY)))


@pytest.mark.parametrize("rule", [*OF_RUN, *OF_CLEAN_UP])
@pytest.mark.usefixtures("counters")
def test_the_user_needs(rule: str, by_rules: Callable[[Sequence[str]], Usage], logged: list[str]) -> None:
    user = by_rules([each for each in [*OF_RUN, *OF_CLEAN_UP] if each != rule])
    if "fails" in without(rule):
        with pytest.raises(RedisRefused) as raised:
            run_all(user, clean_up=True)
        assert "\n" not in str(raised.value)
        assert not raised.value.heals
        named = "usage keys" if rule.startswith("~") else f"'{rule[1:]}'"
        assert named in str(raised.value)
    else:
        run_all(user, clean_up=True)
        expected = re.findall(r"\*(.*?)\*", without(rule))
        told = [sentence for sentence in logged if "Redis user" in sentence]
        assert len(told) == len(expected)
        assert all(words in sentence for words, sentence in zip(expected, told, strict=True))
