"""Starts a Chromium that a program drives, without a window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from local.browser import Chromium


@contextmanager
def driven(chromium: Chromium) -> Iterator[Browser]:
    """The browser while a block lasts. No event loop of another library can run in this thread meanwhile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.program,
            # As root Chromium runs only without its sandbox; it opens nothing but this machine's pages.
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
            env={**os.environ, **chromium.environment},
        )
        try:
            yield browser
        finally:
            browser.close()
