"""FedNova: each client's change is divided by its number of local steps.

Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS 2020,
Section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytorch_lightning as pl
from torch.optim import Optimizer

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.client.local_steps import LocalSteps, check_fresh_momentum
from fedreid_pl.federation.messages import ClientUpdate, RejectedUpdate, State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.fednova import normalized_average
from fedreid_pl.functional.local_steps import effective_steps

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext


class FedNova(FederationCallback):
    """Computes `w^{t+1} = w^t + tau_eff * sum_k p_k (w_k - w^t) / a_k` with `tau_eff = sum_k p_k a_k`.

    a_k is the number of effective local steps. It takes momentum and learning rates that change within the turn into
    account. Besides the backbone, a client sends only this number. Plain averaging favours clients with many images
    twice, by their weights and by their numbers of steps. Terms that other callbacks add to the gradients, such as
    FedProx's, count as parts of the gradients. Buffers are those of `backbone_sync`, and weights are those that other
    callbacks set. If all clients take the same number of steps, FedNova equals FedPav.
    """

    provides: ClassVar[tuple[Capability, ...]] = ("average",)
    removes: ClassVar[tuple[Capability, ...]] = ("server_step",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "one_global_model", "sees_single_updates")
    methods: ClassVar[Mapping[str, Method]] = {
        "fednova": Method(
            title="FedNova",
            paper="Wang et al., NeurIPS 2020, Section 4",
            purpose="federation",
            does="divides each client's change by its number of steps, in which momentum is included",
            exchanged="the backbone; the number of effective steps",
            verified="the average is compared with an independent implementation, the number of steps with the "
            "paper's closed form; with equal steps the result equals FedPav's",
        ),
    }

    # server half

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that no momentum is saved between rounds, because a_k assumes momentum that starts at zero.

        Raises:
            FedReIDError: with `optimizer_state=keep` and momentum.
        """
        check_fresh_momentum(config, "fednova")

    def on_update(self, federation: RoundContext, update: ClientUpdate) -> None:
        """Checks that the update reports a possible number of steps.

        Raises:
            RejectedUpdate: if the number is missing, below 1 or above the largest possible number.
        """
        config, steps = federation.config, update.metrics.get("effective_steps")
        # A step has at least one image, momentum adds up to 1 / (1 - rho), and a warmup over the epochs of the turn
        # multiplies the rate by at most the number of epochs.
        taken = config.local_steps or federation.clients[update.client] * config.local_epochs**2
        most = taken / (1 - config.optim.momentum)
        if steps is None or not 1 <= steps <= most:
            raise RejectedUpdate(f"the client reports {steps} effective steps, expected 1 to {most:.0f}")

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Returns the global model with new parameters; its buffers do not change."""
        exchanged = updates[0].backbone.keys() - federation.buffer_names  # updates of FedBN have no BatchNorm
        start = {name: value for name, value in federation.models["global"].items() if name in exchanged}
        steps = {update.client: update.metrics["effective_steps"] for update in updates}
        for client, count in steps.items():
            federation.record("weights", client, "effective_steps", count)
        states = ((update.client, update.backbone) for update in updates)
        average = normalized_average(start, states, weights, steps)
        return {**models, "global": {**models["global"], **average}}

    # client half

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts to count the steps of the turn."""
        self._steps = LocalSteps()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Counts a step."""
        self._steps.before_step(trainer, optimizer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Removes the step from the count if 16-mixed precision has skipped it."""
        self._steps.after_step(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports a_k. It is equal for all exchanged parameters, because one factor changes their learning rates."""
        exchanged = (value for name, value in pl_module.backbone.named_parameters() if name in pl_module.job.backbone)
        counts = (effective_steps(*self._steps.of(value)) for value in exchanged)
        pl_module.outbox.metrics["effective_steps"] = max(counts, default=0.0)  # frozen parameters take no steps
