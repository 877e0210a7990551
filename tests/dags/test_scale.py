"""One merchant, one more than there are tasks, a hundred thousand, one with 50 000 metric types: all are stored."""

from __future__ import annotations

import datetime as dt

import pytest

from merchant_usage import clock
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.pages import pages
from tests.dags.support import Dag
from tests.support import Usage, key

# Not yesterday: the tests may run in the hours in which that still settles.
DAY = clock.now().date() - dt.timedelta(days=3)
CONF = {"from_date": str(DAY), "to_date": str(DAY)}
WRITTEN_AT_ONCE = 10_000


def write(usage: Usage, counters: dict[CounterKey, int]) -> None:
    for page in pages(counters.items(), WRITTEN_AT_ONCE):
        usage.write(dict(page))


@pytest.mark.parametrize(
    ("merchants", "tasks", "sizes"),
    [
        pytest.param(1, 8, [1], id="1"),
        pytest.param(8, 8, [1] * 8, id="8"),
        pytest.param(9, 8, [1] * 7 + [2], id="9"),
        pytest.param(5000, 8, [625] * 8, id="5000"),
        pytest.param(100_000, 32, [3125] * 32, id="100000"),
    ],
)
def test_any_number_of_merchants_fits_into_so_many_tasks_of_like_weight(
    dag: Dag, usage: Usage, merchants: int, tasks: int, sizes: list[int]
) -> None:
    counters = {key(f"m{n:05}", DAY): n for n in range(merchants)}
    write(usage, counters)
    # A task costs a third of a second here: the default of 32 is tried once.
    ended = dag.run(CONF, USAGE_MAX_MAPPED_TASKS=str(tasks), USAGE_BATCH_COUNTERS="1")
    assert ended.state == "success"
    assert ended.states["upsert_merchant_usage"] == ["success"] * len(sizes)
    assert sorted(map(merchants_named, ended.names)) == sizes
    assert ended.mapped_bytes < 200 * len(sizes), "each task is handed what concerns the others"
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}
    assert usage.rows() == counters


@pytest.mark.parametrize(
    ("merchants", "sizes"),
    [
        pytest.param(8, [1] * 8, id="as many as there may be tasks"),
        pytest.param(9, [9], id="one more"),
        pytest.param(250, [83, 83, 84], id="more than two batches hold"),
        pytest.param(1000, [125] * 8, id="more than all of them hold"),
    ],
)
def test_tasks_are_as_few_as_hold_the_counters(dag: Dag, usage: Usage, merchants: int, sizes: list[int]) -> None:
    counters = {key(f"m{n:05}", DAY): n for n in range(merchants)}
    write(usage, counters)
    ended = dag.run(CONF, USAGE_MAX_MAPPED_TASKS="8", USAGE_BATCH_COUNTERS="100")
    assert ended.state == "success"
    assert sorted(map(merchants_named, ended.names)) == sizes
    assert usage.rows() == counters


def merchants_named(name: str) -> int:
    """Of how many merchants a mapped task's name tells."""
    _, _, beyond_one = name.rpartition("(")
    return int(beyond_one.removesuffix(" merchants)")) if name.endswith(")") else 1


def test_one_merchant_with_50_000_metric_types(dag: Dag, usage: Usage) -> None:
    counters = {key("acme", DAY, f"metric_{n:05}"): n for n in range(50_000)}
    write(usage, {**counters, key("beta", DAY): 1})
    ended = dag.run(CONF)
    assert ended.state == "success"
    assert ended.names == ["acme", "beta"]
    assert ended.mapped_bytes < 400
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}
    assert usage.rows() == {**counters, key("beta", DAY): 1}
