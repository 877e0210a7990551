"""AWS Lambda: every hour, what is due. The handler is `lambda_function.handler`; the environment holds the settings.

A call answers as a web server would, whatever happened: `{"statusCode": 200, "body": "..."}`, the body being the JSON
of `merchant-usage aggregate --due --json`. A call that nears the function's time limit stops and says so; what was
stored stays, and the next call does the rest. Calls at once do no harm.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any, Final, Protocol

from merchant_usage.cli.exit_codes import DONE, INTERRUPTED, NO_SERVER
from merchant_usage.cli.main import main
from merchant_usage.cli.output import complain

# By exit code; all others are a 500.
STATUS_CODES: Final = {DONE: 200, NO_SERVER: 503, INTERRUPTED: 504}
# What is left to take back the statement under way, close the connections and answer; of a short limit, a fifth.
MARGIN_SECONDS: Final = 10


class LambdaContext(Protocol):
    """What is used of what Lambda hands over."""

    def get_remaining_time_in_millis(self) -> int:
        """How long the call may still take, in milliseconds."""


def handler(_event: object, context: LambdaContext) -> dict[str, Any]:
    """Aggregate what is due, as far as the time limit allows.

    Returns:
        `statusCode`: 200 verified, 500 wrong or badly set up, 503 a server cannot be reached, 504 too little time.
        `body`: a JSON document with `error`, null for 200, and of a run that came to an end `run_id` and `dates`.
    """
    seconds = context.get_remaining_time_in_millis() / 1000
    seconds -= min(MARGIN_SECONDS, seconds / 5)
    said = StringIO()
    try:
        with _interrupted_after(seconds), redirect_stdout(said):
            code = main(["aggregate", "--due", "--json"])
    except KeyboardInterrupt:  # in the moment between the end of the work and that of the alarm
        code = INTERRUPTED
    body = said.getvalue()
    if code == INTERRUPTED:
        body = json.dumps({"error": _say_too_short(seconds)})
    return {"statusCode": STATUS_CODES.get(code, 500), "body": body}


def _say_too_short(seconds: float) -> str:
    problem = (
        f"Stopped after {seconds:.0f} s, because the function's time limit was near: not all that is due is verified. "
        "What was stored stays; the next call does the rest."
    )
    complain(problem)
    return problem


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """What Ctrl-C does, after a time: the statement under way is cancelled, its transaction rolled back."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
