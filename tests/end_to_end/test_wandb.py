"""A real offline wandb run, read record by record: complete, with the round as axis, equal to the run's files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

import pytest
import support
from wandb_records import assert_complete, axes, from_csv, read_back, records, run_file, summary

from fedreid_pl.cli import main

pytestmark = pytest.mark.system

SCORES = ("rank1", "rank5", "rank10", "mAP", "mINP")
PHASES = ("fit", "aggregate", "evaluate", "checkpoint", "other", "total")


def train(root: Path, folder: Path, *words: str) -> Path:
    assert main(["train", *support.quick(root, folder, "logger=wandb", *words)]) == 0
    return folder


@pytest.fixture(scope="module")
def distilled(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a run with distance weights and distillation, without clusters."""
    return train(tiny_root, tmp_path_factory.mktemp("run"), "exp=fedpav_kd_rw")


@pytest.fixture(scope="module")
def clustered(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_root, tmp_path_factory.mktemp("run"), "exp=fedpav_cc")


def test_every_number_is_logged_by_round_and_equals_the_files(distilled: Path, clustered: Path) -> None:
    assert_complete(distilled)
    assert_complete(clustered)
    first, last = read_back(distilled)[0], read_back(distilled)[2]
    for client in support.TINY:
        wanted = {f"{models}/{client}/{metric}" for models in ("global", "local") for metric in SCORES}
        wanted |= {f"weights/{client}/{metric}" for metric in ("weight", "cosine_distance")}
        wanted |= {f"train/{client}/{metric}" for metric in ("loss", "accuracy", "bn_mean_drift", "bn_var_drift")}
        wanted |= {f"cost/{client}/bytes_{direction}" for direction in ("up", "down")}
        assert wanted <= last.keys()
        assert f"weights/{client}/cluster" in read_back(clustered)[2]
        assert {f"global/{client}/{metric}" for metric in SCORES} <= first.keys()
    wanted = {f"system/{phase}/seconds" for phase in PHASES} | {"system/process/peak_memory_bytes"}
    assert wanted | {"train/server/distillation_loss"} <= last.keys()


def test_derived_numbers_are_logged_too(distilled: Path) -> None:
    logged, written = read_back(distilled), from_csv(distilled)
    for number in (1, 2):
        for models in ("global", "local"):
            for metric in SCORES:
                values = [written[number][f"{models}/{client}/{metric}"] for client in support.TINY]
                assert logged[number][f"{models}/mean/{metric}"] == pytest.approx(fmean(values), abs=1e-12)
    sent = [value for values in written.values() for key, value in values.items() if key.startswith("cost/")]
    assert logged[2]["cost/total/bytes"] == sum(sent) == 2 * logged[1]["cost/total/bytes"]
    shares = [written[2][f"weights/{client}/weight"] for client in support.TINY]
    assert sum(shares) == pytest.approx(1)


def test_every_chart_has_the_round_as_its_axis(distilled: Path) -> None:
    defined = axes(distilled)
    assert {key.partition("/")[0] + "/*" for key in from_csv(distilled)[2]} <= defined.keys()
    assert {axis for name, (axis, _) in defined.items() if name != "round"} == {"round"}
    assert defined["global/*"][1] == defined["local/*"][1] == {"last", "max"} and defined["train/*"][1] == {"last"}


def test_run_name_group_config_and_headline(distilled: Path) -> None:
    (run,) = [item.run for item in records(run_file(distilled)) if item.WhichOneof("record_type") == "run"]
    assert (run.display_name, run.run_group, run.project) == (
        "fedpav_kd_rw-seed0",
        "fedpav_kd_rw",
        "fedreid_pl-minireid",
    )
    assert set(run.tags) == {"minireid", "synthetic"}
    assert run.run_id == (distilled / "wandb" / "run_id").read_text().split()[0]
    config = {item.key: item.value_json for item in run.config.update}
    assert (
        config["rounds"] == "2" and '"torchmetrics"' in config["versions"] and '"distillation"' in config["callbacks"]
    )
    assert str(distilled).encode() not in run_file(distilled).read_bytes(), "no path of the machine is sent"
    logged, values = read_back(distilled), summary(distilled)
    curve = [logged[number]["global/mean/rank1"] for number in (1, 2)]
    assert values["summary/global/rank1/last"] == curve[-1] and values["summary/global/rank1/best"] == max(curve)
    assert values["best_round"] == (2 if curve[1] >= curve[0] else 1) and values["best_by"] == "test"
    assert logged[2]["tables/scores/_type"] == logged[2]["tables/weights/_type"] == "table-file"
    assert logged[2]["tables/weights/nrows"] == 2 * len(support.TINY)
    for client in support.TINY:  # synthetic data: its ranked lists are written, and sent
        assert logged[2][f"ranked/{client}/count"] >= 2


