"""What the DAG file and the plugin take from Airflow, the same on all versions. It says what is missing."""

from __future__ import annotations

from merchant_usage.orchestration.platform import require_platform

require_platform()

from airflow.providers.common.compat.sdk import (  # noqa: E402 - what is imported here may be what is missing
    AirflowPlugin,
    Asset,
    BaseOperator,
    Param,
    TriggerRule,
    chain,
    dag,
    get_current_context,
    task,
    task_group,
)

__all__ = [
    "AirflowPlugin",
    "Asset",
    "BaseOperator",
    "Param",
    "TriggerRule",
    "chain",
    "dag",
    "get_current_context",
    "task",
    "task_group",
]
