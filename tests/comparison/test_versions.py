"""Runs of two versions of MiniReID are not compared or mixed; different initial weights are reported."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_runs
import pytest

from fedreid_pl.cli import main
from fedreid_pl.comparison.compare import warn_of_starts
from fedreid_pl.comparison.plan import make_plan
from fedreid_pl.comparison.report import report_of
from fedreid_pl.comparison.results import read_result
from fedreid_pl.config import compose, load_config
from fedreid_pl.data.minireid.versions import check_resumed_version, version_of
from fedreid_pl.errors import FedReIDError

TESTS = ("mini-viper", "mini-ilids")


def made(folder: Path, *words: str) -> Path:
    return made_runs.write_run(folder, list(words), made_runs.history_of(3, TESTS, lambda *_: 0.5), TESTS)


def test_a_configuration_without_a_version_has_the_first(tmp_path: Path) -> None:
    run = made(tmp_path / "run", "rounds=3", "data.version=1")
    file = run / "config.yaml"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("  version:")))
    assert version_of(load_config(file).data) == 1
    assert version_of(compose([]).data) == 2
    assert version_of(compose(["data=minireid_v1"]).data) == 1
    assert version_of(compose(["data=market_layout"]).data) is None


def test_one_plan_has_one_version() -> None:
    with pytest.raises(FedReIDError, match=r"version 1 of MiniReID and .* of version 2; .* never compared") as caught:
        make_plan({"exps": "local fedpav+data.version=1"}, ["data=minireid"], lambda *_: Path(f"{_}"))
    assert "\n" not in str(caught.value)


def test_a_report_has_one_version(tmp_path: Path) -> None:
    runs = [made(tmp_path / name, f"data={name}", "rounds=3") for name in ("minireid", "minireid_v1")]
    assert len(report_of([runs[0], made(tmp_path / "other", "rounds=3", "seed=1")]).experiments["fedpav"]) == 2
    with pytest.raises(FedReIDError, match="never compared"):
        report_of(runs)


def test_a_comparison_does_not_train_over_the_first_version(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fedreid_pl.comparison.compare.check_runs", None)  # refused before images are drawn
    run = made(Path("runs/minireid/fedpav/seed0"), "data.version=1")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "round-00003.ckpt").write_bytes(b"")
    assert main(["compare", "exps=fedpav"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "seed0: is a run of version 1 of MiniReID, but this configuration uses version 2" in line


def test_a_run_is_resumed_only_in_its_own_version() -> None:
    first, second = compose(["data=minireid_v1"]).data, compose([]).data
    with pytest.raises(FedReIDError, match=r"here: is a run of version 1 .* uses version 2; give data=minireid_v1"):
        check_resumed_version("here", first, second)
    with pytest.raises(FedReIDError, match=r"here: is a run of version 2 .* uses version 1; give data=minireid, or"):
        check_resumed_version("here", second, first)
    check_resumed_version("here", first, first)
    check_resumed_version("here", first, compose(["data=market_layout"]).data)  # other checks refuse this configuration


def test_runs_with_different_initial_weights_are_listed(tmp_path: Path) -> None:
    def result(name: str, start: str | None) -> Any:
        return SimpleNamespace(run=SimpleNamespace(name=name), start=start)

    same = [result("local seed 0", "a" * 64), result("fedpav seed 0", "a" * 64), result("scratch", None)]
    assert warn_of_starts(same) == []
    (line,) = warn_of_starts([*same, result("fedpav seed 1", "b" * 64)])
    assert "aaaaaaaaaaaa: local seed 0, fedpav seed 0; bbbbbbbbbbbb: fedpav seed 1" in line


def test_the_start_is_read_from_the_summary(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", "rounds=3")
    (planned,) = make_plan({"exps": "fedpav"}, ["rounds=3"], lambda *_: folder).runs
    found = read_result(planned)
    assert found is not None and found.start is None
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "start": {"name": "x", "sha256": "c" * 64}}))
    found = read_result(planned)
    assert found is not None and found.start == "c" * 64
