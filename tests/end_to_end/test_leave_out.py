"""`data.leave_out`: the run is tested on an unseen dataset, which affects no training, validation or selection."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import support
from PIL import Image

from fedreid_pl.cli import main
from fedreid_pl.data.datamodule import ReIDDataModule, TrainImages
from fedreid_pl.data.images import ImageSource
from fedreid_pl.federation.storage import read_state

TARGET = "mini-market1501"
"""The largest dataset: any use of its images would change the results."""
OPTIONS = (f"data.leave_out={TARGET}", "data.val_ids=0.4", "trainer.accelerator=cpu", "data.public=null")


def train(root: Path, folder: Path, *words: str, exp: str = "fedpav") -> dict:
    """Trains on the remaining tiny datasets and returns the summary."""
    assert main(["train", f"exp={exp}", *support.quick(root, folder), *words]) == 0
    return json.loads((folder / "summary.json").read_text())


def records(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def learnt(folder: Path) -> dict:
    """Returns the run's models, heads, selected round and scores on its own clients."""
    state = read_state(folder / "checkpoints" / "round-00002.ckpt")
    clients = {path.parent.name: read_state(path) for path in sorted((folder / "clients").glob("*/round-00002.pt"))}
    summary = json.loads((folder / "summary.json").read_text())
    own = [row for row in records(folder) if not row["section"].startswith("unseen")]
    return {
        "models": state["models"],
        "heads": {name: kept["head"] for name, kept in clients.items()},
        "chosen": (summary["best_round"], summary["best_by"], summary["clients"]),
        "records": own,
    }


@pytest.fixture(scope="module")
def clean(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a run that leaves out the target."""
    folder = tmp_path_factory.mktemp("clean")
    train(tiny_root, folder, *OPTIONS)
    return folder


def poisoned(root: Path, to: Path) -> Path:
    """Returns a copy in which the target's training files are renamed, unreadable or missing."""
    shutil.copytree(root, to)
    for number, path in enumerate(sorted((to / TARGET / "bounding_box_train").iterdir())):
        if number % 3 == 0:
            path.unlink()
        else:
            path.write_bytes(b"canary, no picture")
            path.rename(path.with_name(f"{7000 + number:04d}_c1s1_{number:06d}_00.jpg"))
    return to


def test_training_files_of_the_target_change_no_bit(tiny_root: Path, tmp_path: Path, clean: Path) -> None:
    train(poisoned(tiny_root, tmp_path / "data"), tmp_path / "run", *OPTIONS)
    support.assert_equal(learnt(tmp_path / "run"), learnt(clean))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (clean / "metrics.csv").read_bytes()
    split = json.loads((clean / "splits.json").read_text())[TARGET]
    assert split == json.loads((tmp_path / "run" / "splits.json").read_text())[TARGET] and split["train"] == 0


def test_test_images_of_the_target_change_only_its_own_scores(tiny_root: Path, tmp_path: Path, clean: Path) -> None:
    shutil.copytree(tiny_root, tmp_path / "data")
    pictures = [
        path for side in ("query", "bounding_box_test") for path in (tmp_path / "data" / TARGET / side).iterdir()
    ]
    for number, path in enumerate(sorted(pictures)):
        noise = np.random.default_rng(number).integers(0, 256, (64, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    train(tmp_path / "data", tmp_path / "run", *OPTIONS)
    support.assert_equal(learnt(tmp_path / "run"), learnt(clean))
    scores = [[row for row in records(folder) if row["section"] == "unseen"] for folder in (clean, tmp_path / "run")]
    assert scores[0] != scores[1] and len(scores[0]) == len(scores[1])


def test_a_network_in_training_reads_no_file_of_the_target(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[str, set[str]] = {"train": set(), "probe": set(), "all": set()}
    plain = {"read": ImageSource.read, "batch": TrainImages.__getitems__, "probe": ReIDDataModule.probe_batch}

    def noted(self, rows):
        read["all"] |= {self.files[int(row)] for row in rows}
        return plain["read"](self, rows)

    def batch(self, rows):
        read["train"] |= {self.source.files[row] for row in rows.rows}
        return plain["batch"](self, rows)

    def probe(self, *arguments, **named):
        before = set(read["all"])
        read["all"].clear()
        found = plain["probe"](self, *arguments, **named)
        read["probe"] |= read["all"]
        read["all"] |= before
        return found

    monkeypatch.setattr(ImageSource, "read", noted)
    monkeypatch.setattr(TrainImages, "__getitems__", batch)
    monkeypatch.setattr(ReIDDataModule, "probe_batch", probe)
    train(tiny_root, tmp_path, *OPTIONS, exp="fedpav_rw")
    assert read["train"] and read["probe"]
    assert not any(f"/{TARGET}/" in path for path in read["train"] | read["probe"])
    target = {Path(path).parent.name for path in read["all"] if f"/{TARGET}/" in path}
    assert target == {"query", "bounding_box_test"}


def test_the_scores_appear_in_table_summary_and_report(clean: Path, capsys: pytest.CaptureFixture) -> None:
    summary = json.loads((clean / "summary.json").read_text())
    assert set(summary["unseen"]) == {TARGET, "mean"} and set(summary["clients"]) == set(support.TINY) - {TARGET}
    assert not any(TARGET in summary[section] for section in ("global", "local", "val_global", "val_local"))
    assert {row["round"] for row in records(clean) if row["section"] == "unseen"} == {"0", "1", "2"}
    assert main(["evaluate", f"run={clean}"]) == 0
    printed = capsys.readouterr().out
    last = summary["unseen"][TARGET]
    line = next(line for line in printed.splitlines() if line.startswith(TARGET))
    assert line.split()[1:] == [f"{100 * last[metric]['last']:.1f}" for metric in ("rank1", "mAP")]
    assert "do not influence the choice of the best round" in re.sub(r"\s+", " ", printed)
    page = (clean / "report.html").read_text()
    assert "Datasets that were left out" in page and f"{100 * last['mAP']['last']:.1f}" in page


def test_every_model_of_a_run_without_a_whole_global_one(tiny_root: Path, tmp_path: Path) -> None:
    """Standalone clients, and clients with local BatchNorm: the mean over models, and each model."""
    for exp, word in (("local", "rounds=2"), ("fedpav", "callbacks.backbone_sync.batch_norm=local")):
        found = train(tiny_root, tmp_path / exp, f"data.leave_out={TARGET}", word, exp=exp)
        models = [found["unseen_models"][f"{TARGET} by {client}"]["mAP"]["last"] for client in found["clients"]]
        assert len(models) == 2 and models[0] != models[1]
        assert found["unseen"][TARGET]["mAP"]["last"] == pytest.approx(sum(models) / 2)


def test_the_score_is_that_of_the_model_on_a_dataset_it_never_saw(
    tiny_root: Path, clean: Path, capsys: pytest.CaptureFixture
) -> None:
    """`evaluate` on other data gives the same numbers."""
    words = [f"data.root={tiny_root}", f"data.datasets=[{TARGET}]", "data.public=null", "data.val_ids=0"]
    assert main(["evaluate", f"run={clean}", *words]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("global"))
    last = json.loads((clean / "summary.json").read_text())["unseen"][TARGET]
    wanted = [f"{100 * last[metric]['last']:.1f}" for metric in ("rank1", "rank5", "rank10", "mAP")]
    assert line.split() == ["global", TARGET, *wanted]


def test_a_resume_is_bit_identical_and_another_target_is_refused(
    tiny_root: Path, tmp_path: Path, clean: Path, capsys: pytest.CaptureFixture
) -> None:
    train(tiny_root, tmp_path, *OPTIONS, "rounds=1")
    train(tiny_root, tmp_path, *OPTIONS)
    support.assert_equal(learnt(tmp_path), learnt(clean))
    capsys.readouterr()
    words = [*support.quick(tiny_root, tmp_path, *OPTIONS), "rounds=3", "data.leave_out=mini-viper"]
    assert main(["train", "exp=fedpav", *words]) == 2
    assert "data.leave_out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["data.leave_out=mini-vipr"], "data.leave_out=mini-vipr: no such dataset, did you mean 'mini-viper'?"),
        (["data.leave_out=mini-cuhk02"], "data.leave_out=mini-cuhk02: no such dataset"),
        ([f"data.leave_out={','.join(support.TINY)}"], "leaves out every dataset"),
        (["data.leave_out=mini-viper,mini-viper"], "give each dataset once"),
    ],
)
def test_invalid_targets_are_refused(
    words: list[str], hint: str, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "run", *words)]) == 2
    said = capsys.readouterr().err.strip()
    assert hint in said and "\n" not in said and not (tmp_path / "run").exists()


