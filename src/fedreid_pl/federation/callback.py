"""The base class of federated algorithms: one callback with a client half and a server half."""

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
    """A Lightning callback with additional hooks for the rounds of a federation.

    The **client half** uses Lightning's hooks (`on_fit_start`, `on_train_start`, ...) in the client's Trainer. It reads
    `pl_module.job` and writes to `pl_module.outbox`. `client_state_dict` returns what the client's next turn needs.

    The **server half** uses the hooks below. Their argument `federation` is the server's view of the run
    (`RoundContext`). `state_dict` returns the state of the server half, which becomes part of the run's checkpoint.

    Client half and server half communicate only by messages. Every turn of a client creates a new instance of the
    callback with the same options. So the same class works if the client is another process or another company.

    Attributes:
        provides: capabilities (see `federation.capabilities`) that this callback gives to the experiment.
        removes: capabilities that the other callbacks do not have because of this one.
        needs: capabilities that this callback requires. Callbacks that provide one of them must be listed before it; a
            callback that removes one of them cannot be combined with it. The default assumes that a callback uses the
            updates of single clients, so it cannot be combined with a callback that protects them.
        job_config: name and type of each plain value that this callback adds to the `config` of a job.
        heads: names of entries of `client_state_dict` that are heads like the client's own, with one row for each
            person. If the persons of a client change, the rows of these heads change too.
        per_person: names of entries of `client_state_dict` that depend on the client's persons and cannot be adapted. A
            client with such an entry raises an error if its persons change.
        methods: descriptions of the methods that this callback implements, by experiment name. `fedreid-pl methods`
            prints them, and docs/methods.md contains them.
    """

    provides: ClassVar[tuple[Capability, ...]] = ()
    removes: ClassVar[tuple[Capability, ...]] = ()
    needs: ClassVar[tuple[Capability, ...]] = ("sees_single_updates",)
    job_config: ClassVar[Mapping[str, type]] = {}
    heads: ClassVar[tuple[str, ...]] = ()
    per_person: ClassVar[tuple[str, ...]] = ()
    methods: ClassVar[Mapping[str, Method]] = {}

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks before the run writes any file that the experiment can use this callback.

        Raises:
            FedReIDError: if the configuration or the data do not allow it.
        """

    # server half

    def on_federation_start(self, federation: RoundContext) -> None:
        """Called once before the first round, and before a checkpoint is loaded."""

    def on_members_change(self, federation: RoundContext, changes: Mapping[str, int]) -> None:
        """Called before a round if clients have joined, have left, or have returned with other images.

        Args:
            federation: the run. `federation.clients` are the clients of this round; `federation.ledger.members` also
                has all earlier clients.
            changes: new number of training images of each changed client; 0 if the client has left.

        Raises:
            FedReIDError: if the algorithm cannot continue with these clients.
        """

    def on_round_start(self, federation: RoundContext) -> None:
        """Called after the clients of the round (`federation.selected`) are drawn."""

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        """Returns the job that is sent to one client: `job` itself or a changed copy."""
        return job

    def declared_answers(self, federation: RoundContext, job: ClientJob) -> Sequence[DeclaredTensor]:
        """Returns the tensors that the `extras` of the answer must contain if they differ from the `extras` of the job.

        The server checks these tensors against their declaration, and all other tensors against the job's own `extras`.
        """
        return ()

    def on_update(self, federation: RoundContext, update: ClientUpdate) -> None:
        """Called for every update that has passed the server's checks.

        Raises:
            RejectedUpdate: if the algorithm cannot use the update.
        """

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Changes the aggregation weights of the clients in place. It may also change `federation.assignment`."""

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Returns the new models by name (`"global"`, or one name for each cluster).

        Args:
            federation: the run. `federation.models` holds the models of the round's start until all callbacks have
                returned.
            updates: accepted updates.
            weights: weight of each client; the weights of clients that share a model add up to one.
            models: result of the previous callback's `aggregate`; empty for the first callback.
        """
        return models

    def on_aggregation_end(self, federation: RoundContext, updates: Sequence[ClientUpdate]) -> None:
        """Called after aggregation; may change `federation.models`."""

    def on_round_end(self, federation: RoundContext) -> None:
        """Called after the evaluation of the round, before its checkpoint is saved."""

    def on_federation_end(self, federation: RoundContext) -> None:
        """Called once after the last round."""

    def summary(self) -> dict[str, Any]:
        """Returns plain values for summary.json, which lists them under the callback's name; empty by default."""
        return {}

    def release_state(self) -> dict[str, Any]:
        """Returns the state that must be on the disk before the server sends the round's models; empty by default."""
        return {}

    def load_release_state(self, state: dict[str, Any], round: int) -> None:
        """Restores the newest result of `release_state`, even if its round was not finished.

        Args:
            state: result of `release_state`.
            round: its round, the last one whose models the server may have sent.
        """

    # client half: content that a job may have

    def exchanged(self, network: nn.Module) -> frozenset[str]:
        """Returns the names of the backbone's entries that the client may exchange because of this callback.

        The client rejects a job that asks for other entries.

        Args:
            network: the backbone.
        """
        return frozenset()

    def declared_extras(self, network: nn.Module) -> Sequence[DeclaredTensor]:
        """Returns the tensors that the `extras` of a job may contain because of this callback.

        The client rejects a job with other tensors.

        Args:
            network: the backbone.
        """
        return ()

    # client half: changes of the training step, and state between a client's turns

    def training_images(self, pl_module: ReIDClient, batch: TrainBatch) -> Tensor:
        """Returns the images of the training step: `batch.images` or a changed copy of the same shape.

        Args:
            pl_module: the client. Random numbers must come from `derive_seed(pl_module.seed, purpose)` and be drawn for
                the whole batch (`models.whole_batch`), so that restarts and the number of processes do not change them.
            batch: normalised images `[B, 3, H, W]`, labels, cameras and row numbers.
        """
        return batch.images

    def feature_maps(self, pl_module: ReIDClient, batch: TrainBatch, stage: int, maps: Tensor) -> Tensor:
        """Returns the input of the trunk's next stage: `maps` or changed maps of the same shape.

        This hook is called after every residual stage of the trunk in the main forward pass of a training step. It is
        not called in evaluations, probes, second passes or copies of the network. No state dict contains the change. A
        callback that overrides this hook must call `models.stages.check_stages` in `check`.

        Args:
            pl_module: the client.
            batch: batch of the step, with the result of `training_images` as its images.
            stage: number of the stage that has produced `maps`, from 0.
            maps: `[B, C, h, w]` with gradients.
        """
        return maps

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns a term that is added to the loss of a training step: a scalar with gradients, or `None` for no term.

        The term is part of the step, so the Trainer's precision, strategy and loss scale apply to it. Its mean over the
        turn is logged as `train/NAME`, where NAME is the callback's name. With several processes the term is the mean
        over this process's part of the batch, like cross-entropy.

        Args:
            pl_module: the client. `pl_module.clone_backbone()` creates a second network, `second_pass` computes the
                features of other images, and `supervised_loss` returns the loss of the step itself.
            batch: images, labels, cameras and row numbers.
            embeddings: `[B, D]` before the neck's BatchNorm, for metric losses.
            features: `[B, D]` after the neck. The head classifies them, and retrieval compares them.
            logits: `[B, identities]`.
        """
        return None

    def client_state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values that this client's next turn needs. They never leave the client."""
        return {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the result of `client_state_dict` from the client's last turn."""


def step_hooks(callbacks: Mapping[str, FederationCallback]) -> dict[str, Any]:
    """Returns the arguments `losses`, `images` and `maps` of `ReIDClient`: the callbacks' step hooks, in order."""
    images, maps = FederationCallback.training_images, FederationCallback.feature_maps
    parts = callbacks.values()
    return {
        "losses": training_losses(callbacks),
        "images": [part.training_images for part in parts if type(part).training_images is not images],
        "maps": [part.feature_maps for part in parts if type(part).feature_maps is not maps],
    }


def training_losses(callbacks: Mapping[str, FederationCallback]) -> dict[str, TrainingLoss]:
    """Returns the `training_loss` of every callback that overrides it, by callback name."""
    plain = FederationCallback.training_loss
    return {name: part.training_loss for name, part in callbacks.items() if type(part).training_loss is not plain}
