"""The extension point: one algorithm, its client half and its server half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytorch_lightning as pl
from torch import nn

from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from fedreid_pl.client import ReIDClient, TrainingLoss
    from fedreid_pl.config import Config
    from fedreid_pl.data.batch import TrainBatch
    from fedreid_pl.data.federated import FederatedData
    from fedreid_pl.federation.messages import ClientJob, ClientUpdate, DeclaredTensor, State
    from fedreid_pl.federation.server.context import RoundContext


class FederationCallback(pl.Callback):
    """A Lightning callback with hooks for the rounds of a federation.

    The **client half** uses Lightning's hooks (`on_fit_start`, `on_train_start`, ...) inside the client's
    Trainer. It reads `pl_module.job` and writes to `pl_module.outbox`; what has to survive until the client's
    next turn goes through `client_state_dict`.

    The **server half** uses the hooks below; `federation` is the run as the round sees it (`RoundContext`). Its
    state goes into the run's checkpoint through `state_dict`.

    The halves share nothing but the message: every turn of a client gets a new instance, made from the same
    options, so the same class works when the client is another process or another company.

    Attributes:
        provides: capabilities (see `federation.capabilities`) that hold because of this callback.
        removes: capabilities that do not hold for the other callbacks because of this one.
        needs: capabilities that have to hold for it to work. Callbacks that provide one of them have to be listed
            before it; one that removes one of them does not combine with it. A class that says nothing is taken to
            use single updates, and is refused beside a callback that protects them.
        job_config: name and type of the plain values that it adds to a job's `config`.
        heads: entries of `client_state_dict` that are heads like the client's own, with a row for every person. They
            follow a client whose persons change.
        per_person: entries of `client_state_dict` that hold something for every person and cannot follow. A client
            that has one is refused with other persons.
        methods: the methods that it makes possible, by the name of their experiment, in words; the list of
            `fedreid-pl methods` and docs/methods.md are made from them.
    """

    provides: ClassVar[tuple[Capability, ...]] = ()
    removes: ClassVar[tuple[Capability, ...]] = ()
    needs: ClassVar[tuple[Capability, ...]] = ("sees_single_updates",)
    job_config: ClassVar[Mapping[str, type]] = {}
    heads: ClassVar[tuple[str, ...]] = ()
    per_person: ClassVar[tuple[str, ...]] = ()
    methods: ClassVar[Mapping[str, Method]] = {}

    def check(self, config: Config, data: FederatedData) -> None:
        """Before anything is written: raises `FedReIDError` if this experiment cannot work with the callback."""

    # server half

    def on_federation_start(self, federation: RoundContext) -> None:
        """Before the first round, and before a checkpoint is restored."""

    def on_members_change(self, federation: RoundContext, changes: Mapping[str, int]) -> None:
        """Before a round in which clients have joined, left, or come back with other images.

        Args:
            federation: its `clients` are those of the round, `ledger.members` knows all that ever were members.
            changes: training images by client that has changed; zero for one that is no longer there.

        Raises:
            FedReIDError: if the algorithm cannot go on with these clients.
        """

    def on_round_start(self, federation: RoundContext) -> None:
        """After the clients of the round are drawn (`federation.selected`)."""

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        """Returns the job to send to one client, `job` itself or a changed copy."""
        return job

    def declared_answers(self, federation: RoundContext, job: ClientJob) -> Sequence[DeclaredTensor]:
        """Tensors that the answer to `job` has to hold among its `extras`, where they are not those that were sent.

        What is declared is checked against the declaration, all else against the job's own `extras`.
        """
        return ()

    def on_update(self, federation: RoundContext, update: ClientUpdate) -> None:
        """An update was accepted."""

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Sets the weights of the clients, in place; may change `federation.assignment`."""

    def aggregate(
        self,
        federation: RoundContext,
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

    def on_aggregation_end(self, federation: RoundContext, updates: Sequence[ClientUpdate]) -> None:
        """Refines `federation.models` after aggregation."""

    def on_round_end(self, federation: RoundContext) -> None:
        """After evaluation, before the round's checkpoint."""

    def on_federation_end(self, federation: RoundContext) -> None:
        """After the last round."""

    def summary(self) -> dict[str, Any]:
        """Plain values for summary.json, under the callback's name; nothing by default."""
        return {}

    def release_state(self) -> dict[str, Any]:
        """What has to be on the disk before the models of the round leave the server; nothing by default."""
        return {}

    def load_release_state(self, state: dict[str, Any], round: int) -> None:
        """Takes back what `release_state` returned in the last round whose models may have left, finished or not."""

    # client half: what a job may bring

    def exchanged(self, network: nn.Module) -> frozenset[str]:
        """Names of the backbone's entries that the client sends for this callback; a job that asks for more is refused.

        Args:
            network: the backbone.
        """
        return frozenset()

    def declared_extras(self, network: nn.Module) -> Sequence[DeclaredTensor]:
        """Tensors that a job may bring among its `extras` for this callback; a job with others is refused.

        Args:
            network: the backbone.
        """
        return ()

    # client half: a loss of its own, and what a client keeps between its turns

    def training_images(self, pl_module: ReIDClient, batch: TrainBatch) -> Tensor:
        """Returns the images that the step trains on, `batch.images` or a changed copy of the same shape.

        Args:
            pl_module: the client; draw from `derive_seed(pl_module.seed, purpose)`, for the whole batch
                (`models.whole_batch`), so that neither a restart nor the number of processes changes anything.
            batch: normalised images `[B, 3, H, W]`, labels, cameras and row numbers.
        """
        return batch.images

    def feature_maps(self, pl_module: ReIDClient, batch: TrainBatch, stage: int, maps: Tensor) -> Tensor:
        """Returns what the trunk's next stage gets, `maps` or changed ones of the same shape.

        Called after every residual stage of the trunk in the step's own forward pass, never in evaluations, probes,
        second passes or copies, and nothing of it is in a state dict. Whoever overrides it calls
        `models.stages.check_stages` in `check`.

        Args:
            pl_module: the client.
            batch: the step's images, as `training_images` left them.
            stage: number of the stage that has just been computed, from 0.
            maps: `[B, C, h, w]` with gradients.
        """
        return maps

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns what a training step adds to its loss: a scalar with gradients, or `None` for nothing.

        It is added inside the step, so that precision, strategy and loss scale apply, and its mean over the turn is
        reported as `train/NAME`, under the callback's name. Under several processes it is a mean over this process's
        part of the batch, as cross-entropy is.

        Args:
            pl_module: the client; `pl_module.clone_backbone()` makes a second network, `second_pass` computes
                another view of the images and `supervised_loss` what the step itself trains with.
            batch: images, labels, cameras and row numbers.
            embeddings: `[B, D]`, before the neck's BatchNorm, where metric losses belong.
            features: `[B, D]`, what is compared at test time and classified in training.
            logits: `[B, identities]`.
        """
        return None

    def client_state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that this client's next turn needs; stays at the client."""
        return {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `client_state_dict` returned in the client's last turn."""


def step_hooks(callbacks: Mapping[str, FederationCallback]) -> dict[str, Any]:
    """Returns `losses`, `images` and `maps` of a `ReIDClient`: what the callbacks do in its steps, in their order."""
    images, maps = FederationCallback.training_images, FederationCallback.feature_maps
    parts = callbacks.values()
    return {
        "losses": training_losses(callbacks),
        "images": [part.training_images for part in parts if type(part).training_images is not images],
        "maps": [part.feature_maps for part in parts if type(part).feature_maps is not maps],
    }


def training_losses(callbacks: Mapping[str, FederationCallback]) -> dict[str, TrainingLoss]:
    """Returns the losses of the callbacks that have one, by the callbacks' names."""
    plain = FederationCallback.training_loss
    return {name: part.training_loss for name, part in callbacks.items() if type(part).training_loss is not plain}
