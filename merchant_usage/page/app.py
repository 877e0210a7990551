"""The usage page as an application that any server of ASGI can serve: its routes, and what holds for all of them."""

from __future__ import annotations

import mimetypes
from typing import Final

import psycopg
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from merchant_usage.driver_errors import explain
from merchant_usage.errors import SettingsError, UsageError
from merchant_usage.page import actions, answers
from merchant_usage.page.access import QUERY_LIMIT, Doors, NotTaken
from merchant_usage.page.date_routes import add_routes as add_date_routes
from merchant_usage.page.merchant_routes import add_routes as add_merchant_routes
from merchant_usage.page.render import HERE

#: Nothing but what we serve, no script or style in the text of a page; Airflow's own page may show ours in a frame.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # What people are billed for stays in no cache, and nobody goes back to it after logging out.
    "Cache-Control": "no-store",
}
#: What is said in words of ours to whoever may not look, or asks for what there is not.
TURNED_AWAY: Final = {
    401: "Nobody is logged in. Log in to Airflow, then load this page again.",
    403: "Airflow does not let you see or do this.",
    404: "There is no such page.",
    405: "This page cannot be asked for in this way.",
}
STATIC: Final = frozenset(path.name for path in (HERE / "static").iterdir() if path.is_file())


def create_app(doors: Doors) -> FastAPI:
    """The page. Every route asks who looks; there are no routes that describe the others.

    All addresses lie side by side and name each other without a path, so that any prefix of a proxy will do.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(doors.visitor)])

    @app.middleware("http")
    async def add_headers(request: Request, call_next):  # type: ignore[no-untyped-def]
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    problems: tuple[int | type[Exception], ...] = (UsageError, psycopg.Error, *TURNED_AWAY)
    for kind in problems:
        app.add_exception_handler(kind, tell)

    add_date_routes(app, doors)
    add_merchant_routes(app, doors)
    actions.add_routes(app, doors)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            return answers.problem("There is no such file.", 404)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response((HERE / "static" / name).read_bytes(), media_type=kind)

    return app


def tell(request: Request, error: Exception) -> Response:
    """Say why there is no answer: as a page, or in JSON to who wanted something done."""
    sentence, code = why_not(error)
    if request.url.path.rpartition("/")[0].endswith("/do"):
        return JSONResponse({"error": sentence}, code)
    return answers.problem(sentence, code)


def why_not(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the status of HTTP for it."""
    if isinstance(error, answers.NotThere):
        return str(error), 404
    if isinstance(error, NotTaken):
        return str(error), error.status
    if isinstance(error, UsageError):
        return str(error), 400 if isinstance(error, SettingsError) else 503
    if isinstance(error, psycopg.errors.QueryCanceled):
        return f"PostgreSQL did not answer within {QUERY_LIMIT}. Try again when it has less to do.", 503
    if isinstance(error, psycopg.Error):
        return explain(error), 503
    code = int(getattr(error, "status_code", 500))
    return TURNED_AWAY.get(code, "This went wrong."), code
