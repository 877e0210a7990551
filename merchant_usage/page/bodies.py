"""What a request that changes something must be: from a page of ours, in JSON, with just the fields that are known."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import Request

from merchant_usage.page.access import NotTaken
from merchant_usage.page.asked import date_of, merchant_of
from merchant_usage.steps.resolve import Decision
from merchant_usage.text import shown, storable

#: Bytes. A thousand merchants fit in.
LONGEST: Final = 65_536
#: Characters of a reason, as in the form of the DAG that asks people.
LONGEST_REASON: Final = 2000
#: The largest id of a row.
MAX_ID: Final = 2**63 - 1

Body = Mapping[str, Any]


def require_same_site(request: Request) -> None:
    """Refuse what another site's page has a browser send in the name of who is logged in.

    A browser says where a request comes from; what says nothing of it is none, and has no cookie that it did not mean
    to send.

    Raises:
        NotTaken: it comes from elsewhere.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    hosts = {request.headers.get("host"), request.headers.get("x-forwarded-host")}
    is_ours = site == "same-origin" if site else origin is None or urlsplit(origin).netloc in hosts - {None, ""}
    if not is_ours:
        raise NotTaken("This was sent by a page of another site, and is not done.", 403)


async def json_body(request: Request) -> Body:
    """The object that a request holds.

    Raises:
        NotTaken: it holds something else, or too much.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise NotTaken("This takes JSON: send it with Content-Type: application/json.", 415)
    read = b""
    async for chunk in request.stream():
        read += chunk
        if len(read) > LONGEST:
            raise NotTaken(f"This is too long: it may have {LONGEST:,} bytes.", 413)
    try:
        body = json.loads(read)
    except (ValueError, RecursionError):
        raise NotTaken("This is no JSON that can be read.") from None
    if not isinstance(body, dict):
        raise NotTaken("This takes a JSON object.")
    return body


def require_fields(body: Body, *names: str) -> None:
    """Refuse fields that nobody knows: to pass over a misspelt one would do more than was asked for.

    Raises:
        NotTaken: naming them.
    """
    if unknown := sorted(set(body) - set(names)):
        raise NotTaken(f"There is no field {', '.join(map(shown, unknown))}; it takes {', '.join(names)}.")


def date_in(body: Body, name: str) -> dt.date:
    """A date that must be given.

    Raises:
        NotTaken: it is missing, or no text.
        SettingsError: it is no date.
    """
    return date_of(name, _text(body, name, "a date as in 2026-11-20"))


def merchants_in(body: Body) -> tuple[str, ...] | None:
    """The merchants that are named; None for all.

    Raises:
        NotTaken: it is no list of texts.
        SettingsError: one is no merchant's id.
    """
    given = body.get("merchant_ids")
    if given is None or given == []:
        return None
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise NotTaken('merchant_ids takes a list of merchant ids, as in ["acme"].')
    return tuple(sorted({merchant_of(each) for each in given}))


def decision_in(body: Body) -> Decision:
    """What a person says.

    Raises:
        NotTaken: it is nothing that can be said.
    """
    given = _text(body, "decision", ", ".join(Decision))
    if given not in set(Decision):
        raise NotTaken(f"decision={shown(given)!r} is none; it takes one of {', '.join(Decision)}.")
    return Decision(given)


def reason_in(body: Body) -> str:
    """Why.

    Raises:
        NotTaken: it is missing, or too long.
    """
    given = _text(body, "reason", "what happened, or where that is written").strip()
    if not given or len(given) > LONGEST_REASON:
        raise NotTaken(f"reason takes what happened, or where that is written: 1 to {LONGEST_REASON:,} characters.")
    return storable(given)


def whole_in(body: Body, name: str) -> int:
    """A whole number that must be given.

    Raises:
        NotTaken: it is missing, or none.
    """
    given = body.get(name)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= MAX_ID:
        raise NotTaken(f"{name} takes a whole number.")
    return given


def _text(body: Body, name: str, takes: str) -> str:
    given = body.get(name)
    if not isinstance(given, str):
        raise NotTaken(f"{name} is missing; it takes {takes}." if given is None else f"{name} takes {takes}.")
    return given
