"""`./run bench`: all contestants in turn, several rounds, on real servers; medians, and ratios to the floor."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis

from bench import airflow_run, beside, footprint, model, page, peers, tenfold
from bench.against import changes, sheet
from bench.data import LARGE, MEDIUM, MODEST, QUICK, SMALL, USUAL, DataSet
from bench.machine import machine
from bench.page_data import PageData
from bench.race import LABELS, race
from bench.running import POSTGRES_SETTINGS, VALKEY_CONFIG, Stage, admin_connection
from bench.tables import Sheet, machine_sheet, sheets, show
from local.servers import Postgres, Valkey
from merchant_usage import clock

DATA_SETS = {data.name: data for data in (SMALL, MODEST, USUAL, MEDIUM, LARGE, QUICK)}
# Its 24 runs would take longer than all the rest.
SIZE_UP_TO = MEDIUM.wanted


@dataclass(frozen=True)
class Apart:
    """What is measured by itself, on one data set."""

    measure: Callable[[Callable[[DataSet], Stage], DataSet, int], dict[str, Any]]
    sheets: Callable[[Any, int], list[Sheet]]
    data: DataSet
    help: str


APART = {
    "dag": Apart(
        airflow_run.measure, airflow_run.sheets, LARGE, "whole DAG runs under a scheduler instead, on one data set"
    ),
    "beside": Apart(
        beside.measure,
        beside.sheets,
        LARGE,
        "an hourly run beside the keys of eight days instead, of one data set's merchants",
    ),
    "tenfold": Apart(tenfold.measure, tenfold.sheets, LARGE, "ten times one data set, and a tenth of it, instead"),
    "peers": Apart(peers.measure, peers.sheets, MEDIUM, "what people would pick instead, on one data set"),
}


def main() -> None:
    """Measure, or read what was measured; print tables."""
    options = _options()
    if options.read:
        report = json.loads(options.read.read_text())
    else:
        report = _measure(options)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    apart = next((name for name in APART if name in report), None)
    if apart is not None:
        tables = APART[apart].sheets(report[apart], report["rounds"])
        show([machine_sheet(report), *tables], markdown=options.markdown)
    elif "page" in report:
        show([machine_sheet(report), *page.sheets(report["page"])], markdown=options.markdown)
    else:
        show([*sheets(report), *model.sheets(report)], markdown=options.markdown)
    if options.against:
        _compare(report, json.loads(options.against.read_text()), markdown=options.markdown)


def _compare(report: dict[str, Any], stored: dict[str, Any], *, markdown: bool) -> None:
    """Print what changed; what became worse is an error."""
    try:
        found = changes(report, stored)
    except ValueError as error:
        raise SystemExit(f"--against: {error}") from None
    show([sheet(found)], markdown=markdown)
    if any(each.worse for each in found):
        raise SystemExit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a small one of seconds, to see that it works")
    size.add_argument("--full", action="store_true", help="adds the large data set")
    size.add_argument(
        "--data", nargs="+", choices=DATA_SETS, metavar="NAME", help=f"which data sets: {', '.join(DATA_SETS)}"
    )
    size.add_argument("--read", type=Path, metavar="FILE", help="measure nothing, show what --json wrote")
    instead = parser.add_mutually_exclusive_group()
    for name, each in APART.items():
        usual = f"{each.help} (default {each.data.name})"
        instead.add_argument(f"--{name}", action="store_const", const=name, dest="apart", help=usual)
    instead.add_argument("--page", action="store_true", help="the views of the usage page instead, on many merchants")
    parser.add_argument("--merchants", type=int, default=page.MERCHANTS, help="of --page (default %(default)s)")
    parser.add_argument("--days", type=int, default=page.DAYS, help="of --page (default %(default)s)")
    parser.add_argument("--requests", type=int, default=page.REQUESTS, help="of each view (default %(default)s)")
    parser.add_argument(
        "--rounds", type=int, help="medians are over so many (default 5, with --dag and the like 3, with --quick 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="say what became worse since --json wrote this (default 5 rounds)"
    )
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds takes 1 or more")
    if options.apart and len(options.data or ()) > 1:
        parser.error(f"--{options.apart} takes one data set")
    if options.against and (options.apart or options.page):
        parser.error("--against compares data sets, not what is measured apart from them")
    if min(options.merchants, options.days, options.requests) < page.LEAST:
        parser.error(f"--merchants, --days and --requests take {page.LEAST} or more")
    return options


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    if options.page:
        return _measure_page(options)
    rounds = options.rounds or (1 if options.quick and not options.against else 3 if options.apart else 5)
    with (
        Valkey(extra_config=VALKEY_CONFIG) as valkey,
        Postgres(settings=POSTGRES_SETTINGS) as postgres,
        admin_connection(postgres) as conn,
    ):
        report: dict[str, Any] = {"rounds": rounds, "data_sets": {}}
        stage_of = partial(Stage.set, valkey, postgres, conn)
        data_sets = _data_sets(options)
        if options.apart:
            report["machine"] = machine(conn, Redis.from_url(valkey.url))
            return {**report, options.apart: APART[options.apart].measure(stage_of, data_sets[0], rounds)}
        for data in data_sets:
            stage = stage_of(data)
            report.setdefault("machine", machine(conn, stage.client))
            report["data_sets"][data.name] = _measure_data_set(stage, rounds, quick=options.quick)
        # How it grows with merchants shows with these many, whatever else was measured.
        many = replace(QUICK if options.quick else LARGE, others=0)
        report["xcom"] = footprint.xcom(stage_of(many))
    return report


def _measure_page(options: argparse.Namespace) -> dict[str, Any]:
    data = PageData(options.merchants, options.days, clock.now().date())
    with Postgres(settings=page.POSTGRES_SETTINGS) as postgres, admin_connection(postgres) as conn:
        data.write(conn)
        return {"machine": machine(conn), "page": page.measure(postgres, conn, data, options.requests)}


def _data_sets(options: argparse.Namespace) -> list[DataSet]:
    if options.quick:
        return [QUICK]
    if options.data:
        return [DATA_SETS[name] for name in options.data]
    if options.apart:
        return [APART[options.apart].data]
    return [SMALL, MODEST, MEDIUM, LARGE] if options.full else [SMALL, MODEST, MEDIUM]


def _measure_data_set(stage: Stage, rounds: int, *, quick: bool) -> dict[str, Any]:
    data = stage.data
    redis_bytes = footprint.redis_bytes(stage)
    results, ratios = race(stage, rounds)
    measured: dict[str, Any] = {
        "name": data.name,
        "description": data.description,
        "merchants": data.merchants,
        "wanted": data.wanted,
        "keys": data.keys,
        "labels": LABELS,
        "redis_bytes": redis_bytes,
        "results": results,
        "ratios": ratios,
        "wal": footprint.wal(stage),
    }
    if data in {MEDIUM, LARGE, QUICK}:
        measured["neighbour"] = footprint.neighbour(stage, idle_seconds=0.5 if quick else 5)
        measured["connections"] = footprint.connections(stage)
        few = {"names": 2, "values": 2}
        measured["garbage"] = footprint.garbage(stage, **(few if quick else {"names": 18, "values": 10}))
        if data.wanted <= SIZE_UP_TO:
            measured["size"] = footprint.size(stage, runs=1 if quick else footprint.RUNS_A_DAY)
    print(f"{data.name}: footprint done", file=sys.stderr)
    return measured


if __name__ == "__main__" and __spec__ is not None and __spec__.name == "bench.__main__":
    main()
