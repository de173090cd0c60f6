"""A run with one bad client: its updates are refused and counted, and the model has the bits of a run without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import support
from hostile.updates import UPDATES, metrics
from reliability.bad_updates import engine_with

from fedreid_pl.cli import main
from fedreid_pl.engines import sequential
from fedreid_pl.federation.storage import read_state

LAST = support.TINY[2]
OTHERS = f"data.datasets=[{','.join(support.TINY[:2])}]"
EXPERIMENTS = (
    "fedpav",
    "fedpav_rw",
    "fedpav_kd_rw",
    "fedpav_cc_rw",
    "fedadam",
    "fednova",
)  # SCAFFOLD divides by the number of registered clients


def models(folder: Path) -> dict[str, Any]:
    return read_state(folder / "checkpoints" / "round-00002.ckpt")["models"]


@pytest.fixture(scope="module")
def without(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Returns the models of every experiment in a federation without the third client."""
    found = {}
    for exp in EXPERIMENTS:
        folder = tmp_path_factory.mktemp(exp)
        assert main(["train", f"exp={exp}", *support.quick(tiny_root, folder, OTHERS)]) == 0
        found[exp] = models(folder)
    return found


def run(root: Path, folder: Path, exp: str, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sequential, "SequentialEngine", engine_with(LAST, spoil))
    assert main(["train", f"exp={exp}", *support.quick(root, folder, "client_retries=0")]) == 0
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("defect", UPDATES)
def test_a_bad_update_is_refused_and_leaves_the_model_unchanged(
    defect: str, tiny_root: Path, tmp_path: Path, without: Any, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    summary = run(tiny_root, tmp_path, "fedpav", UPDATES[defect], monkeypatch)
    support.assert_equal(models(tmp_path), without["fedpav"])
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    told = "nobody" if defect == "another's name" else LAST
    assert [f"round {round}: client {told} is left out" in " ".join(warnings) for round in (1, 2)] == [True, True]
    assert summary["rejected"][told] == 2
    reasons = summary["rejections"][told]
    assert all(reasons) and sorted(round for rounds in reasons.values() for round in rounds) == [1, 2]
    assert set(summary["weights"]) == set(support.TINY[:2])


@pytest.mark.parametrize("exp", EXPERIMENTS)
def test_a_refused_update_does_not_change_any_algorithm(
    exp: str, tiny_root: Path, tmp_path: Path, without: Any, monkeypatch: Any
) -> None:
    run(tiny_root, tmp_path, exp, UPDATES["NaN"], monkeypatch)
    found = models(tmp_path)  # under clustering the refused client keeps the initial model
    support.assert_equal({name: found[name] for name in without[exp]}, without[exp])


@pytest.mark.parametrize("distance", [-1.0, 5.0, 1e300])
def test_a_false_cosine_distance_does_not_skew_the_weights(
    distance: float, tiny_root: Path, tmp_path: Path, without: Any, monkeypatch: Any
) -> None:
    summary = run(tiny_root, tmp_path, "fedpav_rw", metrics(cosine_distance=distance), monkeypatch)
    support.assert_equal(models(tmp_path), without["fedpav_rw"])
    assert sum(summary["weights"].values()) == pytest.approx(1) and LAST not in summary["weights"]


def test_a_repeated_update_counts_once(
    tiny_root: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "once")]) == 0
    summary = run(tiny_root, tmp_path / "twice", "fedpav", lambda update: [update, update], monkeypatch)
    support.assert_equal(models(tmp_path / "twice"), models(tmp_path / "once"))
    assert summary["rejections"] == {LAST: {"the answer belongs to no job, or is a repetition": [1, 2]}}


def test_too_many_bad_updates_stop_the_run_with_one_line(
    tiny_root: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sequential, "SequentialEngine", engine_with(LAST, UPDATES["NaN"]))
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path, "min_clients=3")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: round 1: 2 of 3 clients sent a valid update, but min_clients=3")
    monkeypatch.undo()
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path)]) == 0, "min_clients may be lowered"
