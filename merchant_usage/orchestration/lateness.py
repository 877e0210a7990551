"""What the triggerer of Airflow 3.3 calls when a run's deadline has passed. Imported where the DAG is parsed: light."""

from __future__ import annotations

import asyncio
from typing import Any, Final

#: How often to look whether a run that waits for a retry has ended, and how long between two looks, in seconds: all
#: retries of a task are over by then.
LOOKS: Final = 20
PAUSE_SECONDS: Final = 15


async def notify_late(context: dict[str, Any]) -> None:
    """Tell that a run is late, unless it ends by itself soon. Never raises."""
    from merchant_usage.orchestration.callbacks import is_told_at_its_end
    from merchant_usage.orchestration.callbacks import notify_late as notify

    # The hooks wait; the triggerer's loop must not.
    for _ in range(LOOKS):
        if not await asyncio.to_thread(is_told_at_its_end, context["dag_run"]):
            break
        await asyncio.sleep(PAUSE_SECONDS)
    await asyncio.to_thread(notify, context["dag_run"])