def test_weights_of_a_run_that_trained_on_the_target_are_refused(
    tiny_root: Path, tmp_path: Path, clean: Path, capsys: pytest.CaptureFixture
) -> None:
    words = support.quick(tiny_root, tmp_path / "run", f"model.weights={clean}", "rounds=1")
    assert main(["train", "exp=fedpav", *words, "data.leave_out=mini-viper"]) == 2
    said = capsys.readouterr().err.strip()
    assert "data.leave_out=mini-viper: the run in model.weights=" in said and "trained with this dataset" in said
    assert main(["train", "exp=fedpav", *words, f"data.leave_out={TARGET}"]) == 0


def test_an_image_of_the_target_among_training_images_is_refused(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(tiny_root, tmp_path / "data")
    source = next((tmp_path / "data" / TARGET / "query").iterdir())
    place = tmp_path / "data" / "mini-viper" / "bounding_box_train"
    shutil.copy(source, place / next(place.iterdir()).name)
    words = support.quick(tmp_path / "data", tmp_path / "run", "rounds=1")
    assert main(["train", "exp=fedpav", *words, f"data.leave_out={TARGET}"]) == 2
    said = capsys.readouterr().err
    assert "data.overlap=auto: 1 of the" in said and f"{TARGET} query" in said and "mini-viper train" in said
    assert main(["train", "exp=fedpav", *words, f"data.leave_out={TARGET}", "data.overlap=warn"]) == 0


def test_leave_out_is_refused_with_silos(capsys: pytest.CaptureFixture) -> None:
    from fedreid_pl.config import compose
    from fedreid_pl.engines.silos.shared import check_shareable
    from fedreid_pl.errors import FedReIDError

    with pytest.raises(FedReIDError, match=r"data\.leave_out=GRID: with engine=silos"):
        check_shareable(compose(["exp=fedpav", "data.leave_out=GRID"]))
