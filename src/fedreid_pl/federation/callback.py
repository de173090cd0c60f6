"""The extension point: one algorithm, its client half and its server half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytorch_lightning as pl

from fedreid_pl.federation.capabilities import Capability

if TYPE_CHECKING:
    from fedreid_pl.config import Config
    from fedreid_pl.data.federated import FederatedData
    from fedreid_pl.federation.messages import ClientJob, ClientUpdate, State
    from fedreid_pl.federation.server.loop import FederationLoop


class FederationCallback(pl.Callback):
    """A Lightning callback with hooks for the rounds of a federation.

    The **client half** uses Lightning's hooks (`on_fit_start`, `on_train_start`, ...) inside the client's
    Trainer. It reads `pl_module.job` and writes to `pl_module.outbox`; what has to survive until the client's
    next turn goes through `client_state_dict`.

    The **server half** uses the hooks below; `federation` is the loop, as `trainer` is in Lightning. Its state
    goes into the run's checkpoint through `state_dict`.

    The halves share nothing but the message: every turn of a client gets a new instance, made from the same
    options, so the same class works when the client is another process or another company.

    Attributes:
        provides: capabilities (see `federation.capabilities`) that hold because of this callback.
        removes: capabilities that do not hold for the other callbacks because of this one.
        needs: capabilities that have to hold for it to work. Callbacks that provide one of them have to be listed
            before it; one that removes one of them does not combine with it. A class that says nothing is taken to
            use single updates, and is refused beside a callback that protects them.
    """

    provides: ClassVar[tuple[Capability, ...]] = ()
    removes: ClassVar[tuple[Capability, ...]] = ()
    needs: ClassVar[tuple[Capability, ...]] = ("sees_single_updates",)

    def check(self, config: Config, data: FederatedData) -> None:
        """Before anything is written: raises `FedReIDError` if this experiment cannot work with the callback."""

    # server half

    def on_federation_start(self, federation: FederationLoop) -> None:
        """Before the first round, and before a checkpoint is restored."""

    def on_round_start(self, federation: FederationLoop) -> None:
        """After the clients of the round are drawn (`federation.selected`)."""

    def on_distribute(self, federation: FederationLoop, job: ClientJob) -> ClientJob:
        """Returns the job to send to one client, `job` itself or a changed copy."""
        return job

    def on_update(self, federation: FederationLoop, update: ClientUpdate) -> None:
        """An update was accepted."""

    def on_aggregation_start(
        self, federation: FederationLoop, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Sets the weights of the clients, in place; may change `federation.assignment`."""

    def aggregate(
        self,
        federation: FederationLoop,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """The new models by name (`"global"`, or one per cluster), made from those of the callbacks before.

        Args:
            weights: of the clients; those that share a model add up to one.
            models: what the callbacks before this one made of the updates, empty for the first. The models that
                the round began with are in `federation.models` until all callbacks are done.
        """
        return models

    def on_aggregation_end(self, federation: FederationLoop, updates: Sequence[ClientUpdate]) -> None:
        """Refines `federation.models` after aggregation."""

    def on_round_end(self, federation: FederationLoop) -> None:
        """After evaluation, before the round's checkpoint."""

    def on_federation_end(self, federation: FederationLoop) -> None:
        """After the last round."""

    def summary(self) -> dict[str, Any]:
        """Plain values for summary.json, under the callback's name; nothing by default."""
        return {}

    # client half: what a client keeps between its turns

    def client_state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that this client's next turn needs; stays at the client."""
        return {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `client_state_dict` returned in the client's last turn."""
