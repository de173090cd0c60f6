"""A client with a small network and a batch of small images, for one step without a Trainer."""

from __future__ import annotations

from typing import Any

import torch

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import LossConfig, OptimConfig
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.federation.callback import FederationCallback, step_hooks
from fedreid_pl.functional.batch_part import BatchPart
from fedreid_pl.models.ide import IDEBackbone, build_head
from fedreid_pl.models.trunks import build_trunk

IDENTITIES = 3


def make_batch(size: int = 6, seed: int = 0, part: BatchPart | None = None) -> TrainBatch:
    """Returns `size` images of 64 x 32 of three identities and two cameras, or only the images of a part."""
    draws = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 64, 32, generator=draws) * torch.rand(size, 3, 1, 1, generator=draws)
    images += torch.randn(size, 3, 1, 1, generator=draws)
    rows = torch.arange(size)
    own = slice(None) if part is None else list(part.places)
    parts = (images, rows % IDENTITIES, rows % 2, rows)
    return TrainBatch(*(values[own] for values in parts), part=part)


def make_client(
    *callbacks: FederationCallback, dropout: float = 0.5, trunk: str = "small", job: Any = None, **loss: Any
) -> ReIDClient:
    """Returns a client in train mode with these callbacks; the weights are equal at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = IDEBackbone(build_trunk(trunk), feature_dim=16, dropout=dropout)
    head = build_head(16, IDENTITIES, torch.Generator().manual_seed(1))
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(2))
    hooks = step_hooks({type(part).__name__: part for part in callbacks})
    client = ReIDClient(backbone, head, OptimConfig(), job=job, loss=LossConfig(**loss), seed=5, **hooks)
    return client.train()
