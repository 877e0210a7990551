"""The real Airflow of these tests: of the version that is installed."""

from __future__ import annotations

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_2_PLUS

from tests.scheduler.airflow2 import Airflow2
from tests.scheduler.airflow3 import Airflow3
from tests.scheduler.tested import TestedAirflow

AIRFLOW_3: bool = AIRFLOW_V_3_0_PLUS
#: Before, a mapped task has its name when it has ended.
NAMED_FROM_START: bool = AIRFLOW_V_3_2_PLUS
INSTALLED: type[TestedAirflow] = Airflow3 if AIRFLOW_3 else Airflow2
