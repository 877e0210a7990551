"""What the page answers with: HTML of a template, or one sentence where there is nothing else to show."""

from __future__ import annotations

from fastapi.responses import HTMLResponse

from merchant_usage.errors import UsageError
from merchant_usage.page.access import Visitor
from merchant_usage.page.render import render


class NotThere(UsageError):
    """Nothing is known of what is asked for."""


def html(template: str, visitor: Visitor, **model: object) -> HTMLResponse:
    """The page of a template, from its view model."""
    return HTMLResponse(render(template, visitor=visitor, **model))


def problem(sentence: str, code: int) -> HTMLResponse:
    """A page that says why there is none."""
    return HTMLResponse(render("problem.html", sentence=sentence, code=code), status_code=code)
