"""Runs one command and answers with its exit code. The drivers are not loaded before they are needed."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from merchant_usage.cli.output import complain, log_to_stderr, say_json
from merchant_usage.cli.parser import build_parser
from merchant_usage.errors import (
    PostgresRefused,
    PostgresUnavailable,
    RedisRefused,
    RedisUnavailable,
    SchemaError,
    SettingsError,
    UsageError,
)

# What a shell says of a program that Ctrl-C ended, and of one whose reader went away (128 and the signal's number).
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # an id may hold what the terminal's encoding lacks
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes both once more at its end, and would complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())
        return PIPE_CLOSED
    return code


def _run(arguments: Sequence[str] | None) -> int:
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        options = build_parser().parse_args(arguments)
        command = _command(options)
        log_to_stderr()
        return command(options)
    except SystemExit:  # argparse, after --help
        return 0
    except UsageError as error:
        complain(str(error))
        if as_json:
            say_json({"error": str(error)})
        return exit_code(error)


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """The function behind a command, loaded only now: the drivers take longer to import than `--help` to print."""
    module, _, function = options.command.partition(":")
    command: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"merchant_usage.cli.{module}"), function
    )
    return command


def exit_code(error: UsageError) -> int:
    """The exit code for an error, as `--help` has it."""
    if isinstance(error, RedisUnavailable | RedisRefused | PostgresUnavailable | PostgresRefused):
        return 3
    return 2 if isinstance(error, SettingsError | SchemaError) else 1
