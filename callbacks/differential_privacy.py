"""Client-level differential privacy of the global models (DP-FedAvg).

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError, require
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.aggregation import weighted_average
from fedreid_pl.functional.differential_privacy import (
    add_noise,
    clipped_answers,
    gaussian_epsilon,
    public_weights,
    update_norm,
)
from fedreid_pl.functional.randomness import generator
from fedreid_pl.functional.secret_noise import SecretStream, new_key

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext

_require = partial(require, "callbacks.differential_privacy")


class DifferentialPrivacy(FederationCallback):
    """Clips every client's update, averages the updates and adds Gaussian noise that hides each client's part.

    The update `w_k - w^t` over the exchanged parameters is clipped as a whole to the norm C:
    `w^{t+1} = w^t + sum_k p_k clip(w_k - w^t) + N(0, (z C max_k p_k)^2)`. The denominator of the weights p_k depends
    only on public values: the clients that the round selects and their registered numbers of images. A client that does
    not answer counts as a zero update. So one client's updates change the sum by at most `C max_k p_k`. If all clients
    answer, `noise_multiplier=0 clip=null buffers=average` equals FedPav bit for bit.

    Epsilon covers all global models released so far, against anybody who sees them. Two runs are neighbours if all
    updates of one client are added or removed. The server sees the updates and must be trusted. metrics.csv, the
    summary and the loggers contain losses and scores of single clients; epsilon does not cover them.

    The noised model is saved to disk before the server sends it. If a round is repeated after a stop, the server sends
    the saved model again; if it cannot, the new model counts as an additional release.

    Statistics and counters of BatchNorm are not parameters. Clipped with the parameters, they would dominate the norm;
    averaged without noise, they would reveal data. So the server keeps its own statistics, which
    `backbone_sync.batch_norm=recalibrate` estimates on public images, or BatchNorm stays at the clients (`local`).

    Args:
        noise_multiplier: z, noise in units of the largest change by one client; 0: no noise and no epsilon.
        clip: C, the largest norm of an update; null disables clipping.
        delta: probability that the guarantee of epsilon may fail; must be below 1 / clients.
        weights: weights of the clients: `data_volume` as in FedPav, or `uniform`, which needs the least noise.
        buffers: `server` as above; `average` uses those of the clients, which is only allowed without noise.
        noise: `secret` draws from a cryptographic stream with a new 256-bit key for every release; no key is saved.
            `seed` draws from the run's public seed, for tests and bitwise comparisons; this is not private.
        selection: `public` selects `clients_per_round` clients by the run's seed, which does not lower epsilon.
            `poisson` draws each client with the same probability from a secret key, which lowers epsilon.
    """

    provides: ClassVar[tuple[Capability, ...]] = ("average",)
    # a callback that used the update or the numbers of a single client would release them without noise
    removes: ClassVar[tuple[Capability, ...]] = ("sees_single_updates",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "one_global_model")
    methods: ClassVar[Mapping[str, Method]] = {
        "fedpav_dp": Method(
            title="DP-FedAvg",
            paper="McMahan et al., ICLR 2018, Algorithm 1",
            purpose="privacy",
            does="clips every client's update and adds Gaussian noise to the average; the summary reports epsilon",
            needs=("hundreds of clients for a small epsilon", "public images", "pip install 'fedreid-pl[dp]'"),
            verified="the sensitivity is tested with updates of any size, the noise by its distribution, epsilon with "
            "two accountants",
        ),
    }

    def __init__(
        self,
        noise_multiplier: float = 1.0,
        clip: float | None = 1.0,
        delta: float = 1e-5,
        weights: Literal["data_volume", "uniform"] = "data_volume",
        buffers: Literal["server", "average"] = "server",
        noise: Literal["secret", "seed"] = "secret",
        selection: Literal["public", "poisson"] = "public",
    ) -> None:
        _require(0 <= noise_multiplier < math.inf, "noise_multiplier", noise_multiplier, "at least 0 and finite")
        _require(clip is None or 0 < clip < math.inf, "clip", clip, "above 0 and finite, or null")
        _require(0 < delta < 1, "delta", delta, "above 0 and below 1")
        _require(clip is not None or not noise_multiplier, "clip", clip, "a number if noise_multiplier is above 0")
        _require(
            buffers == "server" or not noise_multiplier, "buffers", buffers, "server if noise_multiplier is above 0"
        )
        self.noise_multiplier, self.clip, self.delta = noise_multiplier, clip, delta
        self.weights, self.buffers, self.noise, self.selection = weights, buffers, noise, selection
        self._released = 0
        self._rate = 1.0
        self._noised: State = {}
        self._saved: tuple[int, State] | None = None
        self._warned = False

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that the accountant is installed, BatchNorm's statistics are protected and delta is small enough.

        Raises:
            FedReIDError: if one of these conditions does not hold.
        """
        if self.noise_multiplier and find_spec("opacus") is None:
            raise FedReIDError("callbacks.differential_privacy: needs opacus; run pip install 'fedreid-pl[dp]'")
        policy = config.callbacks["backbone_sync"].get("batch_norm", "average")
        if self.buffers == "server" and policy not in ("recalibrate", "local"):
            raise FedReIDError(
                f"callbacks.backbone_sync.batch_norm={policy}: running statistics of the clients would be released "
                "without noise; with callbacks.differential_privacy set recalibrate (needs data.public) or local"
            )
        if self.selection == "poisson":
            self._check_sampling(config, len(data.clients))
        if self.noise_multiplier and self.delta * len(data.clients) >= 1:
            raise FedReIDError(
                f"callbacks.differential_privacy.delta={self.delta}: must be below 1 / clients, which is "
                f"{1 / len(data.clients):.3g}, for a meaningful guarantee"
            )

    def _check_sampling(self, config: Config, clients: int) -> None:
        wanted = config.clients_per_round
        if wanted is None or wanted >= clients:
            raise FedReIDError(
                f"clients_per_round={wanted}: must be below {clients}, the number of clients, because "
                "callbacks.differential_privacy.selection=poisson draws this many clients on average"
            )
        if config.rounds * (1 - wanted / clients) ** clients > self.delta:
            raise FedReIDError(
                f"clients_per_round={wanted}: with {clients} clients, callbacks.differential_privacy.selection=poisson "
                f"is too likely to draw no client in one of {config.rounds} rounds; raise clients_per_round"
            )

    def on_federation_start(self, federation: RoundContext) -> None:
        """Sets the probability with which `selection=poisson` draws a client."""
        if self.selection == "poisson":
            self._rate = (federation.config.clients_per_round or 0) / len(federation.clients)

    def on_members_change(self, federation: RoundContext, changes: Mapping[str, int]) -> None:
        """Checks that delta is small enough; the probability of drawing a client does not change."""
        if self.noise_multiplier and self.delta * len(federation.clients) >= 1:
            raise FedReIDError(
                f"callbacks.differential_privacy.delta={self.delta}: must be below 1 / clients, and there are now "
                f"{len(federation.clients)} clients; remove the new clients, or start a new run with a smaller delta"
            )

    def on_round_start(self, federation: RoundContext) -> None:
        """With `selection=poisson`, draws the clients of the round, the same in every process.

        Raises:
            FedReIDError: if no client is drawn.
        """
        if self.selection != "poisson":
            return
        drawn = torch.from_numpy(SecretStream(new_key(), "selection").uniform(len(federation.clients)) <= self._rate)
        kept = federation.server.agree({"drawn": drawn.to(torch.uint8)})["drawn"].tolist()
        federation.selected = [client for client, chosen in zip(federation.clients, kept, strict=True) if chosen]
        if not federation.selected:
            raise FedReIDError(f"round {federation.round}: selection=poisson drew no client; run the command again")

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Sets the public weight of every client that answered."""
        public = self._public_weights(federation)
        weights |= {update.client: public[update.client] for update in updates}

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Returns `w^t + sum_k p_k clip(w_k - w^t) + N(0, (z C max_k p_k)^2)`."""
        sent = federation.models["global"]
        names = [name for name in updates[0].backbone if _is_parameter(federation, name, sent)]
        clip = math.inf if self.clip is None else self.clip
        norms = [update_norm(sent, update.backbone, names) for update in updates]
        public = self._public_weights(federation)
        answers = {update.client: update.backbone for update in updates}
        average = weighted_average(*clipped_answers(sent, answers, names, clip, public), federation.buffer_names)
        if self.buffers == "server":
            average = {name: average[name] if name in names else sent[name] for name in average}
        federation.record("privacy", "server", "clipped", sum(norm > clip for norm in norms) / len(norms))
        federation.record("privacy", "server", "update_norm", sum(norms) / len(norms))
        if not self.noise_multiplier:
            self._released += 1
            return {**models, "global": {**models["global"], **average}}
        sigma = self.noise_multiplier * clip * max(public.values())
        self._compare(federation, sigma, update_norm(sent, average, names), sum(sent[name].numel() for name in names))
        average |= self._release(federation, average, names, sigma)
        if self.noise == "secret":
            federation.record("privacy", "server", "epsilon", self._epsilon())
        return {**models, "global": {**models["global"], **average}}

    def summary(self) -> dict[str, Any]:
        """Returns epsilon, the values from which it was computed, and the guarantee in words."""
        promised = bool(self.noise_multiplier) and self.noise == "secret"
        return {
            "guarantee": self._guarantee(),
            "epsilon": self._epsilon() if promised else None,
            "delta": self.delta,
            "noise_multiplier": self.noise_multiplier,
            "clip": self.clip,
            "releases": self._released,
            "rate": self._rate,
            "noise": self.noise,
            "selection": self.selection,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of released models, and the probability with which `selection=poisson` draws a client."""
        return {"released": self._released, **({"rate": self._rate} if self.selection == "poisson" else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the number of released models and the probability."""
        self._released = state["released"]
        self._rate = float(state.get("rate", self._rate))

    def release_state(self) -> dict[str, Any]:
        """Returns the noised parameters and the number of releases, including this one."""
        return {"released": self._released, "parameters": self._noised} if self._noised else {}

    def load_release_state(self, state: dict[str, Any], round: int) -> None:
        """Counts the releases before a stop, and keeps their last parameters in case the round is repeated."""
        self._released = max(self._released, state["released"])
        self._saved = (round, state["parameters"])

    def _release(self, federation: RoundContext, average: State, names: Sequence[str], sigma: float) -> State:
        """Returns the noised parameters of the round; if the round is repeated, those that were already released."""
        round, saved = self._saved or (0, {})
        shapes = {name: average[name].shape for name in names}
        if round == federation.round and {name: value.shape for name, value in saved.items()} == shapes:
            self._noised = saved
            federation.warn("the model of this round was released before the run stopped; the server sends it again")
            return saved
        noisy = add_noise(average, names, sigma, self._normal(federation))
        self._released += 1
        released = {name: noisy[name] for name in names}
        self._noised = released if self.noise == "secret" else {}
        return released

    def _normal(self, federation: RoundContext) -> Callable[[Sequence[int]], torch.Tensor]:
        """Returns a function that draws standard normal numbers, the same in every process."""
        if self.noise == "seed":
            draws = generator(federation.seed, federation.round, "differential_privacy")
            return lambda shape: torch.randn(shape, generator=draws, dtype=torch.float64)
        key = torch.frombuffer(bytearray(new_key()), dtype=torch.uint8)
        return SecretStream(bytes(federation.server.agree({"key": key})["key"].tolist()), "noise").normal

    def _public_weights(self, federation: RoundContext) -> dict[str, float]:
        asked = federation.clients if self.selection == "poisson" else federation.selected
        sizes = {client: 1 if self.weights == "uniform" else federation.clients[client] for client in asked}
        return public_weights(sizes, self._rate)

    def _compare(self, federation: RoundContext, sigma: float, signal: float, count: int) -> None:
        """Records the norm of the noise, and warns once if it is larger than the norm of the mean update."""
        noise = sigma * math.sqrt(count)
        federation.record("privacy", "server", "noise_norm", noise)
        if self._warned:
            return
        self._warned = True
        if self.noise == "seed":
            federation.warn(
                "callbacks.differential_privacy.noise=seed: not private, the noise depends on the run's seed"
            )
        if noise > signal:
            federation.warn(
                f"the norm of the noise ({noise:.3g}) is above that of the mean update ({signal:.3g}): the model can "
                "hardly learn; use more clients or a smaller callbacks.differential_privacy.noise_multiplier"
            )

    def _guarantee(self) -> str:
        if not self.noise_multiplier:
            return "not private: no noise was added"
        if self.noise == "seed":
            return "not private: the noise depends on the run's seed"
        return "differential privacy of the released global models, for adding or removing one client's updates"

    def _epsilon(self) -> float:
        return gaussian_epsilon(self.noise_multiplier, self._released, self.delta, self._rate)


def _is_parameter(federation: RoundContext, name: str, state: Mapping[str, torch.Tensor]) -> bool:
    return name not in federation.buffer_names and state[name].is_floating_point()
