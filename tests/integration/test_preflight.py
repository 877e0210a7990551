"""A first run that looks for usage in the wrong place says so; one that has nothing to count does not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import redis
from psycopg import Connection

from local.servers import Valkey
from merchant_usage.connections import redis_from_url
from merchant_usage.errors import SettingsError
from merchant_usage.model.run import Run
from merchant_usage.steps import preview
from tests.cluster.servers import running_cluster
from tests.cluster.usage import ClusterUsage
from tests.integration.test_whole_source import READERS, run
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

NOTHING = "No run has found any usage yet, and no key of Redis begins with 'usage:', though Redis is not empty: "


@pytest.fixture
def others(valkey: Valkey, usage: Usage) -> None:
    """Keys that are not ours, in two databases."""
    usage.client.mset({"prod:usage:acme:2026-11-23:queries": 5, "usage": 1})
    with redis.Redis.from_url(valkey.url.removesuffix("0") + "3") as client:
        client.set("usage:acme:2026-11-23:queries", 5)


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_first_run_that_finds_nothing_says_where_it_looked(
    valkey: Valkey, database_url: str, usage: Usage, command: list[str]
) -> None:
    ended = run(database_url, valkey.url, command)
    assert ended.returncode == 2, ended.stderr
    found = "database 0 holds 2 keys, database 3 holds 1 key. Set USAGE_KEY_PREFIX to"
    assert f"error: {NOTHING}{found}" in ended.stderr
    errors = [error for (error,) in usage.conn.execute("SELECT error FROM usage_run")]
    assert [error.startswith(NOTHING) for error in errors] == [True] * (command == READERS["aggregate"])


def look(usage: Usage, **changes: object) -> None:
    preview.preview(usage.client, usage.conn, Run("look", "manual", (YESTERDAY,), NOW), settings(**changes))


@pytest.mark.usefixtures("others")
def test_it_is_said_until_usage_is_found(usage: Usage) -> None:
    for _ in range(2):
        with pytest.raises(SettingsError, match=NOTHING) as raised:
            usage.aggregate()
        assert not raised.value.heals
    with pytest.raises(SettingsError, match=NOTHING):
        look(usage)
    look(usage, key_prefix="prod:usage")  # a key of another date than the run's would do
    usage.write({key("acme"): 1})
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "verified"}


def empty_redis(_: Usage) -> None:
    pass


def usage_of_another_date(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 1})


def a_bad_key(usage: Usage) -> None:
    usage.client.set("usage:nothing", 1)


def rows_of_an_earlier_tool(usage: Usage) -> None:
    usage.client.set("another", 1)
    usage.conn.execute(
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value) VALUES ('acme', %s, 'queries', 1)",
        [YESTERDAY - dt.timedelta(days=30)],
    )


def a_run_that_found_usage(usage: Usage) -> None:
    """And whose rows are gone since, as its keys are."""
    usage.write({key("acme"): 1})
    usage.aggregate()
    usage.conn.execute("TRUNCATE merchant_usage")
    usage.client.delete(raw(key("acme")))
    usage.client.set("another", 1)


@pytest.mark.parametrize(
    "before", [empty_redis, usage_of_another_date, a_bad_key, rows_of_an_earlier_tool, a_run_that_found_usage]
)
def test_nothing_to_count_is_no_error(usage: Usage, before: Callable[[Usage], None]) -> None:
    before(usage)
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "empty"}


@pytest.mark.usefixtures("others")
def test_user_of_few_rights_learns_it_too(valkey: Valkey, usage: Usage) -> None:
    rights = ("+scan", "+mget", "+get", "+type")
    usage.client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">word", "~usage:*", *rights)
    url = valkey.url.replace(f":{valkey.password}@", "reader:word@")
    try:
        with redis_from_url({"USAGE_REDIS_URL": url}) as client:
            reading = Usage(client, usage.conn, count(1))  # type: ignore[arg-type]  # one server, no cluster
            with pytest.raises(SettingsError, match=f"{NOTHING}database 0 holds keys. Set"):
                reading.aggregate()
    finally:
        usage.client.execute_command("ACL", "DELUSER", "reader")


def test_keys_of_a_cluster_are_counted_on_all_nodes(server_folder: Path, database: Connection) -> None:
    with (
        running_cluster(server_folder / "foreign-cluster") as cluster,
        redis_from_url({"USAGE_REDIS_URL": cluster.url}) as client,
    ):
        usage = ClusterUsage(client, database, count(1))  # type: ignore[arg-type]  # a cluster's client does as well
        assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "empty"}
        for n in range(30):
            client.set(f"session:{n}", 1)  # type: ignore[union-attr]  # a cluster
        with pytest.raises(SettingsError, match=f"{NOTHING}database 0 holds 30 keys"):
            usage.aggregate()
