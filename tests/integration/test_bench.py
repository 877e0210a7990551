"""The benchmark runs, measures everything it promises, and its cost model computes what the docs say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from bench import peers
from bench.against import changes
from bench.airflow_run import sheets as dag_sheets
from bench.beside import sheets as beside_sheets
from bench.data import LARGE, MEDIUM, QUICK, SMALL
from bench.model import Constants, Cost, Load
from bench.model import sheets as model_sheets
from bench.peers import sheets as peer_sheets
from bench.race import ENTRIES
from bench.running import Stage, admin_connection
from bench.targets import targets
from bench.tenfold import PHASES, RUNS, forecast
from bench.tenfold import sheets as tenfold_sheets
from local.servers import Postgres, Valkey
from tests.bench_command import bench
from tests.support import PROJECT


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The figures and the printed tables of a quick run."""
    file = tmp_path_factory.mktemp("bench") / "quick.json"
    finished = bench("--quick", "--json", file, "--markdown")
    assert finished.returncode == 0, finished.stderr
    return json.loads(file.read_text()), finished.stdout


def test_a_quick_run_measures_every_contestant(quick: tuple[dict[str, Any], str]) -> None:
    report, _ = quick
    measured = report["data_sets"][QUICK.name]
    assert (measured["wanted"], measured["keys"]) == (QUICK.wanted, QUICK.keys)
    assert list(measured["results"]) == [entry.name for entry in ENTRIES]
    for figures in measured["results"].values():
        assert figures["process_seconds"] > figures["seconds"] > 0
        assert figures["megabytes"] > 1


def test_a_quick_run_measures_what_a_run_costs_besides_time(quick: tuple[dict[str, Any], str]) -> None:
    report, _ = quick
    measured = report["data_sets"][QUICK.name]
    assert min(measured["wal"]["first_load"], measured["wal"]["changed"]) > measured["wal"]["unchanged"] > 0
    assert measured["wal"]["hourly"] > measured["wal"]["changed_rows"] > 20 * QUICK.merchants
    assert measured["wal"]["hourly_images"] > 0
    # The rows alone: 24 bytes of header, 20 of ids, 6 of numbers at least.
    assert measured["size"]["after_runs"] >= measured["size"]["after_load"] > 50 * QUICK.wanted
    assert 0 < measured["neighbour"]["during_p50"] <= measured["neighbour"]["during_p99"]
    assert 1 <= measured["connections"]["peak"] <= 3
    assert 1 < measured["garbage"]["peak"] < 128
    assert report["xcom"]["batches_bytes"] > QUICK.merchants * len("merchant_000000")


def test_the_tables_are_markdown_and_name_machine_contestants_and_targets(quick: tuple[dict[str, Any], str]) -> None:
    report, printed = quick
    for name in report["machine"]:
        assert f"| {name} " in printed
    for entry in ENTRIES:
        assert f"| {entry.label} " in printed
    for target in targets(report):
        assert f"| {target.what} " in printed
    assert {line[0] for line in printed.splitlines() if line} == {"#", "|"}


def test_a_report_can_be_shown_again(quick: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    report, printed = quick
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report))
    finished = bench("--read", file, "--markdown")
    assert (finished.returncode, finished.stdout) == (0, printed)


def test_each_target_is_met_up_to_its_limit_and_not_beyond(quick: tuple[dict[str, Any], str]) -> None:
    report, _ = quick
    # The figures of the quick run in the place of the large ones: here only the names matter.
    measured = json.loads(json.dumps(report["data_sets"][QUICK.name]))
    results = measured["results"]
    results["floor"]["seconds"] = 1.0
    wanted = {
        LARGE.name: {"stored": 1.0, "verified": 0.95, "unchanged": 0.6, "live": 1.05, "live_without": 0.85},
        MEDIUM.name: {"two_stored": 0.9, "two_verified": 1.0, "two_unchanged": 0.75, "live_changed": 1.2},
    }
    for name, limits in wanted.items():
        for entry, limit in limits.items():
            label = f"{name}: {measured['labels'][entry]}"
            for seconds, met in ((limit, True), (limit + 0.01, False)):
                results[entry]["seconds"] = seconds
                told = {target.what: target.met for target in targets({"data_sets": {name: measured}})}
                assert told[label] is met, (label, seconds)


