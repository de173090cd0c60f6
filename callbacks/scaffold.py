"""SCAFFOLD: control variates correct the drift of local training.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, Algorithm 1 with
option II.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.client.local_steps import LocalSteps, check_fresh_momentum, gradient_scale
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, DeclaredTensor, State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.scaffold import control_change, move_control

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext

PREFIX = "scaffold."


class Scaffold(FederationCallback):
    """Adds c - c_k to the gradients of the exchanged parameters: the mean direction minus that of client k.

    The server saves and sends c; c_k stays at the client. Both start with zeros and have no entries for buffers. After
    its turn, a client sets `c_k+ = c_k - c + (w^t - w_k) / d` and sends the change. d is the distance that a constant
    gradient of one would have moved a parameter: K * lr for plain SGD as in the paper, and with momentum and changing
    learning rates the corresponding distance. The server adds 1/N of every change to c, where N is the number of all
    clients.

    The optimizer adds weight decay after the correction, so weight decay is part of the local gradient that c_k
    estimates. The average is that of the previous callbacks, by default weighted by number of images; the paper's is
    unweighted. Messages are twice as long as those of FedPav. A rejected update does not change c, although its client
    has a new c_k. A client that joins later starts with c_k = 0, so c, the mean over all clients, becomes smaller. A
    client that leaves still counts in N, like a client that is not drawn.

    Args:
        server_lr: step size eta_g of the server: w^t + server_lr * (average - w^t).
    """

    removes: ClassVar[tuple[Capability, ...]] = ("server_step",)
    needs: ClassVar[tuple[Capability, ...]] = ("average", "one_global_model", "sees_single_updates", "server_step")
    methods: ClassVar[Mapping[str, Method]] = {
        "scaffold": Method(
            title="SCAFFOLD",
            paper="Karimireddy et al., ICML 2020, Algorithm 1, option II",
            purpose="local training",
            does="corrects every step by the difference between the control variates of the server and of the client",
            exchanged="the backbone; control variates of the same size in both directions",
            stays="the head; the client's control variate",
            verified="the method is compared with an independent implementation with plain SGD; momentum is taken "
            "into account, which the paper does not define",
        ),
    }

    def __init__(self, server_lr: float = 1.0) -> None:
        if not 0 < server_lr < math.inf:
            raise FedReIDError(f"callbacks.scaffold.server_lr={server_lr}: must be a finite number above 0")
        self.server_lr = server_lr
        self._control: State = {}  # c at the server, c_k at a client

    # server half

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that no momentum is saved between rounds, because d assumes momentum that starts at zero.

        Raises:
            FedReIDError: with `optimizer_state=keep` and momentum.
        """
        check_fresh_momentum(config, "scaffold")

    def on_members_change(self, federation: RoundContext, changes: Mapping[str, int]) -> None:
        """Rescales c to the mean over all clients, including new ones."""
        everybody = len(federation.ledger.members)
        new = sum(federation.ledger.members.spans(client)[0].first == federation.round for client in changes)
        if new:
            self._control = {name: value * ((everybody - new) / everybody) for name, value in self._control.items()}

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        """Adds c of the exchanged parameters to the job."""
        for name, value in job.backbone.items():
            if name not in federation.buffer_names:
                self._control.setdefault(name, torch.zeros_like(value))
        control = {PREFIX + name: value for name, value in self._control.items() if name in job.backbone}
        return replace(job, extras={**job.extras, **control})

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Updates c from the clients' changes, and returns the model after the server's step to the average."""
        changes = ({name: update.extras[PREFIX + name] for name in self._control} for update in updates)
        self._control = move_control(self._control, changes, len(federation.ledger.members))
        start, average = federation.models["global"], models["global"]
        stepped = {name: torch.lerp(start[name], average[name], self.server_lr) for name in self._control}
        return {**models, "global": {**average, **stepped}}

    def state_dict(self) -> dict[str, Any]:
        """Returns c."""
        return {"control": dict(self._control)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores c."""
        self._control = dict(state.get("control", {}))

    # client half

    def declared_extras(self, network: nn.Module) -> list[DeclaredTensor]:
        """Returns the tensors of c, one for each parameter of the backbone."""
        return [
            DeclaredTensor(PREFIX + name, tuple(value.shape), value.dtype) for name, value in network.named_parameters()
        ]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copies w^t and c - c_k on the device."""
        self._steps = LocalSteps()
        self._weights: dict[str, Tensor] = {}
        self._start: State = {}
        self._correction: State = {}
        for name, weight in pl_module.backbone.named_parameters():
            if PREFIX + name not in pl_module.job.extras:
                continue
            sent = pl_module.job.extras[PREFIX + name]
            own = self._control.setdefault(name, torch.zeros_like(sent))
            self._weights[name], self._start[name] = weight, weight.detach().clone()
            self._correction[name] = torch.empty_like(weight).copy_(sent - own)  # same memory format as the weight

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Adds c - c_k to the gradients."""
        self._steps.before_step(trainer, optimizer)
        scale = gradient_scale(trainer, optimizer)
        for name, weight in self._weights.items():
            if weight.grad is not None:
                weight.grad.add_(self._correction[name], alpha=scale)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Removes the step from the count if 16-mixed precision has skipped it."""
        self._steps.after_step(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps c_k+ and writes its change to the update."""
        for name, weight in self._weights.items():
            sent, distance = pl_module.job.extras[PREFIX + name], self._steps.displacement(weight)
            change = control_change(self._start[name].cpu(), weight.detach().cpu(), sent, distance)
            self._control[name] = self._control[name] + change
            pl_module.outbox.extras[PREFIX + name] = change
        self._weights, self._start, self._correction = {}, {}, {}

    def client_state_dict(self) -> dict[str, Any]:
        """Returns c_k."""
        return {"control": self._control} if self._control else {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores c_k."""
        self._control = dict(state["control"])
