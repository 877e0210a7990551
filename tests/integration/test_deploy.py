"""What deploy/ holds: each file by a validator of its own kind, and what it starts against real servers."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from croniter import croniter
from packaging.requirements import Requirement

from local.servers import Valkey
from merchant_usage import __version__, clock
from tests.faults.leftovers import wait_until
from tests.integration.test_wheel import UV, call
from tests.support import PROJECT, Connect, Usage, key

DEPLOY = PROJECT / "deploy"
INSTALLED = "/opt/merchant-usage/bin/merchant-usage"
#: The same, as ./run has installed it.
PROGRAM = Path(sys.executable).with_name("merchant-usage")
ENVIRONMENT_FILE = "/etc/merchant-usage.env"
COUNTER = key("acme", clock.now().date())
SECONDS = 60
AT_WORK = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def instructions() -> dict[str, str]:
    """Those of the Dockerfile's last stage that say what is started, and as whom."""
    *_, last = read("Dockerfile").split("\nFROM ")
    return dict(line.split(" ", 1) for line in last.splitlines() if re.match("[A-Z]+ ", line))


def cron_job() -> Any:
    return yaml.safe_load(read("kubernetes/cronjob.yaml"))


def pod() -> Any:
    return cron_job()["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def container() -> Any:
    (found,) = pod()["containers"]
    return found


def task_container() -> Any:
    (found,) = json.loads(read("aws/task-definition.json"))["containerDefinitions"]
    return found


class Unit(configparser.RawConfigParser):
    """A unit of systemd: case matters."""

    def optionxform(self, name: str) -> str:
        return name


def unit(name: str) -> Unit:
    found = Unit(strict=True, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    found.read_string(read(f"systemd/{name}"))
    return found


def cron_line() -> tuple[str, str, str]:
    """When, as whom and what."""
    (line,) = [line for line in read("cron/merchant-usage").splitlines() if re.match("[0-9*]", line)]
    *when, user, command = line.split(" ", 6)
    return " ".join(when), user, command


def started_by(arguments: list[str]) -> list[str]:
    """What a container of the image executes with these arguments."""
    return [*json.loads(instructions()["ENTRYPOINT"]), *arguments]


# What each file starts, as words.
COMMANDS: dict[str, Callable[[], list[str]]] = {
    "image": lambda: started_by(json.loads(instructions()["CMD"])),
    "kubernetes": lambda: started_by(container()["args"]),
    "ecs": lambda: started_by(task_container()["command"]),
    "systemd": lambda: shlex.split(unit("merchant-usage.service")["Service"]["ExecStart"]),
}


@pytest.fixture
def environ(valkey: Valkey, database_url: str) -> dict[str, str]:
    """All that a container is told."""
    return {"USAGE_REDIS_URL": valkey.url, "USAGE_POSTGRES_URL": database_url}


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def none_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def start(command: list[str | Path], folder: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    STARTED.append(process)
    return process


def run(words: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    """Start one, in an environment that holds nothing else."""
    assert words[0] in {"merchant-usage", INSTALLED}
    return start([PROGRAM, *words[1:]], Path("/"), environ)


@contextmanager
def held_up(usage: Usage, connect: Connect) -> Iterator[Callable[[], None]]:
    """Let whoever stores usage wait, until this ends; what is yielded waits until somebody does."""
    with connect().transaction(), usage.conn.transaction():
        usage.conn.execute("LOCK TABLE merchant_usage IN SHARE ROW EXCLUSIVE MODE")
        watch = connect()
        yield lambda: wait_until(watch, AT_WORK)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_it_starts_aggregates_what_is_due(usage: Usage, environ: dict[str, str], name: str) -> None:
    usage.write({COUNTER: 5})
    process = run(COMMANDS[name](), environ)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert f"{COUNTER.date} | verified" in out
    assert usage.rows() == {COUNTER: 5}


def test_two_at_once_do_no_harm_and_say_so(usage: Usage, environ: dict[str, str], connect: Connect) -> None:
    usage.write({COUNTER: 5})
    words = COMMANDS["kubernetes"]()
    with held_up(usage, connect) as wait_for_one:
        first = run(words, environ)
        wait_for_one()
        second = run(words, environ)
        assert second.stderr is not None
        # It is said before anything waits.
        told = next(line for line in second.stderr if re.search("Another run|Starting|error", line))
    assert "Another run of merchant-usage" in told
    assert "has not ended. Both go on" in told
    for process in (first, second):
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
    assert usage.rows() == {COUNTER: 5}


def test_without_its_addresses_it_says_what_is_missing() -> None:
    process = run(COMMANDS["image"](), {})
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert err == "error: USAGE_REDIS_URL is not set; it takes redis://user:password@host:6379/0\n"


# The image


def test_the_image_runs_as_a_user_that_is_not_root() -> None:
    user, group = map(int, instructions()["USER"].split(":"))
    assert user
    assert group
    assert task_container()["user"] == instructions()["USER"]


def locked(name: str) -> dict[str, str]:
    """Version, and the hashes, by package."""
    found = re.findall(
        r"^([a-z0-9-]+)==(.*(?:\n    --hash.*)+)", (PROJECT / name).read_text(encoding="utf-8"), re.MULTILINE
    )
    return {package: " ".join(re.findall(r"^\S+|sha256:\w+", pin)) for package, pin in found}


def test_the_image_holds_the_packages_that_the_tests_run_with() -> None:
    image, tested = locked("deploy/requirements.lock"), locked("requirements.lock")
    assert {name: tested.get(name) for name in image} == image
    wanted = {Requirement(text).name for text in requires("merchant-usage") or () if "extra ==" not in text}
    assert wanted <= set(image)


def test_what_the_image_is_built_from_is_enough(tmp_path: Path) -> None:
    """Docker's ignore file keeps all but these from the build."""
    for name in re.findall("^!(.+)", read("Dockerfile.dockerignore"), re.MULTILINE):
        source, target = PROJECT / name, tmp_path / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    build = (UV, "build", "--quiet", "--offline", "--wheel", "--no-build-isolation", "--python", sys.executable)
    done = call(*build, "--out-dir", tmp_path, tmp_path / "src")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("*.whl")] == [f"merchant_usage-{__version__}-py3-none-any.whl"]
    assert (tmp_path / "src" / "deploy" / "requirements.lock").exists(), "pip installs these"


# Kubernetes


# From the version on in which a policy of failed pods is more than an experiment.
@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_the_cron_job_is_what_kubernetes_takes(version: str) -> None:
    kubernetes_validate.validate(cron_job(), version, strict=True)


def test_the_validator_of_kubernetes_sees_a_mistake() -> None:
    document = cron_job()
    document["spec"]["jobTemplate"]["spec"]["backofLimit"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_the_pod_may_do_nothing_but_its_work() -> None:
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["restartPolicy"] == "Never", "what a policy of failed pods takes"
    assert cron_job()["spec"]["concurrencyPolicy"] == "Forbid"


# AWS


def problems(service: str, operation: str, parameters: Any) -> str:
    """What AWS' own description of a request has against it."""
    model = ServiceModel(Loader().load_service_model(service, "service-2"))
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    return str(ParamValidator().validate(parameters, shape).generate_report())


REQUESTS = [
    ("ecs", "RegisterTaskDefinition", "task-definition"),
    ("events", "PutRule", "rule"),
    ("events", "PutTargets", "targets"),
]


@pytest.mark.parametrize(("service", "operation", "name"), REQUESTS)
def test_the_request_is_what_aws_takes(service: str, operation: str, name: str) -> None:
    assert problems(service, operation, json.loads(read(f"aws/{name}.json"))) == ""


def test_the_validator_of_aws_sees_a_mistake() -> None:
    document = json.loads(read("aws/task-definition.json"))
    document["containerDefinitions"][0]["comand"] = ["aggregate"]
    assert 'Unknown parameter in containerDefinitions[0]: "comand"' in problems(
        "ecs", "RegisterTaskDefinition", document
    )


def test_the_rule_starts_the_task_every_hour() -> None:
    rule, targets = json.loads(read("aws/rule.json")), json.loads(read("aws/targets.json"))
    family = json.loads(read("aws/task-definition.json"))["family"]
    (target,) = targets["Targets"]
    assert targets["Rule"] == rule["Name"]
    assert target["EcsParameters"]["TaskDefinitionArn"].endswith(f":task-definition/{family}")
    assert re.fullmatch(r"cron\(\d+ \* \* \* \? \*\)", rule["ScheduleExpression"])


CALL = """\
import json, sys, lambda_function

class Context:
    def get_remaining_time_in_millis(self):
        return int(sys.argv[1])

print(json.dumps(lambda_function.handler({"source": "aws.events"}, Context())))
"""


def start_function(environ: dict[str, str], seconds: float) -> subprocess.Popen[str]:
    """Lambda as the function sees it: its folder, the environment, an event, and how long it may take."""
    command: list[str | Path] = [sys.executable, "-W", "error", "-c", CALL, str(int(seconds * 1000))]
    python = {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
    return start(command, DEPLOY / "aws", {**environ, **python})


def answer(process: subprocess.Popen[str]) -> tuple[int, Any, str]:
    """The status code, the body and the log."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    answered = json.loads(out)
    assert set(answered) == {"statusCode", "body"}
    return answered["statusCode"], json.loads(answered["body"]), err


def test_the_function_aggregates_what_is_due(usage: Usage, environ: dict[str, str]) -> None:
    usage.write({COUNTER: 5})
    code, body, _ = answer(start_function(environ, 900))
    assert code == 200
    assert body["error"] is None
    assert [row["verdict"] for row in body["dates"] if row["usage_date"] == str(COUNTER.date)] == ["verified"]
    assert usage.rows() == {COUNTER: 5}


def test_the_function_ends_before_its_time_limit_and_the_next_call_does_the_rest(
    usage: Usage, environ: dict[str, str], connect: Connect
) -> None:
    usage.write({COUNTER: 5})
    with held_up(usage, connect) as wait_for_one:
        process = start_function(environ, 5)
        wait_for_one()
        code, body, err = answer(process)
    assert code == 504
    assert body == {
        "error": "Stopped after 4 s, because the function's time limit was near: not all that is due is verified. "
        "What was stored stays; the next call does the rest."
    }
    assert f"error: {body['error']}" in err.splitlines(), "the log has it too"
    assert usage.rows() == {}
    noted = usage.conn.execute("SELECT DISTINCT verdict, error FROM usage_run").fetchall()
    assert noted == [(None, "interrupted")], "and the ledger"
    code, body, err = answer(start_function(environ, 900))
    assert (code, body["error"]) == (200, None)
    assert usage.rows() == {COUNTER: 5}


def test_the_function_says_which_server_is_away(environ: dict[str, str]) -> None:
    away = {**environ, "USAGE_POSTGRES_URL": "postgresql://usage@127.0.0.1:1/none"}
    code, body, _ = answer(start_function(away, 900))
    assert code == 503
    assert "PostgreSQL" in body["error"]


def test_the_function_says_what_it_is_not_told() -> None:
    code, body, _ = answer(start_function({}, 900))
    assert code == 500
    assert "USAGE_REDIS_URL is not set" in body["error"]


def test_the_function_says_what_is_wrong(usage: Usage, environ: dict[str, str]) -> None:
    usage.write({COUNTER: 5})
    answer(start_function(environ, 900))
    usage.write({COUNTER: 3})
    code, body, _ = answer(start_function(environ, 900))
    assert code == 500
    assert "went backwards" in body["error"]
    assert usage.rows() == {COUNTER: 5}


# systemd and cron


@pytest.mark.parametrize(
    ("name", "sections"),
    [("merchant-usage.service", {"Unit", "Service"}), ("merchant-usage.timer", {"Unit", "Timer", "Install"})],
)
def test_the_units_are_what_systemd_takes(tmp_path: Path, name: str, sections: set[str]) -> None:
    """By systemd itself where it is, else by the form of a unit alone."""
    assert set(unit(name).sections()) == sections
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    for path in (DEPLOY / "systemd").iterdir():
        # It looks for the program, too.
        text = path.read_text(encoding="utf-8").replace(INSTALLED, str(PROGRAM))
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    done = subprocess.run([analyze, "verify", tmp_path / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_ends_and_tries_again_what_can_heal() -> None:
    service = unit("merchant-usage.service")["Service"]
    assert service["Type"] == "oneshot"
    assert service["EnvironmentFile"] == ENVIRONMENT_FILE
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "1 2")


@pytest.fixture
def environment_file(environ: dict[str, str], tmp_path: Path) -> Path:
    """The file of deploy/ with this test's servers in it."""
    text = read("merchant-usage.env")
    for name, value in environ.items():
        text, found = re.subn(f"^{name}='.*'$", f"{name}='{value}'", text, flags=re.MULTILINE)
        assert found == 1
    path = tmp_path / "merchant-usage.env"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("times", [lambda: cron_line()[0], lambda: cron_job()["spec"]["schedule"]])
def test_it_is_every_hour_in_cron_s_words(times: Callable[[], str]) -> None:
    assert re.fullmatch(r"\d+ \* \* \* \*", times())
    assert croniter.is_valid(times(), strict=True)


def test_the_line_of_cron_is_one_that_cron_takes() -> None:
    text = read("cron/merchant-usage")
    assert text.endswith("\n"), "cron passes over a line that does not end"
    _, user, command = cron_line()
    assert re.fullmatch("[a-z][a-z-]*", user)
    assert "%" not in command, "cron's end of line"
    others = [line for line in text.splitlines() if line and not line.startswith("#") and not line.endswith(command)]
    assert others == ["SHELL=/bin/sh"]


def test_the_line_of_cron_aggregates_what_is_due(usage: Usage, environment_file: Path, tmp_path: Path) -> None:
    usage.write({COUNTER: 5})
    logger = tmp_path / "logger"
    logger.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\nexec cat >> {tmp_path}/told\n', encoding="utf-8")
    logger.chmod(0o755)
    command = cron_line()[2].replace(ENVIRONMENT_FILE, str(environment_file)).replace(INSTALLED, str(PROGRAM))
    environ = {"PATH": f"{tmp_path}:{os.defpath}"}
    subprocess.run(["/bin/sh", "-c", command], env=environ, cwd="/", check=True, timeout=SECONDS)
    first, *told = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
    assert first == "-t merchant-usage"
    assert any(f"{COUNTER.date} | verified" in line for line in told)
    assert usage.rows() == {COUNTER: 5}


def test_systemd_and_a_shell_read_the_same_from_the_environment_file() -> None:
    lines = [line for line in read("merchant-usage.env").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch("USAGE_[A-Z_]+='[^'\\\\]*'", line) for line in lines)
