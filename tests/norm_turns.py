"""Fits with one Trainer, fails, fits again, and prints the layers' classes at each step, in a separate process.

python norm_turns.py
"""

from __future__ import annotations

import json
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fedreid_pl.federation.client.trainer import quiet
from fedreid_pl.models.synchronized_norm import NormSync


class Tiny(pl.LightningModule):
    """A module with a convolution, two BatchNorms, and a loss that can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4)
        )
        self.fails = False

    def training_step(self, images: Tensor, batch_idx: int) -> Tensor:
        """Records the classes of the layers."""
        classes.append(kinds(self))
        if self.fails:
            raise RuntimeError("as asked")
        return self.network(images).square().mean()

    def test_step(self, images: Tensor, batch_idx: int) -> None:
        """Records the classes of the layers."""
        classes.append(kinds(self))

    def configure_optimizers(self) -> Any:
        """Returns plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def kinds(module: Tiny) -> str:
    """Returns the classes of the two norms."""
    return f"{type(module.network[1]).__name__} {type(module.network[4]).__name__}"


classes: list[str] = []
quiet()
module = Tiny()
tensors = [id(value) for value in (*module.parameters(), *module.buffers())]
names = list(module.state_dict())
trainer = pl.Trainer(
    accelerator="cpu",
    devices=1,
    strategy=DDPStrategy(broadcast_buffers=False),
    plugins=[NormSync()],
    max_epochs=1,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
batches: Any = DataLoader([torch.randn(4, 3, 3, 3)], batch_size=None)
steps = []
for turn in range(3):
    module.fails = turn == 1
    before = module.network[0].weight.detach().clone()
    trainer.fit_loop.epoch_progress.reset()
    try:
        trainer.fit(module, batches)
    except RuntimeError:
        classes.append("failed")
    classes.append(kinds(module))
    trainer.test(module, batches, verbose=False)
    steps.append(bool((module.network[0].weight != before).any()))
print(
    json.dumps(
        {
            "classes": classes,
            "same tensors": tensors == [id(value) for value in (*module.parameters(), *module.buffers())],
            "same names": names == list(module.state_dict()),
            "trained": steps,
        }
    )
)