def test_sealing_is_apart_from_the_run_that_does_it(quick: tuple[dict[str, Any], str]) -> None:
    report, _ = quick
    measured = json.loads(json.dumps(report["data_sets"][QUICK.name]))
    results = measured["results"]
    assert results["verified"]["seal_seconds"] > results["live"]["seal_seconds"] > 0, "a live day is not sealed"
    assert results["verified"]["process_seconds"] > results["verified"]["seconds"] + results["verified"]["seal_seconds"]
    results["floor"]["seconds"] = 1.0
    for seconds, met in ((0.5, True), (0.51, False)):
        results["verified"]["seal_seconds"] = seconds
        told = {target.what: target.met for target in targets({"data_sets": {LARGE.name: measured}})}
        assert told["large: sealing a date, once a day"] is met


def test_small_is_compared_with_a_process_that_only_connects(quick: tuple[dict[str, Any], str]) -> None:
    report, _ = quick
    measured = json.loads(json.dumps(report["data_sets"][QUICK.name]))
    measured["results"]["connect"]["process_seconds"] = 1.0
    measured["results"]["verified"]["process_seconds"] = 1.3
    first = targets({"data_sets": {SMALL.name: measured}})[0]
    assert (first.figure, first.limit) == (1.3, 1.3)


def test_the_model_takes_its_constants_from_what_size_adds(quick: tuple[dict[str, Any], str]) -> None:
    report, _ = quick
    assert model_sheets(report) == []  # one size alone tells no growth
    small = json.loads(json.dumps(report["data_sets"][QUICK.name]))
    large = json.loads(json.dumps(small))
    large.update(wanted=small["wanted"] + 1000, keys=small["keys"] + 2000, merchants=small["merchants"] + 100)
    added = {
        ("walk", "seconds"): 0.002,
        ("verified", "scan_seconds"): 0.006,
        ("live", "store_seconds"): 0.020,
        ("live_changed", "store_seconds"): 0.010,
        ("live_changed", "verify_seconds"): 0.005,
        ("live", "megabytes"): 0.1,
    }
    for (entry, figure), more in added.items():
        large["results"][entry][figure] += more
    large["results"]["verified"]["store_seconds"], large["results"]["two_verified"]["store_seconds"] = 1.0, 0.6
    constants = Constants.of({**report, "data_sets": {"a": small, "b": large}})
    assert constants.walk == pytest.approx(1)
    assert constants.sort == pytest.approx(2)
    assert constants.store_first == pytest.approx(20)
    assert constants.store_again == pytest.approx(10)
    assert constants.verify == pytest.approx(5)
    assert constants.serial == pytest.approx(0.2)
    assert constants.bytes_a_merchant == pytest.approx(1000)
    assert len(model_sheets({**report, "data_sets": {"a": small, "b": large}})) == 2


def test_the_model_computes_what_the_docs_say() -> None:
    constants = Constants(
        walk=1.0,
        sort=2.0,
        store_first=20.0,
        store_again=10.0,
        verify=5.0,
        serial=0.2,
        fixed_seconds=0.5,
        wal_first=300.0,
        wal_again=100.0,
        row_bytes=150.0,
        redis_bytes=100.0,
        xcom_bytes=20.0,
        base_megabytes=60.0,
        bytes_a_merchant=500.0,
    )
    cost = Cost.of(Load(1_000_000, 100_000, primaries=2, workers=4), constants)
    assert cost.scan == pytest.approx(8 * (1 / 2 + 2) + 0.5)
    assert cost.store_first == pytest.approx(20 * (0.2 + 0.8 / 4))
    assert cost.store_again == pytest.approx(10 * (0.2 + 0.8 / 4))
    assert cost.verify == pytest.approx(5)
    assert cost.run == pytest.approx(cost.scan + cost.store_again + cost.verify)
    assert cost.wal_run == pytest.approx(0.1)
    assert cost.wal_day == pytest.approx(0.3 + 23 * 0.1)
    assert cost.table_month == pytest.approx(4.5)
    assert cost.redis == pytest.approx(0.8)
    assert cost.xcom == pytest.approx(0.002)
    assert cost.scan_megabytes == pytest.approx(110)


def a_report(ratios: list[float], *, megabytes: float = 50.0, name: str = "medium") -> dict[str, Any]:
    of_entry = {"labels": {"live": "the live day"}, "ratios": {"live": ratios}}
    return {
        "rounds": len(ratios),
        "data_sets": {name: {**of_entry, "results": {"live": {"megabytes": megabytes}, "floor": {"megabytes": 1}}}},
    }


