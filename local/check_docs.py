"""Looks at the built site, and at the Markdown files beside it: do all links lead somewhere, and is nothing fetched?

    python -m local.check_docs .local/docs/site

Sphinx checks the links that it makes; this checks what has come out, whoever made it: each address and anchor, the
links from README.md and its like into docs/, and that no page loads a script, style, font or image from another host.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

PROJECT: Final = Path(__file__).resolve().parent.parent
# Markdown that people read where the project lies; it is no part of the site.
BESIDE: Final = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")

# Attributes by which a browser fetches something as soon as it shows a page. A link is only followed by a person.
FETCHING: Final = {"src", "srcset", "data", "poster", "background", "formaction", "xlink:href"}
FETCHING_TAGS: Final = {"link", "use", "image"}  # whose href is fetched
_IN_CSS: Final = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])([^"')\s]+)""")
_IN_MARKDOWN: Final = re.compile(r"\]\(([^()\s]+)\)")


@dataclass
class Page(HTMLParser):
    """What a page names: the anchors in it, where its links lead, and what it fetches."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the parser ready."""
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take up what a tag names."""
        for name, value in attrs:
            if not value:
                continue
            if name == "id":
                self.anchors.add(value)
            if name == "href" and tag == "a":
                self.links.append(value)
            if name in FETCHING or (name == "href" and tag in FETCHING_TAGS):
                self.fetched.append(value)
            if name == "style":
                self.fetched += _IN_CSS.findall(value)


def read_page(path: Path) -> Page:
    """Take a page apart."""
    page = Page()
    text = path.read_text(encoding="utf-8")
    page.feed(text)
    for style in re.findall(r"<style.*?>(.*?)</style>", text, re.DOTALL):
        page.fetched += _IN_CSS.findall(style)
    return page


def is_elsewhere(address: str) -> bool:
    """Whether an address leads to another host."""
    parts = urlsplit(address.strip())
    return bool(parts.netloc) or parts.scheme in {"http", "https", "ftp", "ws", "wss"}


def fetched_from_elsewhere(site: Path) -> Iterator[str]:
    """What the pages of a site fetch from other hosts, as sentences."""
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            fetched = read_page(path).fetched
        elif path.suffix in {".css", ".svg"}:
            text = path.read_text(encoding="utf-8")
            fetched = _IN_CSS.findall(text)
        else:
            continue
        yield from (f"{path.relative_to(site)} fetches {address}" for address in fetched if is_elsewhere(address))


def broken_links(site: Path) -> Iterator[str]:
    """The links within a site that lead nowhere, as sentences."""
    pages = {path: read_page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme or is_elsewhere(link):
                continue
            address = urlsplit(link)
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            if not target.exists() or (address.fragment and not _has_anchor(pages, target, address.fragment)):
                yield f"{path.relative_to(site)} links to {link}, which is not there"


def broken_links_beside(site: Path, project: Path, names: Iterable[str] = BESIDE) -> Iterator[str]:
    """The links of Markdown files in a project's root that lead nowhere, as sentences. docs/ is known by its site."""
    pages = {path: read_page(path) for path in site.rglob("*.html")}
    for name in names:
        path = project / name
        for link in _IN_MARKDOWN.findall(path.read_text(encoding="utf-8")):
            address = urlsplit(link)
            if address.scheme or not address.path:
                continue
            target = project / unquote(address.path)
            page = (site / target.relative_to(project / "docs")).with_suffix(".html") if "docs/" in link else target
            if not target.exists() or (address.fragment and not _has_anchor(pages, page, address.fragment)):
                yield f"{name} links to {link}, which is not there"


def _has_anchor(pages: dict[Path, Page], target: Path, anchor: str) -> bool:
    page = pages.get(target)
    return page is not None and unquote(anchor) in page.anchors


def main(arguments: Sequence[str]) -> int:
    """Check a built site. Returns 1 if anything is wrong with it."""
    site = Path(arguments[0]).resolve()
    wrong = [*fetched_from_elsewhere(site), *broken_links(site), *broken_links_beside(site, PROJECT)]
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
