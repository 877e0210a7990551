"""What deploy/helm holds for Airflow's chart: what it becomes is valid in Kubernetes, and what it sets is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from airflow.configuration import conf

from merchant_usage import __version__
from merchant_usage.settings import VARIABLES, load_settings
from tests.support import PROJECT

HELM = PROJECT / "deploy" / "helm"
FILES = sorted(HELM.glob("*.yaml"))
OF_ALL = HELM / "values.yaml"
KUBERNETES = "1.31"
EXECUTORS = {
    "values-local.yaml": "LocalExecutor",
    "values-celery.yaml": "CeleryExecutor",
    "values-kubernetes.yaml": "KubernetesExecutor",
}


def values(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def merged(*paths: Path) -> dict[str, Any]:
    """What Helm makes of several files: objects are joined, and of all else the last one counts."""

    def join(one: Any, other: Any) -> Any:
        if isinstance(one, dict) and isinstance(other, dict):
            return {**one, **other, **{key: join(one[key], other[key]) for key in one.keys() & other.keys()}}
        return other

    found: dict[str, Any] = {}
    for path in paths:
        found = join(found, values(path))
    return found


def worker_of(name: str, chart: dict[str, Any]) -> dict[str, Any]:
    """Where the chart has what concerns the pods that tasks run in."""
    places = {
        "values-local.yaml": lambda: chart["scheduler"],
        "values-celery.yaml": lambda: chart["workers"]["celery"],
        "values-kubernetes.yaml": lambda: chart["workers"]["kubernetes"],
    }
    return dict(places[name]())


@pytest.mark.parametrize("name", EXECUTORS)
def test_the_pod_that_tasks_run_in_is_valid(name: str) -> None:
    chart = merged(OF_ALL, HELM / name)
    assert chart["executor"] == EXECUTORS[name]
    worker, image = worker_of(name, chart), chart["images"]["airflow"]
    container = {
        "name": "base",
        "image": f"{image['repository']}:{image['tag']}",
        "env": chart["env"],
        "envFrom": yaml.safe_load(chart["extraEnvFrom"]),
        "resources": worker["resources"],
    }
    grace = worker.get("terminationGracePeriodSeconds", 30)
    spec = {"containers": [container], "terminationGracePeriodSeconds": grace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "task"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_workers_scale_as_kubernetes_can() -> None:
    hpa = dict(values(HELM / "values-celery.yaml")["workers"]["celery"]["hpa"])
    assert hpa.pop("enabled") is False, "KEDA and the HPA would both decide"
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
        "minReplicas": hpa.pop("minReplicaCount"),
        "maxReplicas": hpa.pop("maxReplicaCount"),
        **hpa,
    }
    manifest = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "w"},
        "spec": spec,
    }
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_set_is_known(path: Path) -> None:
    found = values(path)
    for section, options in found.get("config", {}).items():
        assert [option for option in options if not conf.has_option(section, option)] == []
    variables = {each["name"]: each["value"] for each in found.get("env", [])}
    assert set(variables) <= set(VARIABLES)
    load_settings(variables)
    # Of a list the chart takes the last file's: what all have must be in each.
    common = {each["name"]: each["value"] for each in values(OF_ALL)["env"]}
    assert not variables or variables.items() >= common.items()


def test_the_image_is_that_of_the_docs() -> None:
    airflow = values(OF_ALL)["airflowVersion"]
    assert values(OF_ALL)["images"]["airflow"]["tag"] == f"{__version__}-{airflow}"
    requirements = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
    assert f"apache-airflow=={airflow}\n" in requirements
    page = (PROJECT / "docs" / "howto" / "helm.md").read_text(encoding="utf-8")
    assert f"FROM apache/airflow:{airflow}\n" in page
    assert f"merchant_usage-{__version__}-py3-none-any.whl" in page
    assert f"{values(OF_ALL)['images']['airflow']['repository']}:{__version__}-{airflow}" in page
    assert values(HELM / "values-git-sync.yaml")["dags"]["gitSync"]["ref"] == f"v{__version__}"


def test_the_secret_of_the_docs_is_that_of_the_values() -> None:
    page = (PROJECT / "docs" / "howto" / "helm.md").read_text(encoding="utf-8")
    (reference,) = yaml.safe_load(values(OF_ALL)["extraEnvFrom"])
    assert re.findall(r"kubectl create secret generic (\S+)", page) == [reference["secretRef"]["name"]]


def test_every_file_is_taught() -> None:
    page = (PROJECT / "docs" / "howto" / "helm.md").read_text(encoding="utf-8")
    assert {path.name for path in FILES} == set(re.findall(r"deploy/helm/([\w-]+\.yaml)", page))
