"""Robust aggregation: a few clients that send arbitrary values can change the global model only little.

Coordinate-wise median and trimmed mean: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates", ICML 2018. Krum and multi-Krum: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.aggregation import weighted_average
from fedreid_pl.functional.robust import krum, number_cut, trimmed_mean

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext


class Robust(FederationCallback):
    """Replaces the average of `backbone_sync` by an aggregate that outliers cannot control.

    The aggregate ignores numbers of images on purpose: the server cannot verify the number that a client reports, and a
    false number would give this client the largest weight. The recorded weights are equal for the median and the
    trimmed mean. Under Krum they are equal for the chosen clients and zero for the others.

    Krum's distances use parameters only. In the first rounds, running statistics are nearly all of the distance between
    two models and would determine the choice. Under every rule, BatchNorm's statistics are the coordinate-wise median
    over all accepted updates, and counters are the lower median, so that no single client determines them.
    `backbone_sync.batch_norm=first` does not affect them.

    Args:
        rule: `median` or `trimmed_mean` of every coordinate; `krum`, the one model with the nearest neighbours;
            `multi_krum`, the mean of the n - byzantine models that Krum ranks best.
        trim: share of the clients that the trimmed mean removes at each end, below 0.5; the number of clients is
            rounded down.
        byzantine: f, the number of hostile clients in a round that Krum tolerates; needs 2 f + 3 clients. If rejected
            updates leave too few, the round uses the largest f that is possible.
    """

    provides: ClassVar[tuple[Capability, ...]] = ("average",)
    # weights are ignored; a hostile client could control a callback that uses the update of a single client
    removes: ClassVar[tuple[Capability, ...]] = ("weights", "sees_single_updates")
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "one_global_model", "sees_single_updates")
    methods: ClassVar[Mapping[str, Method]] = {
        "median": Method(
            title="Coordinate-wise median",
            paper="Yin et al., ICML 2018, Definition 1",
            purpose="robustness",
            does="replaces the mean by the median of every coordinate",
            verified="the result is compared with numpy's median; a client that sends arbitrary values cannot move it "
            "beyond the other clients' values",
        ),
        "trimmed_mean": Method(
            title="Trimmed mean",
            paper="Yin et al., ICML 2018, Definition 2",
            purpose="robustness",
            does="removes the largest and the smallest values of every coordinate before the mean",
            verified="the result is compared with scipy's trimmed mean",
        ),
        "krum": Method(
            title="Krum",
            paper="Blanchard et al., NeurIPS 2017",
            purpose="robustness",
            does="uses only the one model that is closest to its nearest neighbours",
            verified="the choice is compared with an independent implementation in plain loops",
        ),
        "multi_krum": Method(
            title="Multi-Krum",
            paper="Blanchard et al., NeurIPS 2017",
            purpose="robustness",
            does="averages the models with the best Krum scores",
            verified="the choice is compared with an independent implementation in plain loops",
        ),
    }

    def __init__(
        self,
        rule: Literal["median", "trimmed_mean", "krum", "multi_krum"] = "median",
        trim: float = 0.2,
        byzantine: int = 1,
    ) -> None:
        if not 0 <= trim < 0.5:
            raise FedReIDError(f"callbacks.robust.trim={trim}: must be at least 0 and below 0.5")
        if byzantine < 0:
            raise FedReIDError(f"callbacks.robust.byzantine={byzantine}: must be at least 0")
        self.rule, self.trim, self.byzantine = rule, trim, byzantine

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that Krum has enough clients in a round.

        Raises:
            FedReIDError: if a round has fewer than 2 f + 3 clients.
        """
        present, wanted = config.clients_per_round or len(data.clients), 2 * self.byzantine + 3
        if self.rule in ("krum", "multi_krum") and present < wanted:
            raise FedReIDError(
                f"callbacks.robust.byzantine={self.byzantine}: {self.rule} needs {wanted} clients in a round, but a "
                f"round has {present}; set byzantine to at most (clients - 3) / 2 or use rule=median"
            )

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Sets equal weights; under Krum only for the chosen clients, and zero for the others."""
        chosen: Sequence[int] = range(len(updates))
        if self.rule in ("krum", "multi_krum"):
            chosen = self._choose(federation, [_parts(federation, update)[0] for update in updates])
        for number, update in enumerate(updates):
            weights[update.client] = 1 / len(chosen) if number in chosen else 0.0

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Returns the models with aggregated parameters and median statistics; entries of clients do not change."""
        parameters, statistics = zip(*(_parts(federation, update) for update in updates), strict=True)
        if self.rule in ("krum", "multi_krum"):
            pairs = ((update.client, state) for update, state in zip(updates, parameters, strict=True))
            result = weighted_average(((client, state) for client, state in pairs if weights[client]), weights)
        else:
            result = trimmed_mean(parameters, self._cut(federation, len(updates)))
        result |= trimmed_mean(statistics, (len(updates) - 1) // 2)
        return {model: {**state, **result} for model, state in models.items()}

    def _cut(self, federation: RoundContext, count: int) -> int:
        if self.rule == "median":
            return (count - 1) // 2
        cut = number_cut(count, self.trim)
        if self.trim and not cut and count > 1:
            federation.warn(
                f"callbacks.robust.trim={self.trim:g} removes none of {count} updates; this round uses the plain mean"
            )
        return cut

    def _choose(self, federation: RoundContext, states: Sequence[Mapping[str, Tensor]]) -> Sequence[int]:
        count = len(states)
        if count < 3:
            federation.warn(f"{self.rule} needs at least 3 updates and has {count}; this round uses the plain mean")
            return range(count)
        byzantine = min(self.byzantine, (count - 3) // 2)
        if byzantine < self.byzantine:
            federation.warn(
                f"{self.rule} has {count} updates and tolerates {byzantine} instead of {self.byzantine} hostile clients"
            )
        return krum(states, byzantine, 1 if self.rule == "krum" else count - byzantine)


def _parts(federation: RoundContext, update: ClientUpdate) -> tuple[State, State]:
    """Returns an update's parameters, and its statistics and counters of BatchNorm."""
    buffers = federation.buffer_names & update.backbone.keys()
    parameters = {name: value for name, value in update.backbone.items() if name not in buffers}
    return parameters, {name: update.backbone[name] for name in update.backbone if name in buffers}
