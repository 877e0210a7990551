"""What the tasks are called. A function of the DAG's file has the same name, and a test says so."""

from __future__ import annotations

from typing import Final

SCAN_TASK_ID: Final = "scan_usage"
UPSERT_TASK_ID: Final = "upsert_merchant_usage"
VERIFY_TASK_ID: Final = "verify_usage"
DELETE_TASK_ID: Final = "delete_stale_keys"

#: In the order in which they run.
TASK_IDS: Final = (SCAN_TASK_ID, UPSERT_TASK_ID, VERIFY_TASK_ID, DELETE_TASK_ID)
