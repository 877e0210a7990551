"""`page`: serves the usage page to this machine, for people without Airflow 3."""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Final

from merchant_usage.cli.output import remark, say
from merchant_usage.connections import check_page_url
from merchant_usage.errors import NAME, SettingsError

#: Nobody beyond this machine can reach it: there is no login.
HOST: Final = "127.0.0.1"
#: What pyproject.toml has for `page`, by the names they are imported by.
NEEDED: Final = ("fastapi", "jinja2", "uvicorn")


def page(options: argparse.Namespace) -> int:
    """Serve the page until that is ended."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise SettingsError(f"The usage page needs {', '.join(missing)}: pip install '{NAME}[page]'")
    check_page_url()
    from merchant_usage.page.alone import serve  # which is not there without these

    with _listening(options.port) as listening:
        say(f"http://{HOST}:{listening.getsockname()[1]}")
        sys.stdout.flush()
        remark("The usage page, read only. Whoever is on this machine can look. Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):  # SIGTERM too: it was asked for, and all is in order
            serve(listening)
        remark("Ended.")
    return 0


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise SettingsError(f"--port={port} {why}: give another one, or none for any that is free.") from None
