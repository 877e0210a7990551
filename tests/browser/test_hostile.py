"""Whatever an id holds is text on every view: never HTML, script, style or an address."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

from playwright.sync_api import Page, expect

from merchant_usage.text import escape, shown
from tests.browser.pages import walk
from tests.browser.watched import Watch
from tests.hostile import HOSTILE
from tests.support import YESTERDAY

# Elements that we never make, and what would make one of ours do more than show and link.
INJECTED = """
() => [...document.querySelectorAll('*')].filter(each =>
    ['IMG', 'IFRAME', 'OBJECT', 'EMBED', 'BASE', 'STYLE', 'AUDIO', 'VIDEO', 'CENTER'].includes(each.tagName)
    || (each.tagName === 'SCRIPT' && (each.src !== new URL('static/usage.js', location).href || each.textContent))
    || [...each.attributes].some(one => one.name.startsWith('on') || one.name === 'style' || one.name === 'srcdoc')
    || (typeof each.href === 'string' && !each.href.startsWith(new URL('.', location).href))
).map(each => each.outerHTML.slice(0, 200))
"""


def query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def is_shown(page: Page, text: str) -> bool:
    """Whether the page's text holds this, to the letter."""
    return text in page.locator("body").text_content()  # type: ignore[operator]


def test_no_view_has_more_in_it_than_we_made(page: Page, site: str) -> None:
    for address in walk(page, site):
        assert page.evaluate(INJECTED) == [], address


def test_each_id_is_found_shown_and_followed_to_the_letter(page: Page, site: str) -> None:
    for merchant in HOSTILE:
        page.goto(f"{site}merchants?{urlencode({'begins': merchant})}")
        assert page.evaluate(INJECTED) == [], merchant
        row = page.get_by_role("row").filter(has_text="exactly this")
        link = row.get_by_role("rowheader").get_by_role("link")
        assert link.text_content() == shown(merchant, 80)
        link.click()
        page.wait_for_url("**/merchant?*")
        assert query(page.url) == {"merchant": merchant}
        assert page.evaluate(INJECTED) == [], merchant
        heading = page.get_by_role("heading", level=1)
        assert heading.text_content() == f"Usage of {shown(merchant, 80)}"
        page.goto(f"{site}explain?{urlencode({'merchant': merchant, 'date': YESTERDAY})}")
        assert page.evaluate(INJECTED) == [], merchant
        assert is_shown(page, shown(merchant, 80))


def test_what_is_asked_for_is_text_too(page: Page, site: str) -> None:
    for begins in ("<img src=x onerror=alert(1)>", "</title><script>alert(1)</script>", "\u202e", "{{ 7 * 7 }}"):
        page.goto(f"{site}merchants?{urlencode({'begins': begins})}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.evaluate(INJECTED) == []
        assert is_shown(page, shown(begins, 40))


def test_a_reason_and_a_bad_value_are_text_too(page: Page, site: str) -> None:
    page.goto(f"{site}date?{urlencode({'date': YESTERDAY})}")
    assert page.evaluate(INJECTED) == []
    assert is_shown(page, escape("<script>alert(1)</script>"))


def test_it_would_be_noticed(page: Page, watch: Watch, site: str) -> None:
    page.goto(site)
    for wrong in ("<img alt=''>", "<p style='color: red'>", "<a href='javascript:alert(1)'>", "<p onclick='x()'>"):
        page.evaluate("html => document.body.innerHTML = html", wrong)
        assert page.evaluate(INJECTED) != [], wrong
    page.evaluate("document.body.firstChild.click()")
    # The policy lets none of it do anything.
    said = [problem for problem in watch.problems if "Content Security Policy" in problem]
    assert len(said) == len(watch.problems) >= 2
    watch.problems.clear()
