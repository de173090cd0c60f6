"""Updates, logs, server files and wandb runs contain only backbones and plain numbers of a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from reliability.canaries import PLACE, Canaries, files, mark, watch

from fedreid_pl.cli import main
from fedreid_pl.federation.storage import read_state

CLIENTS = "clients/"  # private states of the clients
NAME_THE_ROOT = ("config.yaml",)  # contains the images' path; see docs/reliability.md
FOLDER, USER = f"{PLACE}-folder", "canary-user-Hx55"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny benchmark with names and persons that a search can find."""
    root = support.write_tiny(tmp_path_factory.mktemp("data") / PLACE)
    mark(root)
    (root / support.TINY[2]).rename(root / FOLDER)
    return root


@pytest.mark.parametrize("exp", ["fedpav_kd_rw", "fedpav_cc_rw", "scaffold"])
def test_no_private_data_leave_a_client(
    exp: str, marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    canaries = Canaries()
    canaries.add_pictures(marked, every=5)
    canaries.add_text("a user", USER)
    for variable in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(variable, USER)
    messages = watch(monkeypatch, canaries)
    words = support.quick(
        marked, tmp_path / "run", f"exp={exp}", "logger=wandb", "trainer.accelerator=cpu", "report.images=false"
    )
    words.append(f"data.datasets=[{support.TINY[0]},{support.TINY[1]},{FOLDER}]")
    assert main(["train", *words]) == 0
    kinds = set(canaries.needles.values())
    assert kinds == {"a path", "a user", "an identity", "an image file", "pixels", "a feature", "logits", "a head"}
    assert len(canaries.needles) > 3000 and len([name for name in messages if name.startswith("update")]) == 6

    assert canaries.find(messages) == []
    printed = capfd.readouterr()
    assert canaries.find({"stdout": printed.out.encode(), "stderr": printed.err.encode()}) == []
    kept = files(tmp_path / "run", but=[CLIENTS])
    for name in (
        "metrics.csv",
        "summary.json",
        "splits.json",
        "report.html",
        *NAME_THE_ROOT,
        "checkpoints/round-00002.ckpt",
    ):
        assert name in kept
    assert any(name.startswith("wandb/") and name.endswith(".wandb") for name in kept)
    assert canaries.find(kept) == [("a path", name) for name in NAME_THE_ROOT]
    assert b"client3" in kept["summary.json"], "an unknown folder is named by its number"
    own = canaries.find(files(tmp_path / "run" / CLIENTS))
    assert {what for what, _ in own} == {"a head"}, "the search finds heads in the client's files"


def tensors(state: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Yields every tensor of a nested state with its path."""
    if isinstance(state, torch.Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {path: value for key, item in items for path, value in tensors(item, f"{name}/{key}").items()}


@pytest.mark.parametrize("exp", ["fedpav_kd_rw", "scaffold", "fedadam", "local"])
def test_the_servers_checkpoint_contains_only_tensors_of_the_backbone(
    exp: str, tiny_root: Path, tmp_path: Path
) -> None:
    assert main(["train", f"exp={exp}", *support.quick(tiny_root, tmp_path)]) == 0
    held = tensors(read_state(tmp_path / "checkpoints" / "round-00002.ckpt"))
    if exp == "local":
        assert not held
        return
    model = {path.removeprefix("/models/global/"): value for path, value in held.items() if "/models/" in path}
    for path, value in held.items():
        (like,) = [name for name in model if path.endswith(f"/{name}")]
        assert value.shape == model[like].shape, path


@pytest.mark.parametrize("kind", ["a path", "an identity", "an image file", "pixels", "numbers"])
def test_the_search_finds_planted_data(kind: str, marked: Path) -> None:
    canaries = Canaries()
    canaries.add_pictures(marked, every=20)
    rows = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    canaries.add_numbers("numbers", rows)
    for needle in [needle for needle, what in canaries.needles.items() if what == kind][:20]:
        assert (kind, "here") in canaries.find({"here": b"x" * 99 + needle + b"y"})
    assert canaries.find({"here": b"nothing of the sort", "rows": rows[:, 1:].tobytes()[:120]}) == []
    assert ("numbers", "json") in canaries.find({"json": str(rows[1].tolist()).encode()})
