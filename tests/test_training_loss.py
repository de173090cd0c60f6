"""A callback's additional loss and second network in a real Trainer, compared with SGD by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import support
import tiny_turn
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import OptimConfig
from fedreid_pl.federation.callback import FederationCallback, training_losses

JOB = support.fit_job(1, "a", {})


class Pull(FederationCallback):
    """A callback that adds half the squared norm of one weight to the loss, except in every third batch."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def training_loss(self, pl_module: Any, batch: Any, embeddings: Tensor, features: Tensor, logits: Tensor) -> Any:
        self.seen.append((batch, embeddings, features, logits))
        return None if len(self.seen) % 3 == 0 else 0.5 * pl_module.backbone[0].weight.square().sum()


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
def test_the_step_minimises_the_sum_and_reports_both(precision: str) -> None:
    backbone, batches, pull = tiny_turn.make_backbone(), tiny_turn.make_batches(), Pull()
    module = tiny_turn.take_turn([pull], JOB, tiny_turn.MOMENTUM, batches, precision=precision)
    steps = iter(range(1, 100))
    present: dict[str, float] = {}

    def extra(name: str, weight: Tensor) -> Tensor | float:
        if name == "0.weight":
            present["now"] = float(next(steps) % 3 != 0)
        return weight * present["now"] if name == "0.weight" else 0.0

    hand = tiny_turn.by_hand(backbone, tiny_turn.MOMENTUM, batches, extra)
    for name, value in module.backbone.named_parameters():
        torch.testing.assert_close(value.detach().double(), hand[name], rtol=1e-4, atol=1e-5)
    plain = tiny_turn.take_turn([Pull()], JOB, OptimConfig(lr_backbone=1e-30, lr_head=1e-30), batches)
    metrics, still = plain.outbox.metrics, tiny_turn.make_backbone()
    penalty = float(0.5 * still[0].weight.square().sum())
    assert metrics["train/Pull"] == pytest.approx(penalty * 4 / 6, rel=1e-5), "four of six batches of equal size"
    losses = [F.cross_entropy(tiny_turn.make_head()(still(batch.images)), batch.labels) for batch in batches]
    assert metrics["train/loss"] == pytest.approx(float(sum(losses)) / 3 + penalty * 4 / 6, rel=1e-5)


def test_the_hook_receives_the_batch_and_its_outputs() -> None:
    pull, batches = Pull(), tiny_turn.make_batches()
    tiny_turn.take_turn([pull], JOB, tiny_turn.MOMENTUM, batches, epochs=1)
    for (batch, embeddings, features, logits), given in zip(pull.seen, batches, strict=True):
        assert all(torch.equal(*pair) for pair in zip(batch[:4], given[:4], strict=True))
        assert torch.equal(embeddings, features), "this backbone has no neck"
        assert features.shape == (6, 4) and logits.shape == (6, 2) and features.requires_grad


def test_only_callbacks_with_a_loss_are_called() -> None:
    assert list(training_losses({"plain": FederationCallback(), "pull": Pull()})) == ["pull"]
    client = ReIDClient(tiny_turn.make_backbone(), tiny_turn.make_head(), OptimConfig())
    client.backbone.embeddings = None  # type: ignore[assignment]
    client.training_step(tiny_turn.make_batches()[0], 0)  # does not compute embeddings


class Second(FederationCallback):
    """A callback that trains a copy of backbone and head, and evaluates a frozen copy."""

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.own, self.head = pl_module.clone_backbone(), pl_module.clone_head()
        self.frozen = pl_module.clone_backbone(trainable=False)

    def training_loss(self, pl_module: Any, batch: Any, *rest: Tensor) -> Tensor:
        assert self.own.training and not self.frozen.training
        with torch.no_grad():
            self.frozen(batch.images)
        return F.cross_entropy(self.head(self.own(2 * batch.images)), batch.labels)


def test_a_second_network_has_the_rates_of_the_first_and_does_not_change_it() -> None:
    backbone, batches, second = tiny_turn.make_backbone(), tiny_turn.make_batches(), Second()
    module = tiny_turn.take_turn([second], JOB, tiny_turn.MOMENTUM, batches)
    alone = tiny_turn.take_turn([], JOB, tiny_turn.MOMENTUM, batches)
    for name, value in module.backbone.state_dict().items():
        assert torch.equal(value, alone.backbone.state_dict()[name]), name
    doubled = [batch._replace(images=2 * batch.images) for batch in batches]
    hand = tiny_turn.by_hand(backbone, tiny_turn.MOMENTUM, doubled)
    for name, value in second.own.state_dict().items():
        torch.testing.assert_close(value.double(), hand[name].double(), rtol=1e-4, atol=1e-5, msg=name)
    for name, value in second.frozen.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[name]), "in eval mode the statistics do not change either"
    # weight and bias of both layers, two statistics and a counter; weight and bias of the head
    values = 2 * (12 + 4 + 4 + 4 + 4 + 4 + 2) + 8 + 2
    assert module.outbox.metrics["cost/cloned_bytes"] == 4 * values
    assert "cost/cloned_bytes" not in alone.outbox.metrics


def test_a_trainable_copy_after_the_optimizers_creation_is_refused() -> None:
    client = ReIDClient(tiny_turn.make_backbone(), tiny_turn.make_head(), OptimConfig())
    client.configure_optimizers()
    client.clone_backbone(trainable=False)
    with pytest.raises(RuntimeError, match="setup hook"):
        client.clone_backbone()


def test_the_copies_rates_follow_the_bottlenecks_option() -> None:
    backbone = nn.Sequential()
    backbone.trunk, backbone.bottleneck = nn.Linear(3, 4), nn.BatchNorm1d(4)
    optim = OptimConfig(lr_backbone=0.1, lr_head=0.7, bottleneck="head")
    client = ReIDClient(backbone, nn.Linear(4, 2), optim)
    clone = client.clone_backbone()
    rates = {
        id(value): group["lr"] for group in client.configure_optimizers().param_groups for value in group["params"]
    }
    assert [rates[id(value)] for value in clone.parameters()] == [0.1, 0.1, 0.7, 0.7]
    assert len(rates) == 10


def test_the_memory_of_copies_is_freed_after_the_turn() -> None:
    client = ReIDClient(tiny_turn.make_backbone(), tiny_turn.make_head(), OptimConfig())
    held = client.clone_backbone()
    kept = {name: value.detach() for name, value in held.state_dict().items()}
    client.clones.release()
    assert all(value.numel() == 0 for value in held.state_dict().values())
    assert torch.equal(kept["0.weight"], client.backbone[0].weight), "the callback's saved state is intact"


def test_the_server_records_the_cost_of_a_copy() -> None:
    from fedreid_pl.federation.messages import ClientUpdate
    from fedreid_pl.federation.server.evaluation import record_local

    rows: list[tuple] = []
    federation = SimpleNamespace(tests={"a": []}, record=lambda *row: rows.append(row))
    update = ClientUpdate(1, "a", {}, 5, {"train/ditto": 2.0, "cost/cloned_bytes": 64.0, "cost/bytes_up": 1.0})
    record_local(federation, update)  # type: ignore[arg-type]
    assert rows == [("train", "a", "ditto", 2.0), ("cost", "a", "cloned_bytes", 64.0)]
