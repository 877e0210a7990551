"""The addresses that concern merchants: the search, a merchant, one number explained, and the same as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.model.dates import local_date
from merchant_usage.page import asked, csv_files, explained, merchant, merchants
from merchant_usage.page.access import Doors, Visitor
from merchant_usage.page.answers import html
from merchant_usage.page.csv_files import MOST_ROWS, Row
from merchant_usage.page.merchant import Asked
from merchant_usage.sink import explained as stories
from merchant_usage.sink import ledger
from merchant_usage.sink.explained import Event
from merchant_usage.sink.queries import query, stream
from merchant_usage.steps.story import Asked as Number
from merchant_usage.steps.story import format_absence
from merchant_usage.text import shown

DAYS: Final = ("merchant_id", "date", "metric_type", "metric_value", "carried", "sealed")


def add_routes(app: FastAPI, doors: Doors) -> None:
    """Let the application answer them."""
    looks = Depends(doors.visitor)

    def days_of(request: Request) -> Asked:
        given = request.query_params
        today = local_date(clock.now(), doors.settings())
        return merchant.asked_of(asked.merchant_of(given.get("merchant")), given, today)

    def number_of(request: Request) -> Number:
        given = request.query_params
        merchant_id = asked.merchant_of(given.get("merchant"))
        first = asked.whole("first", given.get("first"), 0, 0, MOST_ROWS)
        return Number(merchant_id, asked.date_of("date", given.get("date")), merchant.metric_of(given), first)

    @app.get("/merchants")
    def show_merchants(request: Request, visitor: Visitor = looks) -> Response:
        given = request.query_params
        begins, after = (merchants.text_of(name, given.get(name)) for name in ("begins", "after"))
        with doors.snapshot() as conn:
            found = merchants.read(conn, begins, after)
        return html("merchants.html", visitor, found=found)

    @app.get("/merchant")
    def show_merchant(request: Request, visitor: Visitor = looks) -> Response:
        wanted, settings = days_of(request), doors.settings()
        with doors.snapshot() as conn:
            found = merchant.read(conn, wanted, local_date(clock.now(), settings), settings)
        return html("merchant.html", visitor, merchant=found)

    @app.get("/explain")
    def show_explained(request: Request, visitor: Visitor = looks) -> Response:
        wanted, settings = number_of(request), doors.settings()
        with doors.snapshot() as conn:
            found = explained.read(conn, wanted, local_date(clock.now(), settings), settings)
        return html("explained.html", visitor, page=found)

    @app.get("/merchant.csv")
    def send_days(request: Request) -> Response:
        wanted = days_of(request)
        name = csv_files.file_name(wanted.merchant_id, wanted.from_date, wanted.to_date)
        with doors.snapshot() as conn:
            return csv_files.answer(name, DAYS, _days(conn, wanted))

    @app.get("/explain.csv")
    def send_explained(request: Request) -> Response:
        wanted = number_of(request)
        name = csv_files.file_name("explained", wanted.merchant_id, wanted.date)
        with doors.snapshot() as conn:
            return csv_files.answer(name, Event._fields, _events(conn, wanted))


def _days(conn: Connection, wanted: Asked) -> Iterator[Row]:
    parameters = {**wanted._asdict(), "limit": MOST_ROWS + 1}
    row = conn.execute(query("merchant_count"), parameters).fetchone()
    csv_files.require_some(
        row[0] if row else 0,
        f"Nothing is stored of {shown(wanted.merchant_id)} from {wanted.from_date} to {wanted.to_date}.",
    )
    sealed = ledger.sealed_dates(conn, wanted.dates)
    for date, *counter in stream(conn, "merchant_days", parameters, csv_files.AT_ONCE):
        yield (wanted.merchant_id, date, *counter, date in sealed)


def _events(conn: Connection, wanted: Number) -> Iterator[Row]:
    story = stories.explain(conn, wanted.merchant_id, wanted.date, wanted.metric_type, (0, MOST_ROWS + 1))
    csv_files.require_some(len(story.events), format_absence(wanted.merchant_id, wanted.date))
    yield from story.events
