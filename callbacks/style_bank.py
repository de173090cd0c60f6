"""Style bank: clients share the colour statistics of their cameras once, and train on images in each other's styles.

Zhang et al., "CO-EVO", ACL 2026 (arXiv 2604.26363), global style diversification (GSD).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fedreid_pl.client import ReIDClient
from fedreid_pl.data.augmentation import MEAN, STD
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.errors import require
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, DeclaredTensor, RejectedUpdate
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.randomness import derive_seed, generator
from fedreid_pl.functional.secret_noise import SecretStream, new_key
from fedreid_pl.functional.style_bank import (
    MOST_VARIANCE,
    WIDTH,
    gaussian_release_epsilon,
    image_moments,
    k_means,
    restyle,
    styles_of,
)
from fedreid_pl.models.whole_batch import images_of_whole_batch

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext

NAME, ASK = "style_bank", "style_bank_ask"
MOST_STYLES = 64
"""Largest number of styles that one client may send."""
MOST_CLIENTS = 4096


_require = partial(require, "callbacks.style_bank")


class StyleBank(FederationCallback):
    """Trains on every image twice: unchanged, and in the style of a random camera from the bank.

    A style consists of six numbers: the means and variances of red, green and blue over all pixels of a camera's
    training images. In the first turn in which the server asks for styles, a client sends one row of six float32
    numbers for each of its cameras with at least `least_images` images: means in 0..1, variances in 0..0.25. The camera
    of a row, numbers of images and everything else stay at the client. If all cameras of a client have too few images,
    it sends no rows. The bank contains the rows of all clients, and every job contains the bank. The loss of a step is
    that of the images plus `weight` times that of their restyled copies, `(x - mu(x)) / sqrt(var(x) + eps) *
    sqrt(var_s) + mu_s`. Each image gets its own random style.

    If the dataset has no camera numbers, groups of images that K-means finds by the same six numbers replace cameras.
    In the round that collects the styles (and until a client has answered), a client uses its own styles; the paper
    collects them before the first round.

    With noise, a client adds `N(0, (z sqrt(6) / n)^2)` to the six mean moments of a camera with n images, where z is
    `noise_multiplier`. Replacing one image of a camera by another of the same camera changes the moments by at most
    `sqrt(6) / n`. So the rows of a client are (epsilon, delta)-differentially private for single images; summary.json
    reports epsilon. This guarantee covers the bank but not the model. The client saves the noised rows and sends the
    same rows if the server asks again. A client that has lost its state draws new noise, which is an additional
    release.

    Args:
        weight: weight of the loss of restyled images; with 0 no style is sent, and the result equals FedPav's bit for
            bit.
        bank: `global`: styles of all clients. `own`: styles of the client itself; clients send no styles.
        groups: `camera`; `cluster`: groups found by K-means; `auto`: cameras if the dataset has them; otherwise
            clusters, or with noise one group of all images.
        clusters: number of groups for K-means.
        least_images: smallest number of images of a camera or group whose style is used or sent.
        noise_multiplier: z; with 0 there is no noise and no epsilon.
        delta: probability that the guarantee of epsilon may fail.
        noise: `secret` draws from a cryptographic stream with a new key. `seed` draws from the run's seed; this is not
            private.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "sees_single_updates")
    job_config: ClassVar[dict[str, type]] = {ASK: bool}
    methods: ClassVar[Mapping[str, Method]] = {
        "style_bank": Method(
            title="Style bank (GSD)",
            paper="Zhang et al., CO-EVO, ACL 2026, global style diversification",
            purpose="unseen places",
            does="trains on every image twice: unchanged, and in the colours of a camera of any client",
            exchanged="the backbone; every client sends six numbers for each camera once, with noise as an option, "
            "and receives those of all clients",
            needs=("camera numbers, or groups found by K-means",),
            verified="statistics, restyling and noise are compared with independent implementations; a canary test "
            "checks what clients send; with weight 0 the result equals FedPav's bit for bit; the equations come "
            "from a summary of the paper, not from the paper itself; published figures are not reproduced",
        ),
    }

    def __init__(
        self,
        weight: float = 1.0,
        bank: Literal["global", "own"] = "global",
        groups: Literal["auto", "camera", "cluster"] = "auto",
        clusters: int = 4,
        least_images: int = 8,
        noise_multiplier: float = 0.0,
        delta: float = 1e-5,
        noise: Literal["secret", "seed"] = "secret",
    ) -> None:
        _require(0 <= weight < math.inf, "weight", weight, "at least 0 and finite")
        _require(1 <= clusters <= MOST_STYLES, "clusters", clusters, f"from 1 to {MOST_STYLES}")
        _require(least_images >= 1, "least_images", least_images, "at least 1")
        _require(0 <= noise_multiplier < math.inf, "noise_multiplier", noise_multiplier, "at least 0 and finite")
        _require(0 < delta < 1, "delta", delta, "above 0 and below 1")
        private = groups != "cluster" or not noise_multiplier
        _require(
            private, "groups", groups, "camera if noise_multiplier is above 0, because clusters reveal information"
        )
        self.weight, self.bank, self.groups, self.clusters = weight, bank, groups, clusters
        self.least_images, self.noise_multiplier, self.delta, self.noise = least_images, noise_multiplier, delta, noise
        self._bank: dict[str, Tensor] = {}  # server half: rows by client
        self._asked: set[str] = set()
        self._sent = torch.zeros(0, WIDTH)
        self._own: Tensor | None = None  # client half: the client's rows
        self._means = self._deviations = torch.zeros(0, 3)

    # server half

    def on_round_start(self, federation: RoundContext) -> None:
        """Determines which clients must send their styles in this round, and builds the bank for all jobs."""
        shares = self.weight > 0 and self.bank == "global"
        self._asked = {client for client in federation.clients if shares and client not in self._bank}
        rows = [self._bank[client] for client in federation.clients if client in self._bank]
        self._sent = torch.cat(rows) if rows else torch.zeros(0, WIDTH)

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        """Adds the bank to the job, and whether the client must send its own styles."""
        config = {**job.config, ASK: job.client in self._asked}
        return replace(job, config=config, extras={**job.extras, NAME: self._sent})

    def declared_answers(self, federation: RoundContext, job: ClientJob) -> list[DeclaredTensor]:
        """Returns the rows of a client that must send its styles; no rows for other clients."""
        most = MOST_STYLES if job.client in self._asked else 0
        return [DeclaredTensor(NAME, (None, WIDTH), bound=1.0, most_rows=most)]

    def on_update(self, federation: RoundContext, update: ClientUpdate) -> None:
        """Adds the client's rows to the bank if it had to send them.

        Raises:
            RejectedUpdate: if means or variances are outside of their ranges.
        """
        if update.client not in self._asked:
            return
        rows = update.extras[NAME]
        if (rows < 0).any() or (rows[:, 3:] > MOST_VARIANCE).any():
            raise RejectedUpdate(f"tensor '{NAME}' contains means below 0, or variances outside 0 to {MOST_VARIANCE}")
        self._bank[update.client] = rows.clone()

    def state_dict(self) -> dict[str, Any]:
        """Returns the bank."""
        return {"bank": dict(self._bank)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the bank."""
        self._bank = dict(state.get("bank", {}))

    def summary(self) -> dict[str, Any]:
        """Returns the number of styles, the number of clients that sent them, and epsilon of one client's rows."""
        private = self.noise_multiplier and self.noise == "secret"
        epsilon = gaussian_release_epsilon(self.noise_multiplier, self.delta) if private else None
        found = {"styles": sum(map(len, self._bank.values())), "clients": len(self._bank)}
        return {**found, "epsilon": epsilon, "delta": self.delta if private else None}

    # client half

    def declared_extras(self, network: nn.Module) -> list[DeclaredTensor]:
        """Returns the bank."""
        return [DeclaredTensor(NAME, (None, WIDTH), bound=1.0, most_rows=MOST_STYLES * MOST_CLIENTS)]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Computes the client's own styles in its first turn, and loads the bank of the job."""
        asked = bool(pl_module.job.config.get(ASK))
        if self.weight and self._own is None:
            self._own = self._measured(trainer, pl_module)
        own = torch.zeros(0, WIDTH) if self._own is None else self._own
        pl_module.outbox.extras[NAME] = own if asked else torch.zeros(0, WIDTH)
        bank = pl_module.job.extras.get(NAME, torch.zeros(0, WIDTH))
        chosen = (own if self.bank == "own" or not len(bank) else bank).clamp(0, 1)
        deviation = torch.tensor(STD)
        self._means = ((chosen[:, :3] - torch.tensor(MEAN)) / deviation).to(pl_module.device)
        self._deviations = (chosen[:, 3:].sqrt() / deviation).to(pl_module.device)
        self._draws = np.random.default_rng(derive_seed(pl_module.seed, NAME))

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns `weight` times the loss of the restyled images, or `None` if there is no style."""
        if not self.weight or not len(self._means):
            return None
        total, own = images_of_whole_batch(batch.images)
        drawn = torch.from_numpy(self._draws.integers(len(self._means), size=total))[own].to(batch.images.device)
        view = restyle(batch.images, self._means[drawn], self._deviations[drawn])
        embeddings, _, logits = pl_module.second_pass(view)
        return self.weight * pl_module.supervised_loss(batch.labels, embeddings, logits)

    def client_state_dict(self) -> dict[str, Any]:
        """Returns the client's own rows as they were sent."""
        return {} if self._own is None else {"own": self._own}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the client's own rows."""
        self._own = state["own"]

    def _measured(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor:
        data = trainer.datamodule  # type: ignore[attr-defined]
        batches = [(image_moments(batch.images), batch.cameras) for batch in data.stored_images()]
        moments = torch.cat([moments for moments, _ in batches])
        groups = torch.cat([cameras for _, cameras in batches])
        if self._clustered(data.client.train.has_cameras):
            draws = generator(pl_module.seed, NAME, "clusters")
            groups = k_means(torch.cat([moments[:, :3], _deviation(moments)], dim=1), self.clusters, draws)
        elif not data.client.train.has_cameras:
            groups = torch.zeros_like(groups)
        own = styles_of(moments, _largest(groups), self.least_images, self.noise_multiplier, self._normal(pl_module))
        if trainer.world_size > 1:  # secret noise differs between processes
            own = trainer.strategy.broadcast(own)
        return own

    def _clustered(self, has_cameras: bool) -> bool:
        return self.groups == "cluster" or (self.groups == "auto" and not has_cameras and not self.noise_multiplier)

    def _normal(self, pl_module: pl.LightningModule) -> Any:
        if self.noise == "secret":
            return SecretStream(new_key(), NAME).normal
        draws = generator(pl_module.seed, NAME, "noise")
        return lambda shape: torch.randn(tuple(shape), dtype=torch.float64, generator=draws)


def _deviation(moments: Tensor) -> Tensor:
    """Returns the deviations of each image's channels, `[N, 3]`."""
    return (moments[:, 3:] - moments[:, :3].square()).clamp(min=0).sqrt()


def _largest(groups: Tensor) -> Tensor:
    """Returns the groups; if there are more than `MOST_STYLES`, the smallest ones are merged into one group."""
    numbers, places, counts = groups.unique(return_inverse=True, return_counts=True)
    if len(numbers) <= MOST_STYLES:
        return groups
    rank = torch.empty_like(counts)
    rank[counts.argsort(descending=True, stable=True)] = torch.arange(len(counts))
    return rank.clamp(max=MOST_STYLES - 1)[places]
