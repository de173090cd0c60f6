"""Private names of Lightning: without any of them, Lightning's own code runs instead and gives the same bits."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import tiny_turn
import torch
from pytorch_lightning.loops import training_epoch_loop
from torch import Tensor
from torch.utils.data import DataLoader

import fedreid_pl
from fedreid_pl.client import ReIDClient
from fedreid_pl.config import compose
from fedreid_pl.federation.client import trainer_parts
from fedreid_pl.federation.client.trainer import build_trainer, quiet

OURS = "fedreid_pl.federation.client.epoch_loop"


def turn() -> tuple[dict[str, Tensor], dict[str, float], pl.Trainer]:
    """Returns the final weights and the reported numbers of a turn in the product's Trainer."""
    quiet()
    module = ReIDClient(tiny_turn.make_backbone(), tiny_turn.make_head(), tiny_turn.MOMENTUM)
    trainer = build_trainer(compose(["exp=fedpav", "trainer.accelerator=cpu", "local_epochs=2"]))
    trainer.fit(module, DataLoader(tiny_turn.make_batches(), batch_size=None))  # type: ignore[arg-type]
    return dict(module.state_dict()), module.outbox.metrics, trainer


@pytest.fixture(scope="module")
def expected() -> tuple[dict[str, Tensor], dict[str, float]]:
    weights, metrics, trainer = turn()
    assert type(trainer.fit_loop.epoch_loop).__module__ == OURS, "this Lightning has every name"
    assert isinstance(trainer._signal_connector, trainer_parts.NoSignals)
    return weights, metrics


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Hides a name of Lightning from the product, while Lightning itself still finds it."""
    if name == "_TrainingEpochLoop":
        monkeypatch.delattr(training_epoch_loop, name)
        monkeypatch.delitem(sys.modules, OURS, raising=False)
    elif name == "registry":
        monkeypatch.setattr(trainer_parts, "registry", None)
    else:
        found = trainer_parts._has
        monkeypatch.setattr(trainer_parts, "_has", lambda owner, other: other != name and found(owner, other))


LOOP = ("_TrainingEpochLoop", "_logger_connector", "epoch_loop", "optim_progress", *trainer_parts.LOOP_NAMES)
SIGNALS = ("_signal_connector", "register_signal_handlers", "received_sigterm")


@pytest.mark.parametrize("name", [*LOOP, *SIGNALS, "registry"])
def test_a_turn_without_the_name_gives_the_same_bits(
    name: str, expected: tuple[dict, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, name)
    weights, metrics, trainer = turn()
    for key, value in expected[0].items():
        assert torch.equal(weights[key], value), key
    assert metrics == expected[1]
    lean = type(trainer.fit_loop.epoch_loop).__module__ == OURS
    assert lean is (name not in LOOP)
    assert isinstance(trainer._signal_connector, trainer_parts.NoSignals) is (name not in SIGNALS)


def test_the_attribute_of_the_running_hook_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, expected: tuple[dict, dict]
) -> None:
    """`ReIDClient.__setattr__` is a fast path for an attribute that Lightning sets; results do not depend on it."""
    monkeypatch.delattr(ReIDClient, "__setattr__")
    weights, metrics, _ = turn()
    assert all(torch.equal(weights[key], value) for key, value in expected[0].items()) and metrics == expected[1]


def test_no_other_private_name_is_imported_from_lightning() -> None:
    root = Path(str(fedreid_pl.__file__)).parent
    found: dict[str, set[str]] = {}
    for file in [*root.rglob("*.py"), *Path(str(sys.modules["fedreid_pl.callbacks"].__file__)).parent.glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0].endswith(("lightning", "fabric")):
                private = {alias.name for alias in node.names if alias.name.startswith("_")}
                if private:
                    found.setdefault(str(file.relative_to(root)), set()).update(private)
    assert found == {"federation/client/epoch_loop.py": {"_TrainingEpochLoop", "_DataFetcher"}}
