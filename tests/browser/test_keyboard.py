"""The page without a mouse."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.pages import walk

# Year, month, day, and the button of the calendar.
PARTS = 4
# Numbers all that the keyboard has to reach, in the order in which it stands there; returns how many these are.
NUMBER = """
() => {
    const all = [...document.querySelectorAll(
        'a[href], button, input, select, textarea, summary, [tabindex="0"]'
    )].filter(each => each.checkVisibility() && !each.disabled && each.type !== 'hidden');
    all.forEach((each, number) => each.dataset.number = number);
    return all.length;
}
"""
# What has the keyboard now, and whether that can be seen.
FOCUSED = """
() => {
    const each = document.activeElement, style = getComputedStyle(each), place = each.getBoundingClientRect();
    const marked = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1;
    const within = place.bottom > 0 && place.right > 0 && place.top < innerHeight && place.left < innerWidth;
    return {number: each.dataset.number ?? null, marked, within, html: each.outerHTML.slice(0, 200)};
}
"""


def test_the_skip_link_comes_first_and_leads_to_the_content(page: Page, site: str) -> None:
    page.goto(site)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="To the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_tab_reaches_all_in_order_and_shows_where_it_is(page: Page, site: str) -> None:
    for address in walk(page, site):
        reached: list[str] = []
        all_of_them = [str(number) for number in range(page.evaluate(NUMBER))]
        # A date is reached part by part.
        for _ in range(PARTS * len(all_of_them)):
            page.keyboard.press("Tab")
            found = page.evaluate(FOCUSED)
            if found["number"] in {None, *reached[:-1]}:
                break
            if found["number"] in reached:
                # Within a date the browser marks the part.
                continue
            assert found["marked"], (address, found)
            assert found["within"], (address, found)
            reached.append(found["number"])
        assert reached == all_of_them, address
