"""The exit codes, as `--help` has them."""

from __future__ import annotations

from typing import Final

from merchant_usage.errors import (
    PostgresRefused,
    PostgresUnavailable,
    RedisRefused,
    RedisUnavailable,
    SchemaError,
    SettingsError,
    UsageError,
)

DONE: Final = 0
#: A date is not as it should be, or a merchant could not be stored.
WRONG: Final = 1
BAD_REQUEST: Final = 2
NO_SERVER: Final = 3
# What a shell says of a program that Ctrl-C ended, one that was told to end, and one whose reader went away: 128 and
# the signal's number.
INTERRUPTED: Final = 130
TERMINATED: Final = 143
PIPE_CLOSED: Final = 141


def exit_code(error: UsageError) -> int:
    """That of an error."""
    if isinstance(error, RedisUnavailable | RedisRefused | PostgresUnavailable | PostgresRefused):
        return NO_SERVER
    return BAD_REQUEST if isinstance(error, SettingsError | SchemaError) else WRONG
