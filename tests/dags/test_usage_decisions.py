"""The DAG that asks people: its wiring, where there is one, and what it asks."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from merchant_usage.orchestration import decisions
from merchant_usage.orchestration.compat import ASKS_PEOPLE
from merchant_usage.settings import DECISIONS_DAG_ID
from merchant_usage.sink.causes import Cause, Proposed
from tests.dags.test_policy import parse
from tests.dags.versions import AIRFLOW_3
from tests.support import YESTERDAY, settings

asks = pytest.mark.skipif(not ASKS_PEOPLE, reason="nobody can be asked on this Airflow")

CAUSE = Cause(
    letters=(3, 9),
    counters=12,
    gone=2,
    dates=(YESTERDAY,),
    since=dt.datetime(2026, 11, 24, 10, 5, tzinfo=dt.UTC),
    redis=70,
    stored=1000,
    examples=(b"usage:![x](http://evil.example/x):2026-11-23:queries", b"usage:\xff\n# head:2026-11-23:queries"),
    proposals=(Proposed("<b>al|ice</b>", 5, 500, 30, "see [this](http://evil.example)"),),
)


def dag_of(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Any:
    return parse(monkeypatch, **environ).dags[DECISIONS_DAG_ID]


def test_it_is_there_where_people_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = parse(monkeypatch)
    assert bag.import_errors == {}
    assert (DECISIONS_DAG_ID in bag.dags) == ASKS_PEOPLE == AIRFLOW_3


@asks
@pytest.mark.parametrize(
    ("approvals", "chain"),
    [
        ("1", ["find_causes", "decide.ask", "decide.apply_answer"]),
        (
            "2",
            [
                "find_causes",
                "decide.ask",
                "decide.apply_answer",
                "decide.find_second_question",
                "decide.ask_second_person",
                "decide.apply_second_answer",
            ],
        ),
    ],
)
def test_its_tasks_are_one_chain(monkeypatch: pytest.MonkeyPatch, approvals: str, chain: list[str]) -> None:
    dag = dag_of(monkeypatch, USAGE_APPROVALS=approvals)
    assert set(dag.task_ids) == set(chain)
    for before, after in pairwise(chain):
        assert after in dag.task_dict[before].downstream_task_ids
    assert {task.owner for task in dag.tasks} == {"usage"}
    assert all(task.task_id.rpartition(".")[2] in dag.doc_md for task in dag.tasks)


@asks
def test_its_questions_offer_what_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = dag_of(monkeypatch).task_dict["decide.ask"]
    assert tuple(ask.options) == decisions.OPTIONS
    assert ask.defaults == [decisions.LATER]
    # A default that its own schema refuses would fail the task before it asks.
    assert ask.params.get_param("reason").resolve() == ""
    assert dt.timedelta(hours=4) in {getattr(ask, "response_timeout", None), ask.execution_timeout}


@asks
def test_one_run_at_a_time_and_none_of_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = dag_of(monkeypatch)
    assert (dag.catchup, dag.max_active_runs, dag.schedule) == (False, 1, "10 * * * *")
    off = dag_of(monkeypatch, ENABLE_USAGE_AGGREGATION="false")
    assert type(off.timetable).__name__ == "NullTimetable"


def test_what_others_wrote_is_nothing_but_text() -> None:
    asked = decisions.question(CAUSE, settings(approvals=2))
    assert (asked["first"], asked["last"]) == (3, 9)
    assert asked["subject"] == "12 usage counters of 2026-11-23 went backwards: keep, accept or carry?"
    body = asked["body"]
    assert "usage:\\!\\[x\\](http\\://evil.example/x):2026-11-23:queries" in body
    assert "\n# head" not in body
    assert "\\<b\\>al\\|ice\\</b\\> has proposed to accept 5 of them" in body
    assert "see \\[this\\](http\\://evil.example)" in body
    assert "- and 10 more" in body
    for row in ("| keep |", "| accept |", "| carry |"):
        assert row in body
    assert "When it fell 1,000 were stored of all of them; Redis was last seen with 70. 2 of the keys are gone." in body
    assert "takes two persons" in body
    assert "takes two persons" not in decisions.question(CAUSE, settings())["body"]


@pytest.mark.parametrize(
    "answer",
    [
        {"chosen_options": ["not now"], "responded_by_user": {"id": "1", "name": "alice"}},
        # Nobody answered in time.
        {"chosen_options": ["not now"], "responded_by_user": None},
        {"chosen_options": ["accept"], "responded_by_user": None},
        {},
    ],
)
def test_without_a_person_nothing_is_decided(answer: dict[str, Any]) -> None:
    with pytest.raises(AirflowSkipException, match="Nobody has decided"):
        decisions.apply_answer(1, 2, answer, settings())
