"""What each role must be allowed, and what is said when it is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg import Connection, sql

from local.servers import Postgres, Valkey
from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL, REDIS_URL, postgres_from_url
from merchant_usage.driver_errors import explained
from merchant_usage.errors import PostgresRefused
from merchant_usage.model.run import Run
from merchant_usage.pipeline import store
from merchant_usage.steps.scan import scan
from tests.support import NOW, YESTERDAY, Usage, key, settings

PASSWORD = "a-password"
ROLE = "usage_pipeline_of_tests"
PIPELINE: LiteralString = f"""
GRANT USAGE ON SCHEMA public TO {ROLE};
GRANT SELECT, INSERT, UPDATE ON merchant_usage TO {ROLE};
GRANT SELECT, INSERT, UPDATE, DELETE ON usage_run, usage_dead_letter, usage_alert, usage_reading, usage_deletion,
    usage_source TO {ROLE};
GRANT SELECT, INSERT, DELETE ON usage_absence TO {ROLE};
GRANT SELECT, INSERT ON usage_decision, usage_proposal, usage_seal, usage_seal_page TO {ROLE};
GRANT INSERT ON usage_correction TO {ROLE};
GRANT SELECT, INSERT ON usage_hourly_history TO {ROLE};
GRANT SELECT ON merchant_usage_hourly, merchant_usage_weekly, merchant_usage_monthly, usage_sealed_date,
    usage_explained TO {ROLE};
