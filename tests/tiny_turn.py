"""A real turn of a client over a few vectors, and the same turn as plain SGD in float64 without Lightning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import OptimConfig
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.federation.callback import FederationCallback, training_losses
from fedreid_pl.federation.client.trainer import quiet
from fedreid_pl.federation.messages import ClientJob

EPOCHS = 2
MOMENTUM = OptimConfig(
    lr_backbone=0.05, lr_head=0.2, momentum=0.8, weight_decay=0.01, schedule="step", step=1, gamma=0.5
)
"""All options together: momentum, weight decay, two rates, and a rate that halves in the second epoch."""
PLAIN = OptimConfig(lr_backbone=0.05, lr_head=0.2, momentum=0.0, weight_decay=0.0)


def make_backbone(seed: int = 0) -> nn.Sequential:
    """Returns a linear layer and a BatchNorm: parameters, statistics and a counter."""
    draws = torch.Generator().manual_seed(seed)
    backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        for value in backbone.parameters():
            value.normal_(0, 0.5, generator=draws)
    return backbone


def make_head() -> nn.Linear:
    """Returns a head for two identities."""
    head = nn.Linear(4, 2)
    with torch.no_grad():
        head.weight.copy_(torch.linspace(-1, 1, 8).view(2, 4))
        head.bias.zero_()
    return head


def make_batches(seed: int = 0, steps: int = 3) -> list[TrainBatch]:
    """Returns `steps` batches of six vectors."""
    draws = torch.Generator().manual_seed(100 + seed)
    zeros, rows = torch.zeros(6, dtype=torch.int64), torch.arange(6)
    return [
        TrainBatch(torch.randn(6, 3, generator=draws), torch.randint(0, 2, (6,), generator=draws), zeros, rows)
        for _ in range(steps)
    ]


class UnfusedClient(ReIDClient):
    """A client whose optimizer does not unscale gradients, so that Lightning does."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns unfused SGD with the same groups."""
        groups: Any = super().configure_optimizers().param_groups
        return torch.optim.SGD([{**group, "fused": False} for group in groups], foreach=False)


class Scaled(MixedPrecision):
    """The loss scale of 16-mixed with float32 arithmetic, which separates scaling from rounding."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))

    def autocast_context_manager(self) -> AbstractContextManager:  # type: ignore[override]
        """Returns a context without autocast."""
        return nullcontext()


def take_turn(
    callbacks: Iterable[pl.Callback],
    job: ClientJob,
    optim: OptimConfig,
    batches: list[TrainBatch],
    epochs: int = EPOCHS,
    precision: str = "plain",
    seed: int = 0,
) -> ReIDClient:
    """Trains the job's backbone in a Trainer with the given client halves.

    Args:
        precision: `plain`, `scaled` (Lightning unscales the gradients) or `fused` (the optimizer unscales them).
        seed: the turn's seed.
    """
    quiet()
    backbone = make_backbone()
    backbone.load_state_dict({**backbone.state_dict(), **job.backbone})
    callbacks = list(callbacks)
    losses = training_losses({type(part).__name__: part for part in callbacks if isinstance(part, FederationCallback)})
    kind = UnfusedClient if precision == "scaled" else ReIDClient
    module = kind(backbone, make_head(), optim, 0, job, losses=losses, seed=seed)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        plugins=[] if precision == "plain" else [Scaled()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return module


def by_hand(
    start: nn.Module,
    optim: OptimConfig,
    batches: list[TrainBatch],
    extra: Callable[[str, Tensor], Tensor | float] = lambda name, weight: 0.0,
    epochs: int = EPOCHS,
    term: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor | float] = lambda *parts: 0.0,
) -> dict[str, Tensor]:
    """Returns the trained backbone in float64.

    `extra(name, weight)` is added to the gradient of a backbone parameter, `term(features, logits, images, labels)`
    to the loss of a batch.
    """
    backbone, head = copy.deepcopy(start).double(), make_head().double()
    weights = [(name, value, optim.lr_backbone) for name, value in backbone.named_parameters()]
    weights += [("", value, optim.lr_head) for value in head.parameters()]
    speeds = [torch.zeros_like(value) for _, value, _ in weights]
    for epoch in range(epochs):
        factor = optim.gamma ** (epoch // optim.step) if optim.schedule == "step" else 1.0
        for images, labels, *_ in batches:
            features = backbone(images.double())
            logits = head(features)
            loss = F.cross_entropy(logits, labels) + term(features, logits, images.double(), labels)
            gradients = torch.autograd.grad(loss, [value for _, value, _ in weights])
            with torch.no_grad():
                for (name, value, rate), speed, gradient in zip(weights, speeds, gradients, strict=True):
                    step = gradient + optim.weight_decay * value + (extra(name, value) if name else 0.0)
                    speed.mul_(optim.momentum).add_(step)
                    value.sub_(speed * rate * factor)
    return dict(backbone.state_dict())


def server(models: dict[str, Any] | None = None, **more: Any) -> Any:
    """Returns the attributes of a federation of three clients that server halves use."""
    records: list[tuple] = []
    parts = {
        "clients": {"a": 40, "b": 40, "c": 40},
        "ledger": SimpleNamespace(members=dict.fromkeys("abc")),
        "buffer_names": frozenset({"1.running_mean", "1.running_var", "1.num_batches_tracked"}),
        "models": models or {},
        "records": records,
        "record": lambda *row: records.append(row),
    }
    return SimpleNamespace(**{**parts, **more})
