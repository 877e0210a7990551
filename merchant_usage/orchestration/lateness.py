"""What the triggerer of Airflow 3.3 calls when a run's deadline has passed. Imported where the DAG is parsed: light."""

from __future__ import annotations

import asyncio
from typing import Any


async def notify_late(context: dict[str, Any]) -> None:
    """Tell that a run is late. Never raises."""
    from merchant_usage.orchestration.callbacks import notify_late as notify

    # The hooks wait; the triggerer's loop must not.
    await asyncio.to_thread(notify, context["dag_run"])