@pytest.mark.parametrize(
    ("then", "now", "worse"),
    [
        pytest.param([0.9, 1.0, 1.1], [0.9, 1.0, 1.1], False, id="the same"),
        pytest.param([0.9, 1.0, 1.1], [1.0, 1.2, 1.5], False, id="within the noise"),
        pytest.param([0.9, 1.0, 1.1], [1.15, 1.2, 1.3], False, id="hardly beyond it"),
        pytest.param([0.9, 1.0, 1.1], [1.16, 1.2, 1.3], True, id="beyond it"),
        pytest.param([1.2, 1.0, 1.1], [0.8, 0.5, 0.7], False, id="better"),
    ],
)
def test_what_became_worse_is_told_from_noise(then: list[float], now: list[float], worse: bool) -> None:
    found = {change.what: change for change in changes(a_report(now), a_report(then))}
    assert found["medium: the live day"].worse is worse
    assert found["medium: the live day"].now == sorted(now)[1]
    assert not found["medium: MB, the live day"].worse
    assert len(found) == 2


def test_more_memory_is_worse() -> None:
    *_, memory = changes(a_report([1, 1, 1], megabytes=53), a_report([1, 1, 1]))
    assert (memory.then, memory.now, memory.worse) == (50, 53, True)


@pytest.mark.parametrize(
    ("now", "then", "told"),
    [
        pytest.param(a_report([1, 1]), a_report([1, 1, 1]), "this run has 2 rounds", id="this one too short"),
        pytest.param(a_report([1, 1, 1]), a_report([1]), "the stored one has 1 rounds", id="stored one too short"),
        pytest.param(a_report([1, 1, 1]), a_report([1, 1, 1], name="small"), "medium", id="nothing in common"),
    ],
)
def test_what_cannot_be_compared_is_said(now: dict[str, Any], then: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        changes(now, then)


def test_a_stored_run_is_compared_with_and_fails_where_it_was_better(
    quick: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    report, _ = quick
    report = {**report, "rounds": 3}
    now, then = tmp_path / "now.json", tmp_path / "then.json"
    now.write_text(json.dumps(report))
    same = bench("--read", now, "--against", now)
    assert same.returncode == 0, same.stderr
    assert "0 of" in same.stdout
    better = json.loads(json.dumps(report))
    better["data_sets"][QUICK.name]["ratios"]["live_unchanged"] = [0.001]
    then.write_text(json.dumps(better))
    slower = bench("--read", now, "--against", then)
    assert slower.returncode == 1
    assert "1 of" in slower.stdout
    assert "WORSE" in slower.stdout


@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--quick", "--full"), ("--data", "huge")], ids=" ".join)
def test_arguments_that_cannot_be_used_are_refused(arguments: tuple[str, ...]) -> None:
    finished = bench(*arguments)
    assert finished.returncode == 2
    assert arguments[-2 if arguments[0] != "--quick" else -1] in finished.stderr


@pytest.mark.parametrize("asked", ["empty", "one task", str(PROJECT / "dags" / "usage_aggregation.py")])
def test_a_dag_file_is_parsed_and_timed(asked: str, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "bench.parse_time", asked],
        cwd=PROJECT,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(finished.stdout.splitlines()[-1]) > 0


def test_a_dag_file_that_cannot_be_loaded_is_not_timed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('this airflow dag is broken on purpose')")
    finished = subprocess.run(
        [sys.executable, "-m", "bench.parse_time", broken],
        cwd=PROJECT,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "broken on purpose" in finished.stderr


def test_dag_runs_are_judged_by_the_shape_and_the_engine() -> None:
    seconds = {"no_op_one": 8.0, "no_op_all": 18.0, "engine": 2.0, "dag": 20.0, "dag_unchanged": 19.0}
    parse = {"empty": 10.0, "one_task": 30.0, "ours": 70.0}
    measured = {"description": "some data", "batches": 32, "seconds": seconds, "parse_milliseconds": parse}
    _, wanted = dag_sheets(measured, rounds=3)
    assert [row[1:] for row in wanted.rows] == [
        ("2.00", "<= 1.5", "NO"),
        ("1.00", "<= 1.5", "yes"),
        ("60", "<= 50", "NO"),
        ("40", "<= 50", "yes"),
    ]


def test_the_hourly_run_is_measured_beside_other_days(tmp_path: Path) -> None:
    file = tmp_path / "beside.json"
    finished = bench("--beside", "--quick", "--json", file, "--markdown")
    assert finished.returncode == 0, finished.stderr
    measured = json.loads(file.read_text())["beside"]
    assert measured["run"] > measured["walk"] > 0 < measured["run_alone"]
    assert "| the same beside the other days " in finished.stdout


@pytest.mark.parametrize(("seconds", "ratio", "met"), [(21.0, "1.05", "yes"), (21.4, "1.07", "NO")])
def test_other_days_may_cost_what_walking_past_them_costs(seconds: float, ratio: str, met: str) -> None:
    _, target = beside_sheets({"description": "data", "walk": 8.0, "run_alone": 12.0, "run": seconds}, rounds=3)
    assert [row[1:] for row in target.rows] == [(ratio, "<= 1.05", met)]


def of_sizes(live_seconds: float, megabytes: float = 60.0) -> dict[str, Any]:
    """What `--tenfold` measures, where all but the largest first load grows with the counters."""
    sizes: list[dict[str, Any]] = []
    for wanted in (100, 1000, 10_000):
        figures: dict[str, float] = {
            "seconds": wanted / 100 + 1,
            **dict.fromkeys(PHASES, wanted / 100),
            "megabytes": megabytes,
        }
        runs = {name: dict(figures) for name, *_ in RUNS}
        sizes.append({"description": f"{wanted}", "wanted": wanted, "runs": runs})
    sizes[-1]["runs"]["live"] |= {"seconds": live_seconds, "scan_seconds": 110.0}
    return {"sizes": sizes}


def test_ten_times_the_counters_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "tenfold.json"
    finished = bench("--tenfold", "--quick", "--json", file, "--markdown")
    assert finished.returncode == 0, finished.stderr
    sizes = json.loads(file.read_text())["tenfold"]["sizes"]
    assert [size["wanted"] for size in sizes] == [QUICK.wanted // 10, QUICK.wanted, QUICK.wanted * 10]
    assert all(list(size["runs"]) == [name for name, *_ in RUNS] for size in sizes)
    assert "### The largest, forecast from the other two" in finished.stdout


@pytest.mark.parametrize(("seconds", "ratio", "met"), [(115.5, "1.05", "yes"), (117.0, "1.06", "NO")])
def test_ten_times_the_counters_may_take_ten_times_the_seconds(seconds: float, ratio: str, met: str) -> None:
    *_, wanted = tenfold_sheets(of_sizes(seconds), 1)
    told = {row[0]: row[1:] for row in wanted.rows}
    assert told["(d) first load of a day that still grows / ten times those of a tenth"] == (ratio, "<= 1.05", met)


@pytest.mark.parametrize(("megabytes", "met"), [(96.0, "yes"), (96.01, "NO")])
def test_ten_times_the_counters_may_take_half_as_much_memory_again(megabytes: float, met: str) -> None:
    *_, wanted = tenfold_sheets(of_sizes(100.0, megabytes), 1)
    assert list(wanted.rows)[-1] == ("peak memory of a process, MB", f"{megabytes:.2f}", "<= 96.0", met)


def test_the_largest_is_forecast_by_a_line_through_the_smaller_two() -> None:
    measured = of_sizes(100.0)
    assert forecast(measured["sizes"], "live", "scan_seconds") == 100.0
    foretold = next(sheet for sheet in tenfold_sheets(measured, 1) if "forecast" in sheet.title)
    assert ("(d) first load of a day that still grows: scan", "100.0", "110.0", "1.10") in foretold.rows


@pytest.mark.parametrize(("ours", "ratio", "met"), [(13.5, "1.35", "yes"), (13.6, "1.36", "NO")])
def test_a_whole_process_is_compared_with_a_reader_in_c(ours: float, ratio: str, met: str) -> None:
    seconds = {"c": 10.0, "ours": ours, "dlt": 2 * ours}
    table, left_out, target = peer_sheets({"description": "data", "seconds": seconds, "missing": ["Node: none"]}, 3)
    assert [row[1:] for row in target.rows] == [(ratio, "<= 1.35", met)]
    assert list(left_out.rows) == [("Node: none",)]
    assert [row[2] for row in table.rows if row[0].startswith("dlt")] == ["2.00"]


def test_peers_that_cannot_be_had_are_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, reason in (("c", "no C compiler"), ("original", "no Node")):
        with pytest.raises(peers.NotHere, match=reason):
            next(peer for peer in peers.PEERS if peer.name == name).prepare()


def test_a_reader_in_c_moves_the_day_whole_where_it_can_be_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valkey: Valkey, postgres: Postgres, redis_client: redis.Redis
) -> None:
    assert redis_client.dbsize() == 0
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    reader = peers.PEERS[0]
    if shutil.which("cc") is None:
        with pytest.raises(peers.NotHere):
            reader.prepare()
        return
    with admin_connection(postgres) as conn:
        stage = Stage.set(valkey, postgres, conn, QUICK)
        stage.empty()
        reader.prepare()(stage)
        assert stage.number(reader.total) == QUICK.total
