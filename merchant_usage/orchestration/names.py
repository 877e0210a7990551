"""What the tasks and the usage page are called. A function of the DAG's file has a task's name, and a test says so."""

from __future__ import annotations

from typing import Final

SCAN_TASK_ID: Final = "scan_usage"
UPSERT_TASK_ID: Final = "upsert_merchant_usage"
VERIFY_TASK_ID: Final = "verify_usage"
DELETE_TASK_ID: Final = "delete_stale_keys"

#: In the order in which they run.
TASK_IDS: Final = (SCAN_TASK_ID, UPSERT_TASK_ID, VERIFY_TASK_ID, DELETE_TASK_ID)

#: The usage page in Airflow's navigation.
PAGE_NAME: Final = "Usage"
#: Its address, after that of Airflow. Long enough that no other plugin has it.
PAGE_PATH: Final = "merchant-usage"
