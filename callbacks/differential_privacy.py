"""Client-level differential privacy of the global models (DP-FedAvg).

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, Algorithm 1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.functional.aggregation import weighted_average
from fedreid_pl.functional.differential_privacy import add_noise, clip_update, gaussian_epsilon, update_norm
from fedreid_pl.functional.randomness import generator


class DifferentialPrivacy(FederationCallback):
    """Clips every client's update, averages, and adds Gaussian noise: what one client adds cannot be told.

    The update is `w_k - w^t` over the exchanged parameters, clipped as a whole to the norm C. The average gets noise
    of standard deviation `noise_multiplier * C * max_k p_k`, since no client can move it by more than `C max_k p_k`.
    The weights p_k belong to the numbers of images that clients registered with and count as public. With
    `noise_multiplier=0 clip=null buffers=average` this is FedPav to the bit.

    Epsilon is that of all global models released so far, for the presence of one client's contribution, towards
    whoever sees the models; the server itself sees the updates and is trusted. metrics.csv, the summary and the
    loggers hold measurements of single clients (losses, scores) and are not covered by it.

    BatchNorm's statistics and counters are no parameters: clipped along with them, they would swamp the rest; averaged
    as they are, they would leak. The server therefore keeps its own, which `backbone_sync.batch_norm=recalibrate`
    estimates on public images, or BatchNorm stays at the clients (`local`).

    Args:
        noise_multiplier: z, noise in units of the most that one client can change; 0: none, and no epsilon.
        clip: C, the greatest norm of an update; null: any.
        delta: probability with which epsilon may fail; below 1 / clients.
        weights: of the clients: `data_volume` as in FedPav, or `uniform`, which needs the least noise.
        buffers: `server` as above; `average`: those of the clients, without noise alone.
        noise: drawn from the `seed` of the run, so that it can be repeated, or from a `secret` of 64 bits that the
            system draws and the server's checkpoints keep. Whoever knows either can take the noise away.
    """

    provides: ClassVar[tuple[Capability, ...]] = ("average",)
    # whatever uses what a single client sent, its numbers included, would release it without noise
    removes: ClassVar[tuple[Capability, ...]] = ("sees_single_updates",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "one_global_model")

    def __init__(
        self,
        noise_multiplier: float = 1.0,
        clip: float | None = 1.0,
        delta: float = 1e-5,
        weights: Literal["data_volume", "uniform"] = "data_volume",
        buffers: Literal["server", "average"] = "server",
        noise: Literal["seed", "secret"] = "seed",
    ) -> None:
        _require(0 <= noise_multiplier < math.inf, "noise_multiplier", noise_multiplier, "at least 0 and finite")
        _require(clip is None or 0 < clip < math.inf, "clip", clip, "above 0 and finite, or null")
        _require(0 < delta < 1, "delta", delta, "above 0 and below 1")
        _require(clip is not None or not noise_multiplier, "clip", clip, "a number where noise is added in its measure")
        _require(buffers == "server" or not noise_multiplier, "buffers", buffers, "server where noise is added")
        self.noise_multiplier, self.clip, self.delta = noise_multiplier, clip, delta
        self.weights, self.buffers, self.noise = weights, buffers, noise
        self._released = 0
        self._secret = 0

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that the accountant is installed, BatchNorm's statistics stay private and delta is small enough."""
        if self.noise_multiplier and find_spec("opacus") is None:
            raise FedReIDError("callbacks.differential_privacy: needs opacus; pip install 'fedreid-pl[dp]'")
        policy = config.callbacks["backbone_sync"].get("batch_norm", "average")
        if self.buffers == "server" and policy not in ("recalibrate", "local"):
            raise FedReIDError(
                f"callbacks.backbone_sync.batch_norm={policy}: running statistics of the clients have no noise; under "
                "callbacks.differential_privacy choose recalibrate (on the public set) or local"
            )
        if self.noise_multiplier and self.delta * len(data.clients) >= 1:
            raise FedReIDError(
                f"callbacks.differential_privacy.delta={self.delta}: promises nothing unless it is below 1 / clients, "
                f"which is {1 / len(data.clients):.3g}"
            )

    def on_federation_start(self, federation: FederationLoop) -> None:
        """Draws the secret, the same in every process."""
        if self.noise == "secret":
            drawn = torch.tensor(int.from_bytes(os.urandom(8), "little") >> 1)
            self._secret = int(federation.server.agree({"secret": drawn})["secret"])

    def on_aggregation_start(
        self, federation: FederationLoop, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Under `weights=uniform`, 1 / number of clients."""
        if self.weights == "uniform":
            weights |= {update.client: 1 / len(updates) for update in updates}

    def aggregate(
        self,
        federation: FederationLoop,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """w = sum_k p_k clip(w_k) + N(0, (z C max p)^2)."""
        sent = federation.models["global"]
        names = [name for name in updates[0].backbone if _is_parameter(federation, name, sent)]
        norms = [update_norm(sent, update.backbone, names) for update in updates]
        clip = math.inf if self.clip is None else self.clip
        clipped = ((update.client, clip_update(sent, update.backbone, names, clip)) for update in updates)
        average = weighted_average(clipped, weights, federation.buffer_names)
        if self.buffers == "server":
            average = {name: average[name] if name in names else sent[name] for name in average}
        if self.noise_multiplier:
            sigma = self.noise_multiplier * clip * max(weights.values())
            average = add_noise(average, names, sigma, self._draws(federation))
        self._released += 1
        federation.record("privacy", "server", "clipped", sum(norm > clip for norm in norms) / len(norms))
        federation.record("privacy", "server", "update_norm", sum(norms) / len(norms))
        if self.noise_multiplier:
            federation.record("privacy", "server", "epsilon", self._epsilon())
        return {**models, "global": {**models["global"], **average}}

    def summary(self) -> dict[str, Any]:
        """Epsilon and what it was computed from."""
        epsilon = self._epsilon() if self.noise_multiplier else None
        return {
            "epsilon": epsilon,
            "delta": self.delta,
            "noise_multiplier": self.noise_multiplier,
            "clip": self.clip,
            "rounds": self._released,
            "noise": self.noise,
        }

    def state_dict(self) -> dict[str, Any]:
        """Number of models released, and the secret."""
        return {"released": self._released, "secret": self._secret}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._released, self._secret = state["released"], state["secret"]

    def _epsilon(self) -> float:
        return gaussian_epsilon(self.noise_multiplier, self._released, self.delta)

    def _draws(self, federation: FederationLoop) -> torch.Generator:
        root = self._secret if self.noise == "secret" else federation.seed
        return generator(root, federation.round, "differential_privacy")


def _is_parameter(federation: FederationLoop, name: str, state: Mapping[str, torch.Tensor]) -> bool:
    return name not in federation.buffer_names and state[name].is_floating_point()


def _require(holds: bool, key: str, value: object, bound: str) -> None:
    if not holds:
        raise FedReIDError(f"callbacks.differential_privacy.{key}={value}: must be {bound}")