def test_killed_and_resumed_has_every_round_once(tiny_root: Path, tmp_path: Path) -> None:
    words = ["train", "exp=fedpav_rw", *support.quick(tiny_root, tmp_path, "logger=wandb", "rounds=4")]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    process = subprocess.Popen([sys.executable, "-m", "fedreid_pl", *words], env=environment, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not (tmp_path / "checkpoints" / "round-00002.ckpt").exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "checkpoints" / "round-00004.ckpt").exists(), "the kill came too late"
    started = (tmp_path / "wandb" / "run_id").read_text()
    assert main(words) == 0
    assert sorted(read_back(tmp_path)) == [0, 1, 2, 3, 4]
    assert_complete(tmp_path)
    assert (tmp_path / "wandb" / "run_id").read_text() == started, "the run id is the same"
    seconds = [values["system/fit/seconds"] for number, values in from_csv(tmp_path).items() if number]
    assert len(seconds) == 4 and all(value > 0 for value in seconds)


def test_a_prolonged_run_is_complete_without_duplicates(tiny_root: Path, tmp_path: Path) -> None:
    train(tiny_root, tmp_path, "exp=fedpav_rw", "rounds=1")
    train(tiny_root, tmp_path, "exp=fedpav_rw", "rounds=3")
    assert sorted(read_back(tmp_path)) == [0, 1, 2, 3]
    assert_complete(tmp_path)
    train(tiny_root, tmp_path, "exp=fedpav_rw", "rounds=3", "wandb.project=elsewhere")  # no round is left to train
    assert_complete(tmp_path)
    (run,) = [item.run for item in records(run_file(tmp_path)) if item.WhichOneof("record_type") == "run"]
    assert run.project == "elsewhere"


def test_a_restarted_run_gets_a_new_id(tiny_root: Path, tmp_path: Path) -> None:
    train(tiny_root, tmp_path / "run", "exp=fedpav", "rounds=1")
    train(tiny_root, tmp_path / "run", "exp=fedpav", "rounds=1", "resume=never", "wandb.artifact=true")
    ids = {(tmp_path / name / "wandb" / "run_id").read_text() for name in ("run", "run.old-1")}
    assert len(ids) == 2
    models = [
        item.artifact
        for item in records(run_file(tmp_path / "run"))
        if item.WhichOneof("record_type") == "artifact" and item.artifact.type == "model"
    ]
    assert len(models) == 1 and set(models[0].aliases) >= {"best", "round-1"} and models[0].name == "fedpav-seed0"
    (entry,) = models[0].manifest.contents
    assert entry.path == "round-00001.ckpt"
    assert entry.size == (tmp_path / "run" / "checkpoints" / "round-00001.ckpt").stat().st_size


def test_rounds_without_evaluation_and_standalone_training(tiny_root: Path, tmp_path: Path) -> None:
    train(tiny_root, tmp_path, "exp=local", "rounds=3", "evaluate_every=2")
    logged, written = read_back(tmp_path), from_csv(tmp_path)
    assert sorted(logged) == sorted(written) == [1, 2, 3]
    for number, values in written.items():
        assert {key: logged[number][key] for key in values} == values
    assert "local/mini-viper/rank1" not in logged[1] and "local/mini-viper/rank1" in logged[2]
    assert not [key for key in logged[3] if "drift" in key], "no model is exchanged"
