"""Takes the README's picture anew: a verified run in Airflow, as `./run demo` leaves it.

    ./run screenshot

Starts the demo, waits until every run was verified, and lets a Chromium of this machine open the page of the run that
was triggered by hand. (./run fetches one if there is none; another one is named by CHROMIUM.)
"""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page

from local.browser import find_chromium
from local.driver import driven

PROJECT: Final = Path(__file__).resolve().parent.parent
PICTURE: Final = PROJECT / "docs" / "images" / "verified-run.png"
# Narrow enough for its text to be read where a README is shown.
WIDTH, HEIGHT = 1320, 640
# How Airflow's UI remembers the widths of its two halves, in percent: all bars of the grid are to be seen.
HALVES: Final = """
    localStorage.setItem('react-resizable-panels:grid-ltr',
        '{"details-panel,main-panel":{"expandToSizes":{},"layout":[22,78]}}')
"""
# A user interface has few colours: with these the file is a third of the size, and looks the same.
COLOURS: Final = 128
MOST_BYTES: Final = 150_000


@contextmanager
def verified_demo() -> Iterator[str]:
    """The address of the DAG in a demo whose runs were all verified."""
    with subprocess.Popen([PROJECT / "run", "demo"], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        verified = False
        try:
            for line in demo.stdout:
                print(line, end="")
                verified = verified or "Every run was verified." in line
                if address := re.search(r"Look around: (\S+)", line):
                    if not verified:
                        sys.exit("screenshot: not every run was verified.")
                    yield address[1]
                    return
        finally:
            demo.send_signal(signal.SIGINT)
            demo.stdout.read()
    sys.exit("screenshot: the demo ended before its runs were verified.")


def take(page: Page, dag: str) -> bytes:
    """The picture of the newest run by hand, with its tasks in the order in which they began."""
    page.add_init_script(HALVES)
    page.goto(f"{dag}/runs?run_type=manual")
    page.get_by_role("link", name=re.compile("^manual__")).first.click()
    page.get_by_role("button", name="sort").filter(has_text="Start Date").click()
    page.get_by_text(re.compile("verified, Redis")).wait_for()
    page.locator("tbody tr").first.get_by_role("link", name="scan_usage").wait_for()
    page.wait_for_load_state("networkidle")
    return bytes(page.screenshot())


def main() -> int:
    """Take it, and keep it small."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("screenshot: no Chromium found; install one, or name it in CHROMIUM.")
    with verified_demo() as dag, driven(chromium) as browser:
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, locale="en-US", timezone_id="UTC", color_scheme="light"
        )
        picture = take(page, dag)
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS).save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    print(f"{PICTURE.relative_to(PROJECT)}: {size:,} bytes")
    return int(size > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
