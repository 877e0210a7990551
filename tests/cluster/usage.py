"""The verbs of the other tests, on a cluster."""

from __future__ import annotations

from collections.abc import Mapping

from merchant_usage.model.keys import CounterKey
from tests.support import Usage, raw


class ClusterUsage(Usage):
    """A cluster's client and a migrated PostgreSQL."""

    def write(self, counters: Mapping[CounterKey, int | str | bytes]) -> None:
        """Set counters; a cluster takes no MSET across slots."""
        pipeline = self.client.pipeline()
        for counter, value in counters.items():
            pipeline.set(raw(counter), value)
        pipeline.execute()
