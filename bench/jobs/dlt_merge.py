"""A day's counters by dlt, as its documentation says: a resource of pages, merged by its primary key.

It runs in an environment of its own, with redis-py and dlt, which this project does not have.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import dlt
import redis

PAGE = 1000


@dlt.resource(  # type: ignore[untyped-decorator]  # dlt is not here where types are checked
    name="merchant_usage",
    write_disposition={"disposition": "merge", "strategy": "upsert"},
    primary_key=["merchant_id", "date", "metric_type"],
    columns={"date": {"data_type": "date"}, "metric_value": {"data_type": "bigint"}},
)
def counters(url: str, day: str) -> Iterator[list[dict[str, Any]]]:
    """Pages of rows."""
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, match=f"usage:*:{day}:*", count=PAGE)
        if keys:
            parts = [key.removeprefix("usage:").rsplit(":", 2) for key in keys]
            yield [
                {"merchant_id": merchant, "date": date, "metric_type": metric, "metric_value": int(value)}
                for (merchant, date, metric), value in zip(parts, client.mget(keys), strict=True)
            ]
        if not cursor:
            return


def main() -> None:
    """Take the day and a folder for dlt's own files from the arguments, the servers from the environment."""
    day, folder = sys.argv[1:]
    pipeline = dlt.pipeline(
        pipeline_name="usage",
        pipelines_dir=folder,
        destination=dlt.destinations.postgres(os.environ["USAGE_POSTGRES_URL"]),
        dataset_name="by_dlt",
    )
    pipeline.run(counters(os.environ["USAGE_REDIS_URL"], day)).raise_on_failed_jobs()


if __name__ == "__main__":
    main()
