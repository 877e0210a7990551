"""No password is shown to those who can read logs or list processes."""

from __future__ import annotations

from local.airflow_api import DagRun
from tests.scheduler.world import World


def test_no_log_holds_a_password(world: World, scheduled_runs: list[DagRun]) -> None:
    assert scheduled_runs
    logs = [file for place in world.logs for file in ([place] if place.is_file() else place.rglob("*.log"))]
    components = {f"{component}.log" for component in world.airflow.COMPONENTS}
    assert components | {"db-migrate.log", "attempt=1.log"} <= {log.name for log in logs}
    said = {log: log.read_text(errors="replace") for log in logs}
    assert [(log, whose) for log in logs for whose, secret in world.secrets.items() if secret in said[log]] == []


def test_no_command_line_holds_a_password(world: World, scheduled_runs: list[DagRun]) -> None:
    assert scheduled_runs
    assert any("airflow scheduler" in command for command in world.commands)
    assert any("postgres" in command for command in world.commands)
    shown = [whose for whose, secret in world.secrets.items() if any(secret in line for line in world.commands)]
    assert shown == []
