"""Runs one command and answers with its exit code. The drivers are not loaded before they are needed."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from merchant_usage.cli.exit_codes import INTERRUPTED, PIPE_CLOSED, TERMINATED, exit_code
from merchant_usage.cli.output import complain, log_to_stderr, remark, say_json
from merchant_usage.cli.parser import build_parser
from merchant_usage.cli.remedies import remedies
from merchant_usage.errors import UsageError


class Terminated(KeyboardInterrupt):
    """The process is told to end, as a container is when it is stopped. Its first process would pass over that."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # an id may hold what the terminal's encoding lacks
        with _told_to_end():
            code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        remark(str(interrupt) or "Interrupted.")
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # Python flushes both once more at its end, and would complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())
        return PIPE_CLOSED
    return code


@contextmanager
def _told_to_end() -> Iterator[None]:
    """End as by Ctrl-C when that is asked for: what runs in PostgreSQL is cancelled, and the ledger is told."""

    def end(*_: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(arguments: Sequence[str] | None) -> int:
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        options = build_parser().parse_args(arguments)
        command = _command(options)
        log_to_stderr()
        return command(options)
    except SystemExit:  # argparse, after --help and --version
        return 0
    except UsageError as error:
        problem = error.with_remedy(remedies())
        complain(problem)
        if as_json:
            say_json({"error": problem})
        return exit_code(error)


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """The function behind a command, loaded only now: the drivers take longer to import than `--help` to print."""
    module, _, function = options.command.partition(":")
    command: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"merchant_usage.cli.{module}"), function
    )
    return command
