"""The addresses of what is about dates: the overview, a date, dead letters."""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from merchant_usage import clock
from merchant_usage.page import answers, asked, date, letters, overview
from merchant_usage.page.access import Doors, Visitor


def add_routes(app: FastAPI, doors: Doors) -> None:
    """Serve them."""
    looks = Depends(doors.visitor)

    @app.get("/")
    def show_overview(
        request: Request, until: str | None = None, weeks: str | None = None, visitor: Visitor = looks
    ) -> Response:
        if not request.url.path.endswith("/"):
            # The addresses on the page are relative to the folder.
            return RedirectResponse(f"{request.url.path.rsplit('/', 1)[-1]}/", status_code=307)
        last = asked.optional_date("until", until)
        number = asked.whole("weeks", weeks, overview.WEEKS, 1, overview.MOST_WEEKS)
        with doors.snapshot() as conn:
            model = overview.read(conn, clock.now(), doors.settings(), last, number)
        return answers.html("overview.html", visitor, overview=model)

    @app.get("/date")
    def show_date(request: Request, visitor: Visitor = looks) -> Response:
        wanted = date.Asked.of(request.query_params)
        with doors.snapshot() as conn:
            model = date.read(conn, wanted, clock.now(), doors.settings())
        return answers.html("date.html", visitor, page=model, address_of_run=doors.address_of_run)

    @app.get("/letters")
    def show_letters(reason: str | None = None, after: str | None = None, visitor: Visitor = looks) -> Response:
        number = asked.identity("after", after)
        with doors.snapshot() as conn:
            model = letters.of_reason(conn, reason or None, number, doors.settings())
        return answers.html("letters.html", visitor, page=model, reason=reason or "")
