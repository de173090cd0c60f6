"""FedNova: each client's change is divided by the local steps that it took.

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
    """w^{t+1} = w^t + tau_eff * sum_k p_k (w_k - w^t) / a_k, with tau_eff = sum_k p_k a_k.

    a_k is the number of effective local steps, in which momentum and a rate that changes within the turn are
    accounted for; only this number travels besides the backbone. Plain averaging favours clients with many images
    twice, by their weight and by the number of their steps. What other callbacks add to the gradients, such as
    FedProx's term, counts as part of them. Buffers stay what `backbone_sync` made of them, and weights are
    whatever other callbacks set. Clients that take equally many steps make it FedPav.
    """

    provides: ClassVar[tuple[Capability, ...]] = ("average",)
    removes: ClassVar[tuple[Capability, ...]] = ("server_step",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "one_global_model", "sees_single_updates")
    methods: ClassVar[Mapping[str, Method]] = {
        "fednova": Method(
            title="FedNova",
            paper="Wang et al., NeurIPS 2020, Section 4",
            purpose="federation",
            does="divides each client's change by the steps that it took, counted with momentum",
            exchanged="the backbone; the number of effective steps",
            verified="the average against a second writing, steps against the paper's closed form; equal steps are "
            "FedPav",
        ),
    }

    # server half

    def check(self, config: Config, data: FederatedData) -> None:
        """Refuses momentum that a client keeps: a_k counts the steps of a momentum that starts at zero."""
        check_fresh_momentum(config, "fednova")

    def on_update(self, federation: RoundContext, update: ClientUpdate) -> None:
        """An update without a possible number of steps cannot be averaged."""
        config, steps = federation.config, update.metrics.get("effective_steps")
        # One image per step at least, momentum adds up to 1 / (1 - rho), and a warmup over the epochs of the
        # turn raises the rate by their number at most.
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
        """The parameters of the global model anew; its buffers as they are."""
        exchanged = updates[0].backbone.keys() - federation.buffer_names  # FedBN's updates hold no BatchNorm
        start = {name: value for name, value in federation.models["global"].items() if name in exchanged}
        steps = {update.client: update.metrics["effective_steps"] for update in updates}
        for client, count in steps.items():
            federation.record("weights", client, "effective_steps", count)
        states = ((update.client, update.backbone) for update in updates)
        average = normalized_average(start, states, weights, steps)
        return {**models, "global": {**models["global"], **average}}

    # client half

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """No step is taken yet."""
        self._steps = LocalSteps()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Counts a step."""
        self._steps.before_step(trainer, optimizer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Takes it back if it was skipped."""
        self._steps.after_step(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports a_k: the same for every exchanged parameter, as their rates change by one factor."""
        exchanged = (value for name, value in pl_module.backbone.named_parameters() if name in pl_module.job.backbone)
        counts = (effective_steps(*self._steps.of(value)) for value in exchanged)
        pl_module.outbox.metrics["effective_steps"] = max(counts, default=0.0)  # a frozen one takes no steps
