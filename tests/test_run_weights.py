"""A run folder as initial weights: the loaded model, the recorded and printed values, and refused folders."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import support
import torch

import fedreid_pl
from fedreid_pl.cli import main
from fedreid_pl.config import Config, compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import read_state
from fedreid_pl.functional.fingerprint import fingerprint_of
from fedreid_pl.start import initial_backbone, start_record

SETS = "data.datasets=[mini-viper,mini-ilids]"


def train(root: Path, folder: Path, *words: str) -> Path:
    """Returns the configuration of a small run on two of the tiny datasets."""
    assert (
        main(["train", *support.quick(root, folder, SETS, "rounds=1", "data.height=32", "data.width=16", *words)]) == 0
    )
    return folder


@pytest.fixture(scope="module")
def central(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains two rounds of centralized training."""
    return train(tiny_root, tmp_path_factory.mktemp("runs") / "central", "exp=centralized", "rounds=2")


def config(weights: str | Path, *words: str) -> Config:
    return compose([f"model.weights={weights}", "data.height=32", "data.width=16", *words])


def kept(run: Path, round: int) -> dict[str, torch.Tensor]:
    """Returns the backbone of a run's only client after a round."""
    (client,) = (run / "clients").iterdir()
    return read_state(client / f"round-{round:05d}.pt")["backbone"]


def test_pretraining_by_this_program(
    central: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    capsys.readouterr()
    run = train(tiny_root, tmp_path / "run", "exp=fedpav", f"model.weights={central}")
    printed = " ".join(capsys.readouterr().err.split())
    wanted = f"model.weights={central}: loaded the small trunk and the neck, names begin with 'trunk.'; all tensors"
    assert printed.count(wanted) == 1
    state = kept(central, 2)
    start = json.loads((run / "summary.json").read_text())["start"]
    assert start == {"name": "centralized on minireid, round 2", "sha256": fingerprint_of(state)}
    begin = initial_backbone(config(central)).state_dict()
    assert begin.keys() == state.keys() and all(torch.equal(value, state[key]) for key, value in begin.items())
    again = initial_backbone(config(run)).state_dict()
    model = fedreid_pl.load(run)
    assert all(torch.equal(value, again[key]) for key, value in model.backbone.state_dict().items())
    assert start_record(config(run))["sha256"] == model.card.sha256  # type: ignore[index]


def test_one_round_of_a_run(central: Path) -> None:
    first = kept(central, 1)
    for weights in (f"{central}@1", central / "checkpoints" / "round-00001.ckpt"):
        found = initial_backbone(config(weights)).state_dict()
        assert all(torch.equal(value, first[key]) for key, value in found.items())
    best = json.loads((central / "summary.json").read_text())["best_round"]
    record = start_record(config(f"{central}@best"))
    assert record == {"name": f"centralized on minireid, round {best}", "sha256": fingerprint_of(kept(central, best))}


def test_unused_tensors_of_the_neck_are_reported(central: Path) -> None:
    lines: list[str] = []
    initial_backbone(config(central, "model.neck=bnneck"), say=lines.append)
    assert re.search(r"loaded the small trunk, .*; 7 tensors are not used \(bottleneck\.0\.weight", lines[0])


def test_weights_load_with_another_image_size(central: Path) -> None:
    words = ("data.height=64", "data.width=32")
    assert initial_backbone(compose([f"model.weights={central}", *words]))(torch.zeros(2, 3, 64, 32)).shape == (2, 512)


def test_a_file_is_recorded_by_the_digest_of_its_bytes(tmp_path: Path) -> None:
    backbone = initial_backbone(config("none"))
    torch.save(backbone.state_dict(), tmp_path / "secret_name.pth")
    record = start_record(config(tmp_path / "secret_name.pth"))
    digest = hashlib.sha256((tmp_path / "secret_name.pth").read_bytes()).hexdigest()
    assert record == {"name": "weights file", "sha256": digest}
    assert start_record(config("none")) is None and start_record(config("imagenet")) is None


def test_a_resumed_run_reports_other_weights(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in (0, 1):
        torch.save(initial_backbone(config("none", f"seed={number}")).state_dict(), tmp_path / "w.pth")
        capsys.readouterr()
        train(tiny_root, tmp_path / "run", "exp=fedpav", f"model.weights={tmp_path / 'w.pth'}", f"rounds={1 + number}")
        printed = " ".join(capsys.readouterr().err.split())
        assert ("started from initial weights (weights file, SHA-256" in printed) == bool(number)


def refused(weights: str | Path, *parts: str, words: tuple[str, ...] = ()) -> None:
    with pytest.raises(FedReIDError) as caught:
        initial_backbone(config(weights, *words))
    text = str(caught.value)
    assert text.startswith(f"model.weights={weights}: ") and "\n" not in text
    assert all(part in text for part in parts), text


def test_folders_without_a_usable_model_are_refused(central: Path, tiny_root: Path, tmp_path: Path) -> None:
    refused(tmp_path, "is not a run folder: it has no config.yaml")
    refused(f"{tmp_path}@best", "is not a run folder: it has no config.yaml")
    refused(f"{central}@9", "there is no checkpoint '9'; give last, best or one of the rounds 1, 2")
    refused(f"{central}@../x", "there is no checkpoint '../x'")
    refused(central, "this run trained small, but model.name=osnet_x0_25", words=("model.name=osnet_x0_25",))
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(central / "config.yaml", empty)
    refused(empty, "has no checkpoint yet")
    own_norms = train(tiny_root, tmp_path / "fedbn", "exp=fedpav", "callbacks.backbone_sync.batch_norm=local")
    refused(own_norms, "clients that keep a part of the backbone", "fedreid-pl export RUN client=NAME")
    local = train(tiny_root, tmp_path / "local", "exp=local")
    refused(local, "2 clients and no model at the server", "fedreid-pl export RUN client=NAME")


def test_a_damaged_run_is_refused(central: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(central, broken)
    file = broken / "checkpoints" / "round-00002.ckpt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FedReIDError, match="is damaged"):
        initial_backbone(config(broken))
