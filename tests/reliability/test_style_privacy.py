"""Methods for unseen domains: messages contain no client state or statistics, except the style bank's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import support
import torch
from reliability.canaries import PLACE, Canaries, files, mark, watch

from fedreid_pl.cli import main
from fedreid_pl.federation.messages import ClientUpdate, from_bytes
from fedreid_pl.federation.storage import read_state

ACTING = {
    "mixstyle": ["callbacks.mixstyle.p=1"],
    "crossstyle": [],
    "style_bank": ["callbacks.style_bank.least_images=3"],
    "dacs": ["callbacks.dacs.first_round=1"],
    "sscu": ["callbacks.sscu.first_round=1"],
    "snr": [],
}
KEPT = {
    "dacs": {"expert", "style"},
    "sscu": {"expert", "style", "memory"},
    "snr": {"classifiers"},
    "style_bank": {"own"},
}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny benchmark with names and persons that a search can find."""
    root = support.write_tiny(tmp_path_factory.mktemp("data") / PLACE)
    mark(root)
    return root


def rows_of(state: Any) -> list[torch.Tensor]:
    """Yields every tensor of a nested state whose rows have at least eight numbers."""
    if isinstance(state, torch.Tensor):
        wide = state.is_floating_point() and state.dim() > 1 and state[0].numel() >= 8
        return [state] if wide else []
    return [row for item in state.values() for row in rows_of(item)] if isinstance(state, dict) else []


@pytest.mark.parametrize("exp", list(ACTING))
def test_a_clients_state_stays_at_the_client(
    exp: str, marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries = Canaries()
    canaries.add_pictures(marked, every=5)
    messages = watch(monkeypatch, canaries)
    words = support.quick(marked, tmp_path, f"exp={exp}", "trainer.accelerator=cpu", "report.images=false")
    assert main(["train", *words, *ACTING[exp]]) == 0
    kept = {"turns": 0}
    for path in sorted((tmp_path / "clients").rglob("*.pt")):
        state = read_state(path)["callbacks"].get(exp, {})
        assert set(state) == KEPT.get(exp, set()), path
        kept["turns"] += 1
        for rows in rows_of({key: value for key, value in state.items() if key != "own"}):
            canaries.add_numbers("kept", rows)
    assert kept["turns"] >= 3 and ("kept" in canaries.needles.values()) == (exp in ("dacs", "sscu", "snr"))
    assert {"a head", "a path", "an identity", "pixels"} <= set(canaries.needles.values())
    updates = [from_bytes(content) for name, content in messages.items() if name.startswith("update")]
    assert len(updates) == 6 and canaries.find(messages) == []
    for update in updates:
        assert isinstance(update, ClientUpdate)
        assert set(update.extras) == ({"style_bank"} if exp == "style_bank" else set())
        numbers = {name for name in update.metrics if not name.startswith(("test/", "train/", "cost/"))}
        assert not numbers, "only losses, scores and costs, as in every experiment"
    server = files(tmp_path, but=["clients/", "config.yaml"])
    assert [(what, where) for what, where in canaries.find(server) if what != "a path"] == []
