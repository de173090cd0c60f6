"""Messages contain no personal state: experts, private normalisation, personal layers, heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import support
import torch
from reliability.canaries import Canaries, files, mark, watch

from fedreid_pl.cli import main
from fedreid_pl.federation.messages import from_bytes
from fedreid_pl.federation.storage import read_state

pytestmark = pytest.mark.system

STAYS = {
    "moon": [],  # the last local model equals the last update
    "fedper": [("backbone_sync", "own")],
    "lg_fedavg": [("backbone_sync", "own")],
    "fedbn": [("backbone_sync", "own")],
    "fedbabu": [],
    "fedreid_decentralised": [("fedreid_decentralised", "backbone"), ("fedreid_decentralised", "head")],
    "dual_norm": [("dual_norm", "private")],
}
"""Entries of the callbacks' client state, besides heads, that no message may contain."""


@pytest.mark.parametrize("exp", list(STAYS))
def test_private_state_stays_at_the_client(exp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = support.write_tiny(tmp_path / "canary-Ward7-Qz81")
    mark(root)
    canaries = Canaries()
    canaries.add_pictures(root, every=5)
    messages = watch(monkeypatch, canaries)
    words = support.quick(root, tmp_path / "run", f"exp={exp}", "trainer.accelerator=cpu", "report.images=false")
    assert main(["train", *words]) == 0
    kept = sorted((tmp_path / "run" / "clients").rglob("round-00002.pt"))
    assert len(kept) == 3
    for path in kept:
        state = read_state(path)["callbacks"]
        for callback, part in STAYS[exp]:
            for value in state[callback][part].values():
                if value.is_floating_point() and value.numel() >= 8:
                    canaries.add_numbers("what stays", value.flatten(1) if value.dim() > 1 else value[None])
    wanted = {"a path", "an identity", "an image file", "pixels", "a feature", "a head"}
    wanted |= {"what stays"} if STAYS[exp] else set()
    assert set(canaries.needles.values()) - {"logits"} == wanted
    updates: Any = {name: from_bytes(data) for name, data in messages.items() if name.startswith("update 2")}
    assert len(updates) == 3 and canaries.find(messages) == []
    whole = set(read_state(tmp_path / "run" / "checkpoints" / "round-00002.ckpt")["models"]["global"])
    for update in updates.values():
        assert not update.extras and set(update.backbone) <= whole
        assert (set(update.backbone) == whole) is (exp not in ("fedper", "lg_fedavg", "fedbn"))
        assert all(type(value) in (int, float) for value in update.metrics.values())
    found = canaries.find(files(tmp_path / "run" / "clients"))
    assert {what for what, _ in found} == {"a head"} | ({"what stays"} if STAYS[exp] else set()), (
        "the search finds it in the client's files"
    )


def test_the_search_finds_a_private_set_in_a_message() -> None:
    canaries = Canaries()
    state = torch.linspace(-1, 1, 16)[None]
    canaries.add_numbers("what stays", state)
    assert canaries.find({"update": b"x" * 40 + state.numpy().tobytes()}) == [("what stays", "update")]
