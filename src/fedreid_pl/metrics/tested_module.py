"""A backbone that Lightning tests: features of queries and galleries, and the scores of their ranking."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.config import Config
from fedreid_pl.metrics.retrieval import RankedSets, ReIDRetrieval

MOST_TIED = 0.01  # share of queries whose first match may tie with an image of somebody else without a warning


def retrieval_options(config: Config) -> dict[str, Any]:
    """Returns the arguments of `ReIDRetrieval` that a configuration stands for."""
    return {
        "keep_unmatched": config.data.keep_unmatched,
        "ties": config.ties,
        "single_shot": config.data.single_shot,
        "seed": config.data.split_seed,
    }


class TestedModule(pl.LightningModule):
    """Fills one retrieval metric per test set from loaders in the order query 0, gallery 0, query 1, gallery 1, ...

    Args:
        backbone: maps normalised images `[B, 3, H, W]` to features `[B, D]`.
        retrieval_options: those of the test sets' `ReIDRetrieval`.
        inspect: called with the name of every test set and what its scores were computed from.

    Attributes:
        scores: of the last test, by test set and metric.
    """

    __test__ = False  # pytest: not a test class

    def __init__(
        self,
        backbone: nn.Module,
        retrieval_options: Mapping[str, Any] | None = None,
        inspect: Callable[[str, RankedSets], None] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.scores: dict[str, dict[str, float]] = {}
        self.retrieval_options = dict(retrieval_options or {})
        self.inspect = inspect
        self._retrieval: dict[str, ReIDRetrieval] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Flip-averaged, L2-normalised features `[B, D]` float32, as they are compared at test time."""
        features = self.backbone(images).float() + self.backbone(images.flip(3)).float()
        return F.normalize(features, dim=1)

    def on_test_start(self) -> None:
        """Makes one metric per active test set."""
        names: Sequence[str] = self.trainer.datamodule.active_tests  # type: ignore[attr-defined]
        self._retrieval = {}
        for name in names:
            inspect = partial(self.inspect, name) if self.inspect else None
            self._retrieval[name] = ReIDRetrieval(**self.retrieval_options, inspect=inspect).to(self.device)

    def test_step(self, batch: tuple[Tensor, ...], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch of query (even loader) or gallery (odd loader) features to its test set's metric."""
        images, identities, cameras, rows = batch
        metric = list(self._retrieval.values())[dataloader_idx // 2]
        metric.update(self(images), identities, cameras, rows, query=dataloader_idx % 2 == 0)

    def on_test_epoch_end(self) -> None:
        """Computes every test set's scores, gathered over processes."""
        for name, metric in self._retrieval.items():
            self.scores[name] = {key: float(value) for key, value in metric.compute().items()}
            if metric.tied > MOST_TIED and self.trainer.is_global_zero:
                warnings.warn(
                    f"{name}: for more than {MOST_TIED:.0%} of the queries the first match has the score of an image "
                    "of somebody else; such places are shared, see ties=expected. The features may have collapsed.",
                    stacklevel=2,
                )
        self._retrieval = {}
