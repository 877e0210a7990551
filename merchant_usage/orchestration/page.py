"""The usage page in Airflow: who may look at it and who may act, and by which connections it reads and works.

Airflow asks nobody who calls what a plugin mounts, so every route of the page asks here. Imported when somebody
first asks for the page, in Airflow's API server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from airflow.api.common.trigger_dag import trigger_dag
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.exceptions import DagNotFound, DagRunAlreadyExists
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType
from fastapi import Depends, FastAPI
from psycopg import Connection

from merchant_usage.connections import prepare
from merchant_usage.driver_errors import explained
from merchant_usage.errors import UsageError
from merchant_usage.orchestration.connections import (
    PAGE_CONN_ID,
    POSTGRES_CONN_ID,
    usage_page,
    usage_postgres,
    usage_redis,
)
from merchant_usage.orchestration.request_counts import count_requests, count_statements
from merchant_usage.page.access import Doors, NotServed, NotTaken, TooSlow, Visitor, served_settings
from merchant_usage.page.app import create_app
from merchant_usage.settings import DAG_ID
from merchant_usage.source.shards import RedisClient

# Always by its name: without one Airflow would take it from the address, which is the caller's choice.
_MAY_LOOK: Final = Depends(requires_access_dag(method="GET", param_dag_id=DAG_ID))
_MAY_EDIT: Final = Depends(requires_access_dag(method="PUT", param_dag_id=DAG_ID))
_MAY_TRIGGER: Final = Depends(
    requires_access_dag(method="POST", access_entity=DagAccessEntity.RUN, param_dag_id=DAG_ID)
)


def make_app() -> FastAPI:
    """The page, with the doors that Airflow gives it."""
    return create_app(
        Doors(
            served_settings,
            usage_page,
            visitor,
            actor,
            AirflowWork(),
            reads_by=f"the Airflow connection {PAGE_CONN_ID}, or {POSTGRES_CONN_ID} where that is not defined",
            # As seen from the page, which lies in a folder beside the DAGs.
            run_address=f"../dags/{DAG_ID}/runs/{{run_id}}",
        )
    )


def visitor(user: GetUserDep, _: None = _MAY_LOOK) -> Visitor:
    """Whoever may see the DAG."""
    return Visitor(user.get_name(), may_act=_may_act(user))


def actor(user: GetUserDep, _: None = _MAY_EDIT, __: None = _MAY_TRIGGER) -> Visitor:
    """Whoever may edit the DAG and start runs of it."""
    return Visitor(user.get_name(), may_act=True)


def _may_act(user: BaseUser) -> bool:
    """The same as `actor`, asked for the buttons."""
    details = DagDetails(id=DAG_ID, team_name=DagModel.get_team_name(DAG_ID))
    asks = get_auth_manager().is_authorized_dag
    return asks(method="PUT", details=details, user=user) and asks(
        method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
    )


class AirflowWork:
    """What the page sets going, by the connections of runs and as runs of the DAG."""

    @contextmanager
    def servers(self, seconds: int | None = None) -> Iterator[tuple[RedisClient, Connection]]:
        """Both servers.

        Raises:
            NotServed: a connection is missing, or cannot be used.
            TooSlow: they were asked for more after so many seconds.
        """
        with explained(), ExitStack() as stack:
            try:
                client, conn = stack.enter_context(usage_redis()), stack.enter_context(usage_postgres())
            except UsageError as error:
                raise NotServed(str(error)) from None
            if seconds is not None:
                _bound(client, conn, seconds)
            yield client, conn

    def aggregate(self, conf: dict[str, Any], by: str) -> str:
        """Trigger the DAG, as its form does.

        Raises:
            NotTaken: Airflow would not run it.
        """
        with create_session() as session:
            dag = session.get(DagModel, DAG_ID)
            if dag is None or dag.is_stale:
                raise NotTaken(f"Airflow has no DAG {DAG_ID}, or cannot load its file.", 409)
            if dag.is_paused:
                raise NotTaken(f"The DAG {DAG_ID} is paused, so that a run would wait until somebody turns it on.", 409)
            try:
                run = trigger_dag(
                    DAG_ID,
                    triggered_by=DagRunTriggeredByType.UI,
                    triggering_user_name=by,
                    conf=conf,
                    session=session,
                )
            except (DagNotFound, DagRunAlreadyExists, ValueError) as error:
                raise NotTaken(f"Airflow does not start a run: {error}", 409) from None
            if run is None:
                raise NotTaken("Airflow does not start a run.", 409)
            return str(run.run_id)


def _bound(client: RedisClient, conn: Connection, seconds: int) -> None:
    """Let nothing more be asked of either after so many seconds, and no answer be waited for longer than that."""
    until = time.monotonic() + seconds

    def look_at_the_clock() -> None:
        if time.monotonic() > until:
            raise TooSlow(seconds)

    count_requests(client, look_at_the_clock)
    count_statements(conn, look_at_the_clock)
    prepare(conn, seconds)
