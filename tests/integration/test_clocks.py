"""A machine whose clock is wrong says so, and no run goes by one that is far off."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from psycopg import Connection

from local.servers import Valkey
from merchant_usage import clock
from merchant_usage.cli.main import main
from merchant_usage.connections import redis_from_url
from merchant_usage.errors import ClocksDisagree
from merchant_usage.steps.clocks import require_right_clock
from tests.cluster.servers import running_cluster
from tests.integration.test_whole_source import READERS
from tests.support import Usage

SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Put this machine's clock forward by some seconds."""

    def put(seconds: float) -> None:
        ahead = dt.timedelta(seconds=seconds)
        monkeypatch.setattr(clock, "now", lambda: dt.datetime.now(dt.UTC) + ahead)

    return put


@pytest.mark.parametrize("seconds", [0, 55, -55])
def test_clocks_that_are_nearly_right(usage: Usage, set_clock: SetClock, logged: list[str], seconds: int) -> None:
    set_clock(seconds)
    require_right_clock(usage.client, usage.conn)
    assert logged == []


@pytest.mark.parametrize(("seconds", "told"), [(65, "behind"), (-65, "ahead"), (590, "behind"), (-590, "ahead")])
def test_clock_that_is_off_is_warned_of(
    usage: Usage, set_clock: SetClock, logged: list[str], seconds: int, told: str
) -> None:
    set_clock(seconds)
    require_right_clock(usage.client, usage.conn)
    (line,) = logged
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    apart = rf"\((\d+) s {told}\)"
    found = re.fullmatch(
        rf"The clocks do not agree: this machine has {moment}, Redis has {moment} {apart} and PostgreSQL has {moment} "
        rf"{apart}\.",
        line,
    )
    assert found is not None, line
    assert all(abs(int(number) - abs(seconds)) <= 3 for number in found.groups())


@pytest.mark.parametrize("seconds", [610, -610, 26 * 3600])
def test_clock_that_is_far_off_is_not_gone_by(
    usage: Usage, set_clock: SetClock, logged: list[str], seconds: int
) -> None:
    set_clock(seconds)
    with pytest.raises(ClocksDisagree, match=r"Redis has .* and PostgreSQL has ") as raised:
        require_right_clock(usage.client, usage.conn)
    assert raised.value.heals
    assert logged == []


def test_user_who_may_not_ask_redis_for_the_time(
    valkey: Valkey, redis_client: redis.Redis, database: Connection, set_clock: SetClock
) -> None:
    rights = ("+scan", "+mget", "+get", "+type")
    redis_client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">word", "~usage:*", *rights)
    url = valkey.url.replace(f":{valkey.password}@", "reader:word@")
    try:
        with redis_from_url({"USAGE_REDIS_URL": url}) as client:
            require_right_clock(client, database)
            set_clock(700)
            with pytest.raises(ClocksDisagree, match=r"UTC, PostgreSQL has [^R]*$"):
                require_right_clock(client, database)
    finally:
        redis_client.execute_command("ACL", "DELUSER", "reader")


def test_redis_that_is_down_is_left_to_the_scan(database: Connection) -> None:
    with Valkey() as server, redis.Redis.from_url(server.url) as client:
        server.stop()
        require_right_clock(client, database)
        assert not database.closed


def test_clock_of_a_cluster(database: Connection, set_clock: SetClock, server_folder: Path) -> None:
    with (
        running_cluster(server_folder / "clock-cluster") as cluster,
        redis_from_url({"USAGE_REDIS_URL": cluster.url}) as client,
    ):
        require_right_clock(client, database)
        set_clock(700)
        with pytest.raises(ClocksDisagree, match=r"Redis has .* and PostgreSQL has "):
            require_right_clock(client, database)


@pytest.mark.parametrize("setting", ["DateStyle = 'German'", "DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Kathmandu'"])
def test_settings_of_the_role_do_not_matter(usage: Usage, setting: str, logged: list[str]) -> None:
    usage.conn.execute(f"SET {setting}".encode())
    require_right_clock(usage.client, usage.conn)
    assert logged == []


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_no_command_goes_by_a_wrong_clock(
    usage: Usage,
    valkey: Valkey,
    database_url: str,
    set_clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    monkeypatch.setenv("USAGE_REDIS_URL", valkey.url)
    monkeypatch.setenv("USAGE_POSTGRES_URL", database_url)
    before = usage.everything()
    set_clock(26 * 3600)
    assert main(command) == 2
    assert "error: The clocks do not agree: this machine has " in capsys.readouterr().err
    assert usage.everything() == before