GRANT EXECUTE ON FUNCTION usage_keep_hourly_history(date) TO {ROLE};
"""

Told = Callable[[], str]


@pytest.fixture
def role(database: Connection) -> Iterator[str]:
    """A role that may log in, and nothing else."""
    name = sql.Identifier(database.info.dbname)
    database.execute(
        sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(name)
    )
    database.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    yield ROLE
    database.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture
def pipeline(role: str, database: Connection) -> str:
    """A role that may do all that the pipeline does."""
    database.execute(PIPELINE)
    name, to = sql.Identifier(database.info.dbname), sql.Identifier(role)
    database.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(name, to))
    return role


def url_as(role: str, url: str) -> str:
    return re.sub("//[^@]+@", f"//{role}:{PASSWORD}@", url)


def grants_in(sentence: str) -> list[str]:
    return re.findall("GRANT [^;]+;", sentence)


@pytest.fixture
def as_owner(monkeypatch: pytest.MonkeyPatch, valkey: Valkey, database_url: str) -> None:
    monkeypatch.setenv(REDIS_URL, valkey.url)
    monkeypatch.setenv(POSTGRES_URL, database_url)


@pytest.fixture
def as_pipeline(as_owner: None, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    del as_owner
    monkeypatch.setenv(POSTGRES_URL, url_as(ROLE, database_url))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """What was said on stderr since it was asked last, but for the log."""

    def tell() -> str:
        lines = capsys.readouterr().err.splitlines()
        return "\n".join(line for line in lines if not re.match(r"\d{4}-\d\d-\d\d ", line))

    return tell


@pytest.mark.usefixtures("as_owner")
def test_migrate_names_what_the_pipeline_lacks(pipeline: str, database: Connection, told: Told) -> None:
    database.execute(f"REVOKE UPDATE ON usage_run FROM {pipeline}; REVOKE ALL ON usage_source FROM {pipeline}")
    assert main(["migrate"]) == 0
    sentence = told()
    assert sentence == (
        f"The PostgreSQL role {pipeline} lacks UPDATE on usage_run; SELECT, INSERT, UPDATE, DELETE on usage_source. "
        f"What gives it, said by the owner: GRANT UPDATE ON public.usage_run TO {pipeline}; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON public.usage_source TO {pipeline};"
    )
    for grant in grants_in(sentence):
        database.execute(grant.encode())
    assert main(["migrate"]) == 0
    assert told() == ""


@pytest.mark.usefixtures("as_owner")
def test_migrate_says_all_that_a_new_role_needs(
    usage: Usage, role: str, told: Told, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    assert main(["migrate", "--role", role]) == 0
    sentence = told()
    assert sentence.count("\n") == 0
    for grant in grants_in(sentence):
        usage.conn.execute(grant.encode())
    usage.write({key("acme"): 5})
    monkeypatch.setenv(POSTGRES_URL, url_as(role, database_url))
    assert main(["aggregate", "--date", str(YESTERDAY)]) == 0
    assert usage.rows() == {key("acme"): 5}


@pytest.mark.usefixtures("as_owner")
def test_migrate_for_a_role_that_there_is_not(told: Told) -> None:
    assert main(["migrate", "--role", "nobody's"]) == 2
    assert told() == 'error: --role="nobody\'s" is no role of this PostgreSQL.'


@pytest.mark.usefixtures("as_pipeline")
def test_migrate_as_the_pipeline_names_what_it_lacks(pipeline: str, database: Connection, told: Told) -> None:
    database.execute(f"REVOKE INSERT, DELETE ON usage_reading FROM {pipeline}")
    assert main(["migrate"]) == 3
    sentence = told()
    assert f"The PostgreSQL role {pipeline} may not migrate, and nothing was changed: " in sentence
    assert sentence.endswith(
        f"The PostgreSQL role {pipeline} lacks INSERT, DELETE on usage_reading. What gives it, said by the owner: "
        f"GRANT INSERT, DELETE ON public.usage_reading TO {pipeline};"
    )


@pytest.mark.usefixtures("as_pipeline")
def test_run_without_a_right_names_it_before_anything_is_done(
    usage: Usage, pipeline: str, database_url: str, told: Told
) -> None:
    usage.write({key("acme"): 5, key("other"): 6})
    usage.conn.execute(f"REVOKE INSERT ON merchant_usage FROM {pipeline}")
    assert main(["aggregate", "--date", str(YESTERDAY)]) == 3
    assert told() == (
        f"error: The PostgreSQL role {pipeline} lacks INSERT on merchant_usage. What gives it, said by the owner: "
        f"GRANT INSERT ON public.merchant_usage TO {pipeline};"
    )
    with (
        postgres_from_url({POSTGRES_URL: url_as(pipeline, database_url)}) as conn,
        pytest.raises(PostgresRefused, match="lacks INSERT on merchant_usage") as raised,
    ):
        usage.aggregate(conn=conn)
    assert not raised.value.heals
    assert usage.conn.execute("SELECT * FROM usage_run").fetchall() == [], "refused before it began"


@pytest.mark.usefixtures("as_pipeline")
def test_schema_that_one_may_not_look_into_is_not_taken_for_missing_tables(
    pipeline: str, database: Connection, told: Told
) -> None:
    database.execute(f"REVOKE USAGE ON SCHEMA public FROM {pipeline}")
    assert main(["status"]) == 3
    assert told() == (
        f"error: The PostgreSQL role {pipeline} lacks USAGE on schema public. What gives it, said by the owner: "
        f"GRANT USAGE ON SCHEMA public TO {pipeline};"
    )


@pytest.mark.usefixtures("as_pipeline")
def test_temporary_tables_are_a_right_too(pipeline: str, database: Connection, told: Told) -> None:
    name = database.info.dbname
    database.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM {pipeline}".encode())
    assert main(["aggregate"]) == 3
    assert told() == (
        f"error: The PostgreSQL role {pipeline} lacks TEMPORARY on database {name}. What gives it, said by the owner: "
        f"GRANT TEMPORARY ON DATABASE {name} TO {pipeline};"
    )


@pytest.mark.usefixtures("as_pipeline", "pipeline")
def test_sequence_of_the_application_is_a_right_too(database: Connection, told: Told) -> None:
    database.execute("ALTER TABLE merchant_usage ADD COLUMN id bigserial")
    assert main(["aggregate"]) == 3
    sentence = told()
    assert "lacks USAGE on sequence merchant_usage_id_seq." in sentence
    for grant in grants_in(sentence):
        database.execute(grant.encode())
    assert main(["aggregate"]) == 0


@pytest.mark.usefixtures("as_pipeline")
def test_rights_on_columns_will_do(usage: Usage, pipeline: str) -> None:
    usage.conn.execute(
        f"REVOKE UPDATE ON merchant_usage FROM {pipeline};"
        f"GRANT UPDATE (metric_value, carried, updated_at) ON merchant_usage TO {pipeline}"
    )
    for value in (5, 6):
        usage.write({key("acme"): value})
        assert main(["aggregate", "--date", str(YESTERDAY)]) == 0
    assert usage.rows() == {key("acme"): 6}


def test_right_that_is_taken_in_between_halves_no_batch(
    usage: Usage, pipeline: str, database_url: str, postgres: Postgres, logged: list[str]
) -> None:
    del postgres
    usage.write({key(f"merchant {number}"): number for number in range(8)})
    run = Run("run", "manual", (YESTERDAY,), NOW)
    with postgres_from_url({POSTGRES_URL: url_as(pipeline, database_url)}) as conn:
        _, batches = scan(usage.client, conn, run, settings())
        usage.conn.execute(f"REVOKE INSERT ON merchant_usage FROM {pipeline}")
        with pytest.raises(PostgresRefused, match="permission denied for table merchant_usage") as raised, explained():
            store(usage.client, conn, batches[0], "run", settings())
    assert "merchant-usage migrate" in str(raised.value)
    assert not raised.value.heals
    assert [sentence for sentence in logged if "could not be stored" in sentence] == []
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM merchant_usage").fetchone() == (0,)
