"""Renders an alert for Slack (Block Kit). Pure.

Everything that may hold somebody's data goes into `plain_text`, which Slack shows as it is: no link, no `<!channel>`,
no *bold*. The only `mrkdwn` is a link whose address is percent-encoded and whose label is ours.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from merchant_usage.alerts.alert import AlertKind, Discrepancy, Gap
from merchant_usage.alerts.register import WINDOW, Notification
from merchant_usage.model.dates import format_dates
from merchant_usage.text import Place, escape, printable, safe, shown

# Slack's limits, in UTF-16 units as its editors count; a message that breaks one is refused as a whole.
MAX_HEADER: Final = 150
MAX_SECTION: Final = 3000
MAX_BLOCKS: Final = 50
MAX_LINK: Final = 2000
# More than this nobody reads in a message.
MAX_MERCHANTS_SHOWN: Final = 20
LONGEST_ID: Final = 60


def render(notification: Notification) -> dict[str, Any]:
    """The body of the request to the webhook: the blocks, and the text that a notification shows."""
    alert = notification.alert
    sections = [
        alert.what,
        _discrepancy(alert.discrepancy),
        f"Error: {alert.error}" if alert.error else "",
        f"To do: {alert.advice}" if alert.advice else "",
        alert.command or "",
        f"Then decide:\n{alert.decisions}" if alert.decisions else "",
    ]
    title = _title(notification)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(title, MAX_HEADER)}]
    blocks += [{"type": "section", "text": _plain(text, MAX_SECTION)} for text in sections if text]
    if alert.link and (link := _link(*alert.link)):
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": link, "verbatim": True}})
    if notification.left_out:
        left_out = (
            f"{notification.left_out:,} more of this kind were not told one by one: there are few of a kind in "
            f"{WINDOW.total_seconds() / 3600:.0f} hours."
        )
        blocks.append({"type": "context", "elements": [_plain(left_out, MAX_SECTION)]})
    # What a notification shows. Slack would read it as mrkdwn.
    return {"text": _fitting(title, MAX_SECTION), "mrkdwn": False, "unfurl_links": False, "blocks": blocks}


def _title(notification: Notification) -> str:
    if notification.alert.kind is AlertKind.STILL_FAILING:
        return escape(
            f"Still failing, {notification.in_a_row:,} runs in a row: {format_dates(notification.alert.dates)}"
        )
    return escape(notification.alert.title)


def _discrepancy(discrepancy: Discrepancy) -> str:
    if not discrepancy.counters:
        return ""
    shown_gaps = discrepancy.gaps[:MAX_MERCHANTS_SHOWN]
    lines = [_gap(gap) for gap in shown_gaps]
    least = "at least " if discrepancy.at_least else ""
    if discrepancy.merchants > len(shown_gaps):
        lines.append(f"and {least}{discrepancy.merchants - len(shown_gaps):,} more")
    lines.append(
        f"In all {discrepancy.counters:,} counter(s) of {least}{discrepancy.merchants:,} merchant(s): "
        f"{_how_far(discrepancy.behind, least)}."
    )
    return "\n".join(lines)


def _gap(gap: Gap) -> str:
    merchant = shown(gap.merchant_id, LONGEST_ID)
    return f"{merchant}: Redis {gap.redis:,}, PostgreSQL {gap.postgres:,}, {_how_far(gap.behind)}"


def _how_far(behind: int, least: str = "") -> str:
    return f"PostgreSQL is behind by {least}{behind:,}" if behind >= 0 else f"Redis is lower by {least}{-behind:,}"


def _plain(text: str, longest: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": _fitting(text, longest), "emoji": False}


def _fitting(text: str, longest: int) -> str:
    """Escaped as Slack asks for, control characters spelt out, and cut to what it takes, never within an entity."""
    pieces: list[str] = []
    length = 0
    for character in printable(text):
        piece = character if character == "\n" else safe(character, Place.SLACK)
        length += len(piece) if len(piece) > 1 else 1 + (character > "\uffff")
        if length > longest:
            return _cut(pieces, longest)
        pieces.append(piece)
    return "".join(pieces) or " "


def _cut(pieces: list[str], longest: int) -> str:
    """One unit is needed for the ellipsis."""
    while pieces and _units("".join(pieces)) > longest - 1:
        pieces.pop()
    return "".join(pieces) + "…"


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def _link(label: str, address: str) -> str | None:
    # What would end the link, or begin markup, is encoded; what is encoded already stays.
    safe = quote(address, safe="%/:?#[]@!$'()+,;=-._~&", errors="replace").replace("&", "&amp;")
    return f"<{safe}|{label}>" if address.startswith(("http://", "https://")) and len(safe) <= MAX_LINK else None
