"""The usage page by itself, without Airflow: for whoever is on this machine, and nobody else."""

from __future__ import annotations

import socket
from typing import Final

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from merchant_usage.connections import PAGE_POSTGRES_URL, POSTGRES_URL, page_from_url
from merchant_usage.page.access import Doors, Visitor, served_settings
from merchant_usage.page.app import create_app

#: By these names alone it is reached. A page of somebody else's, whose name is made to mean this machine, is refused.
HOSTS: Final = ("127.0.0.1", "localhost")
#: Seconds that those who wait for an answer are given when it ends.
LAST_ANSWERS: Final = 5


def serve(listening: socket.socket) -> None:
    """Answer what comes in by a socket, until Ctrl-C or SIGTERM, which are raised anew in the end."""
    config = uvicorn.Config(
        make_app(),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=LAST_ANSWERS,
    )
    uvicorn.Server(config).run(sockets=[listening])


def make_app() -> FastAPI:
    """The page, which nobody has to log in to."""
    reads_by = f"{PAGE_POSTGRES_URL}, or {POSTGRES_URL} where that is not set"
    app = create_app(Doors(served_settings, page_from_url, anybody, reads_by=reads_by))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS], www_redirect=False)
    return app


def anybody() -> Visitor:
    """Who looks: nothing is known of them."""
    return Visitor("", may_act=False)
