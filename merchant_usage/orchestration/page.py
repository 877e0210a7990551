"""The usage page in Airflow: who may look at it and who may act, and by which connections it reads and works.

Airflow asks nobody who calls what a plugin mounts, so every route of the page asks here. Imported when somebody
first asks for the page, in Airflow's API server.
"""

from __future__ import annotations

from typing import Final

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, FastAPI

from merchant_usage.orchestration.connections import PAGE_CONN_ID, POSTGRES_CONN_ID, usage_page
from merchant_usage.page.access import Doors, Visitor, served_settings
from merchant_usage.page.app import create_app
from merchant_usage.settings import DAG_ID

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
