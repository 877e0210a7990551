"""Takes the pictures of the usage page in the docs anew, of the made-up month of the demo.

`./run pictures` takes those of the docs, in light and dark; `./run pictures FOLDER` every view at three widths.
"""

from __future__ import annotations

import datetime as dt
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal
from urllib.parse import urlencode

import psycopg
from PIL import Image
from playwright.sync_api import Browser

from local.airflow_environment import INHERITED, PROJECT
from local.browser import find_chromium
from local.demo import past
from local.driver import driven
from local.servers import Postgres, Valkey
from merchant_usage import clock
from merchant_usage.connections import POSTGRES_URL, REDIS_URL
from merchant_usage.sink import schema

PICTURES: Final = PROJECT / "docs" / "images" / "page"
# Narrow enough for its text to be read where the docs show it, and no longer than a screen or two.
WIDTH, HEIGHT = 1000, 1000
# A user interface has few colours.
COLOURS: Final = 64
MOST_BYTES: Final = 120_000
#: A telephone's, a tablet's and a desk's.
WIDTHS: Final = (360, 768, 1280)
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


@contextmanager
def month_served() -> Iterator[tuple[str, dt.date]]:
    """The page's address, and the last day of a month that was made up for it."""
    until = clock.now().replace(minute=0, second=0, microsecond=0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="usage-pictures-"))).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        postgres = stack.enter_context(Postgres(folder / "postgres", settings={"fsync": "off"}))
        with psycopg.connect(postgres.url, autocommit=True) as conn:
            schema.migrate(conn)
        environment = {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PYTHONPATH": str(PROJECT),
            REDIS_URL: valkey.url,
            POSTGRES_URL: postgres.url,
        }
        subprocess.run(
            [sys.executable, "-m", past.__name__, until.isoformat()],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        yield stack.enter_context(_page_served(environment)), until.date()


@contextmanager
def _page_served(environment: Mapping[str, str]) -> Iterator[str]:
    command = [sys.executable, "-m", "merchant_usage", "page", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield f"{server.stdout.readline().strip()}/"
        finally:
            server.terminate()


def views(last: dt.date) -> dict[str, str]:
    """What is shown, by the names of its pictures."""
    spike, waits, decided = (event.key(last) for event in (past.SPIKE, past.FELL_AND_WAITS, past.FELL_AND_WAS_DECIDED))

    def of(page: str, **query: object) -> str:
        return f"{page}?{urlencode(query)}"

    return {
        "overview": "",
        "date": of("date", date=waits.date),
        "merchants": "merchants",
        "merchant": of("merchant", merchant=spike.merchant_id, metric=spike.metric_type, date=spike.date),
        "explain": of("explain", merchant=decided.merchant_id, date=decided.date, metric=decided.metric_type),
        "letters": "letters",
        "decisions": "decisions",
    }


def take(browser: Browser, address: str, scheme: Literal["light", "dark"], width: int, **options: Any) -> Image.Image:
    """The picture of a view."""
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, locale="en-US", color_scheme=scheme)
    page.goto(address)
    picture = page.screenshot(**options)
    page.close()
    return Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS)


def main() -> int:
    """Take them, and keep those of the docs small."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("pictures: no Chromium found; install one, or name it in CHROMIUM.")
    to_look_at = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    folder = to_look_at or PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    largest = 0
    with month_served() as (root, last), driven(chromium) as browser:
        for name, view in views(last).items():
            for scheme in SCHEMES:
                for width in WIDTHS if to_look_at else (WIDTH,):
                    file = folder / (f"{name}-{width}-{scheme}.png" if to_look_at else f"{name}-{scheme}.png")
                    take(browser, root + view, scheme, width, full_page=bool(to_look_at)).save(file, optimize=True)
                    print(f"{file}: {file.stat().st_size:,} bytes")
                    largest = max(largest, file.stat().st_size)
    return int(not to_look_at and largest > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
