"""What a browser would see of a page: its links, its elements, its text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

from fastapi.testclient import TestClient

#: What a page of ours has none of but in its head.
SCRIPTS: Final = [{"src": "static/usage.js", "defer": None}]


class Answer(Protocol):
    """What was answered."""

    @property
    def status_code(self) -> int:
        """200, 404 ..."""

    @property
    def text(self) -> str:
        """The page."""


class Seen(HTMLParser):
    """A page as it is parsed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.status = answer.status_code
        self.links: list[str] = []
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[dict[str, str | None]] = []
        self._text: list[str] = []
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        if tag in {"td", "th", "tr", "dt", "dd", "li", "text", "title"}:
            self._text.append(" ")
        given = dict(attrs)
        self.attributes.update(given)
        if tag == "script":
            self.scripts.append(given)
        if tag == "a":
            self.links.append(given.get("href") or "")

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    @property
    def text(self) -> str:
        """All that can be read, with single spaces."""
        return " ".join("".join(self._text).split())

    def to(self, page: str) -> list[dict[str, str]]:
        """What the links to a page ask for."""
        return [query_of(link) for link in self.links if urlsplit(link).path == page]

    def link_with(self, word: str, **query: str) -> str:
        """The first link to a page that asks for all of this."""
        return next(
            link for link in self.links if urlsplit(link).path == word and query.items() <= query_of(link).items()
        )

    def assert_harmless(self) -> None:
        """Whatever ids are on it, it has no element and no attribute but ours."""
        assert self.scripts == SCRIPTS
        assert not self.names & {"img", "iframe", "style", "object", "b", "base"}
        assert not [name for name in self.attributes if name.startswith("on") or name == "style"]


def query_of(link: str) -> dict[str, str]:
    """What a link asks for."""
    return {name: values[0] for name, values in parse_qs(urlsplit(link).query, keep_blank_values=True).items()}


def look(site: TestClient, page: str, **query: object) -> Seen:
    """A page as a browser asks for it."""
    return Seen(site.get(f"/{page}", params={name: str(value) for name, value in query.items()}))
