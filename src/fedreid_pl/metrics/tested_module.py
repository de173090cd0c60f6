"""The Lightning module that tests a backbone: it extracts query and gallery features and computes scores."""

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

MOST_TIED = 0.01  # a warning follows if the first match ties with another person's image for a larger share of queries


def retrieval_options(config: Config) -> dict[str, Any]:
    """Returns the arguments of `ReIDRetrieval` for a configuration."""
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
        retrieval_options: arguments of `ReIDRetrieval` for every test set.
        inspect: function that is called with the name and the ranked sets of every test set.

    Attributes:
        scores: scores of the last test, by test set and metric.
    """

    __test__ = False  # pytest must not collect this class

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
        """Returns flip-averaged, L2-normalised features `[B, D]` float32, which tests compare."""
        features = self.backbone(images).float() + self.backbone(images.flip(3)).float()
        return F.normalize(features, dim=1)

    def on_test_start(self) -> None:
        """Creates one metric per active test set."""
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
        """Computes the scores of every test set over all processes, and warns if many first matches are tied."""
        for name, metric in self._retrieval.items():
            self.scores[name] = {key: float(value) for key, value in metric.compute().items()}
            if metric.tied > MOST_TIED and self.trainer.is_global_zero:
                warnings.warn(
                    f"{name}: for more than {MOST_TIED:.0%} of the queries the first match has the same score as an "
                    "image of another person, so the features may have collapsed. The scores are computed with the "
                    f"option ties={metric.ties}.",
                    stacklevel=2,
                )
        self._retrieval = {}
