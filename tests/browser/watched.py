"""Watches what a browser does beside showing a page: what it says, and whom it asks."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Request, Response, WebError


class Watch:
    """All that should not be: errors, broken rules of the Content-Security-Policy, dialogs, requests to other hosts."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        """Watch all pages of a context, whose every request has to go to one origin."""
        self._origin = urlsplit(origin)[:2]
        self.problems: list[str] = []
        self.requests: list[str] = []
        context.on("console", self._hear)
        context.on("weberror", self._fail)
        context.on("dialog", self._dismiss)
        context.on("request", self._ask)
        context.on("response", self._answer)

    def _hear(self, message: ConsoleMessage) -> None:
        # A broken rule of the policy is told here as an error, too.
        if message.type in {"error", "warning"}:
            self.problems.append(f"{message.type}: {message.text}")

    def _fail(self, error: WebError) -> None:
        self.problems.append(f"error: {error.error}")

    def _dismiss(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _ask(self, request: Request) -> None:
        self.requests.append(request.url)
        # What Airflow has made in the browser itself is named after where it came from.
        if urlsplit(request.url.removeprefix("blob:"))[:2] != self._origin:
            self.problems.append(f"asks another host: {request.url}")

    def _answer(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"status {response.status}: {response.url}")


def is_wider_than_the_screen(page: Page) -> bool:
    """Whether the page as a whole has to be scrolled sideways."""
    return bool(page.evaluate("document.scrollingElement.scrollWidth > document.scrollingElement.clientWidth"))
