"""Docs, dashboard, alert rules and mapping name the metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.servers.programs import find_promtool, required
from merchant_usage.orchestration.metrics import METRICS, Metric, MetricKind
from tests.support import PROJECT

GRAFANA = PROJECT / "docs" / "reference" / "grafana"
BY_PROMETHEUS_NAME = {f"airflow_{metric.name.replace('.', '_')}": metric for metric in METRICS}
#: A metric, and the labels that it is asked for.
SELECTOR = re.compile(r"\b(airflow_usage_[a-z_]+)(?:\{(.*?)\})?")
MATCHER = re.compile(r'(\w+)(?:=|!=|=~|!~)"([^"]*)"')


def expressions_of_dashboard() -> list[str]:
    dashboard = json.loads((GRAFANA / "usage-aggregation.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((GRAFANA / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def named(expression: str) -> dict[Metric, list[tuple[str, str]]]:
    """The metrics of an expression, each with the labels and values that it is narrowed to."""
    found: dict[Metric, list[tuple[str, str]]] = {}
    for name, matchers in SELECTOR.findall(expression):
        base = re.sub("_(sum|count)$", "", name)
        metric = BY_PROMETHEUS_NAME[base]
        assert (base != name) == (metric.kind is MetricKind.TIMER), f"{name}: a summary has a sum and a count"
        found.setdefault(metric, []).extend(MATCHER.findall(matchers))
    return found


EXPRESSIONS = [*expressions_of_dashboard(), *(rule["expr"] for rule in rules())]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_names_metrics_and_labels_that_exist(expression: str) -> None:
    metrics = named(expression)
    assert metrics
    for metric, matchers in metrics.items():
        for label, values in matchers:
            assert label == metric.tag
            assert set(values.split("|")) <= set(metric.values)
    grouped = {label for labels in re.findall(r"by \((\w+)\)", expression) for label in labels.split(",")}
    assert all(grouped <= {metric.tag} for metric in metrics)


def test_dashboard_shows_every_metric() -> None:
    assert {metric for expression in expressions_of_dashboard() for metric in named(expression)} == set(METRICS)


def test_panels_are_told_apart() -> None:
    panels = json.loads((GRAFANA / "usage-aggregation.json").read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert all(panel["description"] for panel in panels)


def test_rules_say_what_to_do_and_are_named_in_the_docs_if_they_wake_people() -> None:
    assert {rule["labels"]["severity"] for rule in rules()} == {"page", "ticket"}
    assert all(set(rule["annotations"]) == {"summary", "description"} for rule in rules())
    assert len({rule["alert"] for rule in rules()}) == len(rules())


@pytest.fixture
def promtool() -> Path:
    """Prometheus' own judge of rules."""
    return required(find_promtool(), "promtool").folder / "promtool"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("check", "rules", "docs/reference/grafana/alerts.yaml"), id="are well formed"),
        pytest.param(("test", "rules", "tests/dags/alert_rules.yaml"), id="fire when they should"),
    ],
)
def test_rules(promtool: Path, arguments: tuple[str, ...]) -> None:
    judged = subprocess.run([promtool, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_mapping_makes_a_label_of_every_tag() -> None:
    mappings = yaml.safe_load((GRAFANA / "statsd-mapping.yaml").read_text(encoding="utf-8"))["mappings"]
    assert mappings == [
        {"match": f"airflow.{metric.name}.*", "name": name, "labels": {metric.tag: "$1"}}
        for name, metric in BY_PROMETHEUS_NAME.items()
        if metric.tag
    ]


def test_docs_list_every_metric() -> None:
    text = (PROJECT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `usage.")
    ]
    told = {
        Metric(
            name.strip("`"),
            MetricKind(kind.split(",")[0]),
            tag.strip("`") or None,
            tuple(re.findall("`(.*?)`", values)),
        )
        for name, kind, tag, values, _ in rows
    }
    assert told == set(METRICS)


def test_links_of_the_docs_lead_somewhere() -> None:
    text = (PROJECT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert [link for link in links if not (PROJECT / "docs" / "reference" / link).is_file()] == []
