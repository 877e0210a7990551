"""`merchant-usage dag-file`: the DAG file that belongs to this version, to look at or to be written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from merchant_usage import __version__
from merchant_usage.cli import dag_file
from merchant_usage.cli.main import main
from merchant_usage.log import Log, find_by
from tests.support import PROJECT

OURS = (PROJECT / "dags" / "usage_aggregation.py").read_text(encoding="utf-8")
HEAD = f"# merchant-usage {__version__} has written this file: merchant-usage dag-file. SHA-256 of the rest: "


@pytest.fixture(autouse=True)
def log_stays_where_it_goes() -> Iterator[None]:
    before = Log.find
    yield
    find_by(before)


def written(text: str) -> str:
    """What is under the first line, which says by whom it was written."""
    head, rest = text.split("\n", 1)
    assert re.fullmatch(re.escape(HEAD) + "[0-9a-f]{64}", head)
    return rest


def test_without_a_path_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dag-file"]) == 0
    assert written(capsys.readouterr().out) == OURS


@pytest.mark.parametrize("name", ["", "usage_aggregation.py", "another_name.py"])
def test_it_is_written_into_a_folder_or_by_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    target = tmp_path / (name or "usage_aggregation.py")
    assert main(["dag-file", str(tmp_path / name)]) == 0
    assert written(target.read_text(encoding="utf-8")) == OURS
    assert capsys.readouterr().out == f"Wrote {target}\n"
    assert list(tmp_path.iterdir()) == [target]


def test_the_one_that_asks_people_is_written_on_request(tmp_path: Path) -> None:
    assert main(["dag-file", "--decisions", str(tmp_path)]) == 0
    (target,) = tmp_path.iterdir()
    assert target.name == "usage_decisions.py"
    assert written(target.read_text(encoding="utf-8")) == (PROJECT / "dags" / target.name).read_text(encoding="utf-8")


def test_again_it_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["dag-file", str(tmp_path)])
    (target,) = tmp_path.iterdir()
    before = target.stat().st_mtime_ns
    assert main(["dag-file", str(tmp_path)]) == 0
    assert target.stat().st_mtime_ns == before
    assert capsys.readouterr().out.splitlines()[-1] == f"{target} is that of {__version__} already"


def test_that_of_another_version_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "dags" / "usage_aggregation.py"
    other.parent.mkdir()
    other.write_text(OURS + "# of another version\n", encoding="utf-8")
    target = tmp_path / "usage_aggregation.py"
    with monkeypatch.context() as patched:
        patched.setattr(dag_file, "_DAGS", other.parent)
        patched.setattr(dag_file, "__version__", "99.0")
        assert main(["dag-file", str(target)]) == 0
    assert target.read_text(encoding="utf-8").startswith("# merchant-usage 99.0 ")
    assert main(["dag-file", str(target)]) == 0
    assert written(target.read_text(encoding="utf-8")) == OURS


def test_a_copy_of_the_repository_s_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "usage_aggregation.py"
    target.write_text(OURS, encoding="utf-8")
    assert main(["dag-file", str(target)]) == 0
    assert written(target.read_text(encoding="utf-8")) == OURS


@pytest.mark.parametrize("change", ["another team's", "changed since", "no UTF-8"])
def test_what_it_has_not_written_is_kept_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    main(["dag-file", str(tmp_path)])
    (target,) = tmp_path.iterdir()
    kept = {
        "another team's": b"from airflow.sdk import dag\n",
        "changed since": target.read_bytes().replace(b'"retries": 3', b'"retries": 9'),
        "no UTF-8": b"# caf\xe9\n",
    }[change]
    target.write_bytes(kept)
    assert main(["dag-file", str(tmp_path)]) == 2
    assert target.read_bytes() == kept
    assert capsys.readouterr().err == (
        f"error: {target} was not written by merchant-usage dag-file, or was changed since, so it is left as it is; "
        "--force replaces it.\n"
    )
    assert main(["dag-file", "--force", str(tmp_path)]) == 0
    assert written(target.read_text(encoding="utf-8")) == OURS


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "none" / "usage_aggregation.py"
    assert main(["dag-file", str(target)]) == 2
    assert capsys.readouterr().err == (
        f"error: {target} cannot be written: No such file or directory. It takes a file, or a folder that is there.\n"
    )


def test_a_folder_with_the_name_of_the_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "usage_aggregation.py"
    (target / "usage_aggregation.py").mkdir(parents=True)
    assert main(["dag-file", str(target)]) == 2
    assert "cannot be written: Is a directory" in capsys.readouterr().err
