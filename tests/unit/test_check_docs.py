"""What `./run docs` finds in a built site: links that lead nowhere, and what pages fetch from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.check_docs import broken_links, broken_links_beside, fetched_from_elsewhere


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two pages in which nothing is wrong, and a style."""
    site = tmp_path / "site"
    (site / "howto").mkdir(parents=True)
    (site / "style.css").write_text("body { background: url(paper.png) }")
    (site / "index.html").write_text(
        '<link rel="stylesheet" href="style.css?v=1"><h1 id="top">It</h1><a href="howto/one.html#part-two">one</a>'
        '<a href="https://example.org/">elsewhere</a><a href="#top">up</a><img src="data:image/png;base64,AA==">'
    )
    (site / "howto" / "one.html").write_text('<a href="../index.html">back</a><h2 id="part-two">Two</h2>')
    return site


def test_a_good_site_has_nothing_wrong(site: Path) -> None:
    assert [*broken_links(site), *fetched_from_elsewhere(site)] == []


@pytest.mark.parametrize(
    "link", ["nowhere.html", "howto/one.html#part-three", "#bottom", "howto/two.html#part-two", "../outside.html"]
)
def test_a_link_that_leads_nowhere_is_named(site: Path, link: str) -> None:
    (site / "bad.html").write_text(f'<a href="{link}">there</a>')
    assert list(broken_links(site)) == [f"bad.html links to {link}, which is not there"]


@pytest.mark.parametrize(
    "markup",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script src="//cdn.example/x.js"></script>',
        '<link rel="preload" href="https://cdn.example/x.js">',
        '<img src="https://cdn.example/x.js">',
        '<p style="background: url(https://cdn.example/x.js)">',
        "<style>@import 'https://cdn.example/x.js';</style>",
        '<iframe src="https://cdn.example/x.js"></iframe>',
    ],
)
def test_what_a_page_fetches_from_elsewhere_is_named(site: Path, markup: str) -> None:
    (site / "bad.html").write_text(markup)
    (found,) = fetched_from_elsewhere(site)
    assert found.startswith("bad.html fetches ")
    assert "//cdn.example/x.js" in found


def test_what_a_style_fetches_from_elsewhere_is_named(site: Path) -> None:
    (site / "style.css").write_text('@font-face { src: url("https://fonts.example/a.woff2") }')
    assert list(fetched_from_elsewhere(site)) == ["style.css fetches https://fonts.example/a.woff2"]


@pytest.mark.parametrize(
    ("link", "is_broken"),
    [
        ("docs/howto/one.md", False),
        ("docs/howto/one.md#part-two", False),
        ("docs/howto/one.md#part-three", True),
        ("docs/howto/two.md", True),
        ("LICENSE", False),
        ("NOTICE", True),
        ("https://example.org/", False),
    ],
)
def test_links_of_the_readme_are_followed_too(site: Path, tmp_path: Path, link: str, is_broken: bool) -> None:
    (tmp_path / "docs" / "howto").mkdir(parents=True)
    (tmp_path / "docs" / "howto" / "one.md").write_text("# One\n\n## Part two\n")
    (tmp_path / "LICENSE").write_text("as you like")
    (tmp_path / "README.md").write_text(f"[there]({link})")
    found = list(broken_links_beside(site, tmp_path, ["README.md"]))
    assert found == ([f"README.md links to {link}, which is not there"] if is_broken else [])
