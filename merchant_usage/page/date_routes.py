"""The addresses of what is about dates: the overview, a date, dead letters."""

from __future__ import annotations

from typing import Final

from fastapi import Depends, FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from merchant_usage import clock
from merchant_usage.page import answers, asked, csv_files, date, letters, overview
from merchant_usage.page.access import Doors, Visitor
from merchant_usage.page.csv_files import MOST_ROWS
from merchant_usage.sink.queries import query

TOTALS: Final = ("merchant_id", "date", "sealed_total", "seal_version")


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

    @app.get("/date.csv")
    def send_totals(request: Request) -> Response:
        day = asked.date_of("date", request.query_params.get("date"))
        with doors.snapshot() as conn:
            totals = conn.execute(query("date_totals"), {"usage_date": day, "limit": MOST_ROWS + 1}).fetchall()
        csv_files.require_some(len(totals), f"{day} is not sealed, so that no total of a merchant is written down.")
        return csv_files.answer(
            csv_files.file_name(day), TOTALS, ((merchant, day, *rest) for merchant, *rest in totals)
        )

    @app.get("/letters")
    def show_letters(reason: str | None = None, after: str | None = None, visitor: Visitor = looks) -> Response:
        number = asked.identity("after", after)
        with doors.snapshot() as conn:
            model = letters.of_reason(conn, reason or None, number, doors.settings())
        return answers.html("letters.html", visitor, page=model, reason=reason or "")
