"""Runs the command line in forks of one process that has imported it: a command then takes no second to begin.

    with CommandServer() as server:
        code, out, err = server.run(["status"], {"USAGE_REDIS_URL": ...}, folder)

Started as `python -W error -m tests.command_server`, it takes a request a line on stdin, and answers with an exit code.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.support import PROJECT

#: What a command imports when it is needed.
PRELOADED = ("commands", "output", "parser", "remedies", "status")
SECONDS = 60


class CommandServer:
    """The other side of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.command_server"],
            cwd=PROJECT,
            env={name: value for name, value in os.environ.items() if not name.startswith("USAGE_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=SECONDS)

    def run(self, arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
        """Run one command.

        Args:
            environ: besides what this process has.
            folder: for what it says.

        Returns:
            The exit code, and all of stdout and of stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = folder / "stdout", folder / "stderr"
        request = {"arguments": [*arguments], "environ": dict(environ), "out": str(out), "err": str(err)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server has ended"
        return int(answer), out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


def _run_here(request: Mapping[str, Any]) -> None:
    """As a new process would: with its own environment, stdout and stderr. Does not return."""
    from merchant_usage.cli.main import main

    signal.alarm(SECONDS)
    os.environ.update(request["environ"])
    for number, name in ((1, "out"), (2, "err")):
        with Path(request[name]).open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdin = io.StringIO()
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8", line_buffering=True)
    sys.argv = ["merchant-usage", *request["arguments"]]
    code = 70  # as sysexits has it: an error of the program itself
    try:
        code = main()
    except BaseException:  # noqa: BLE001 - Python would show it, and end
        sys.excepthook(*sys.exc_info())
        code = 1
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Answer until stdin ends."""
    for module in PRELOADED:
        importlib.import_module(f"merchant_usage.cli.{module}")
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _run_here(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
