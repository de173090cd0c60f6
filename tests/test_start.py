"""The pretrained start weights of MiniReID: training images, bits, file, and the record in a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import support
import torch

import fedreid_pl
from fedreid_pl import start
from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.data.minireid import PUBLIC, VERSIONS, domains_of
from fedreid_pl.data.minireid.lessons import CATEGORIES, LESSONS, Lesson, draw_lesson
from fedreid_pl.data.minireid.looks import COLOURS
from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.weights import build_backbone

SCRIPT = """
import torch
from fedreid_pl import start
from fedreid_pl.data.minireid.lessons import Lesson
torch.set_num_threads(2)
start.EPOCHS = 1
print(start.digest_of_weights(start.train_start(Lesson("things", 100))))
assert torch.get_num_threads() == 2
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Sets an empty cache, and start weights whose training takes a second."""
    monkeypatch.setenv("FEDREID_PL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(start, "EPOCHS", 1)
    monkeypatch.setattr(start, "LESSONS", {start.CHOSEN: Lesson(start.CHOSEN, 100)})
    return tmp_path / "cache"


@pytest.mark.parametrize("name", list(LESSONS))
def test_a_lesson_shows_none_of_the_ten_domains(name: str) -> None:
    lesson = Lesson(name, 30)
    images, labels, answers = draw_lesson(lesson)
    assert images.shape == (30, 64, 32, 3) and images.dtype == np.uint8
    assert labels.shape == (30, len(answers)) and (labels >= 0).all() and (labels < np.array(answers)).all()
    assert len({image.tobytes() for image in images}) == 30
    taken = {domain.key for version in VERSIONS for domain in domains_of(version).values()}
    assert lesson.domain.key not in taken and PUBLIC.key in taken


def test_things_keep_their_colours_and_shapes_do_not() -> None:
    # within a category the mean colour varies less if the colours belong to the category
    deviations = []
    for name in ("things", "shapes"):
        images, labels, answers = draw_lesson(Lesson(name, 5 * CATEGORIES))
        assert answers == (CATEGORIES,) and labels[:, 0].tolist() == list(range(CATEGORIES)) * 5
        middle = images[:, 20:44, 10:22].reshape(5, CATEGORIES, -1, 3).mean(axis=2)
        deviations.append(middle.std(axis=0).mean())
    assert deviations[0] < 0.85 * deviations[1]


def test_the_labels_of_clothes_add_two_colours_to_those_of_garments() -> None:
    garments, clothes = (draw_lesson(Lesson(name, 40)) for name in ("garments", "clothes"))
    assert clothes[2] == (*garments[2], len(COLOURS), len(COLOURS))
    assert len(set(clothes[1][:, -1])) > 3


def test_same_bits_in_a_fresh_interpreter_with_other_threads(small: Path) -> None:
    here = start.digest_of_weights(start.train_start(Lesson("things", 100)))
    source = str(Path(fedreid_pl.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.stdout.strip() == here


def test_the_digest_covers_names_and_bytes() -> None:
    weights = {"a": torch.arange(4.0), "b": torch.zeros(2, 2)}
    same = {"b": torch.zeros(2, 2), "a": torch.arange(8.0)[:4]}
    assert start.digest_of_weights(weights) == start.digest_of_weights(same)
    others = [{**weights, "a": torch.tensor([0.0, 1, 2, 4])}, {"c": weights["a"], "b": weights["b"]}]
    others += [{**weights, "b": torch.zeros(4)}, {**weights, "b": torch.zeros(2, 2).double()}]
    assert len({start.digest_of_weights(other) for other in [weights, *others]}) == 5


def test_the_start_is_trained_once_and_then_read_from_the_cache(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    path = start.ensure_start(progress=said.append)
    assert path.parent == small / "start" and [file.name for file in path.parent.iterdir()] == [path.name]
    assert said[-1] == "pretraining the start: epoch 1 of 1"
    monkeypatch.setattr(start, "train_start", None)  # not called again
    assert start.ensure_start() == path
    saved = torch.load(path, weights_only=True)
    config = compose(["data=minireid", "seed=3"])
    assert config.model.weights == "drawn"
    backbone = start.initial_backbone(config)
    support.assert_equal(dict(backbone.trunk.state_dict()), dict(saved["state_dict"]))
    plain = build_backbone(compose(["data=minireid", "model.weights=null"]).model, 3)
    support.assert_equal(dict(backbone.bottleneck.state_dict()), dict(plain.bottleneck.state_dict()))
    assert start.start_record(config) == {"name": f"minireid-v2/{start.CHOSEN}", "sha256": saved["sha256"]}
    assert start.start_record(compose(["model.weights=none"])) is None


@pytest.mark.parametrize("damage", ["cut", "other", "text"])
def test_a_damaged_file_is_refused(small: Path, damage: str) -> None:
    path = start.ensure_start()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "text":
        path.write_text("no weights")
    else:
        saved = torch.load(path, weights_only=True)
        saved["state_dict"]["stem.0.weight"][0, 0, 0, 0] += 1
        torch.save(saved, path)
    with pytest.raises(FedReIDError, match="delete the file") as caught:
        start.initial_backbone(compose([]))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written(small: Path) -> None:
    small.write_text("no folder")
    with pytest.raises(FedReIDError, match=r"model\.weights=drawn: .*FEDREID_PL_CACHE"):
        start.ensure_start()


def test_other_networks_have_no_drawn_start() -> None:
    with pytest.raises(FedReIDError, match=r"model\.weights=drawn: .*model\.name=small only, not for resnet18"):
        start.initial_backbone(compose(["model.name=resnet18"]))
    with pytest.raises(FedReIDError, match=r"model\.name=smal: no such backbone.*did you mean 'small'"):
        start.initial_backbone(compose(["model.name=smal"]))


def test_null_and_none_are_random_weights() -> None:
    one, other = (compose([f"model.weights={word}"]) for word in ("none", "null"))
    assert one == other
    support.assert_equal(
        dict(start.initial_backbone(one).state_dict()), dict(build_backbone(one.model, one.seed).state_dict())
    )


def test_a_run_records_its_start(small: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [word for word in support.quick(tiny_root, tmp_path / "run") if not word.startswith("model.")]
    assert main(["train", "exp=local", *words, "rounds=1", "data.datasets=[mini-viper]"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["start"] == start.start_record(compose([]))
    capsys.readouterr()
    for changed, warned in ((False, False), (True, True)):
        if changed:
            summary["start"]["sha256"] = "0" * 64
            (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
        again = ["train", "exp=local", *words, "rounds=1", "data.datasets=[mini-viper]"]
        assert main(again) == 0
        told = capsys.readouterr()
        assert ("started from pretrained weights 000000000000" in told.out + told.err) == warned
