"""Server optimizers: the server takes an optimizer step along the averaged update, which it uses as a pseudo-gradient.

FedAvgM: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
2019. FedAdagrad, FedAdam, FedYogi: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.fedopt import adaptive_step, momentum_step

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext


class FedOpt(FederationCallback):
    """Takes a step from the round's old model w^t along `w^t - w`, where w is the model of the previous callbacks.

    The step changes parameters only. Running statistics and counters stay averaged: they belong to the average and not
    to the model after the step. `backbone_sync.batch_norm=recalibrate` estimates them for the model that is sent.

    Args:
        optimizer: `momentum` (FedAvgM), `adam`, `yogi` or `adagrad`. FedAvgM with `lr=1 beta1=0` is FedPav.
        lr: learning rate of the server. `null` uses 1 for momentum and 0.01 for the others, which change a parameter by
            at most about `lr` in a round.
        beta1: decay of the first moment. Momentum enlarges a constant pseudo-gradient 1 / (1 - beta1) times; the others
            do not enlarge it. The paper runs FedAdagrad with 0.
        beta2: decay of the second moment of adam and yogi.
        tau: degree of adaptivity of all optimizers but momentum: the smaller tau, the more similar are the step sizes
            of all parameters. The second moment starts at tau^2.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("server_step",)
    needs: ClassVar[tuple[Capability, ...]] = ("average", "one_global_model")
    methods: ClassVar[Mapping[str, Method]] = {
        "fedavgm": Method(
            title="FedAvgM",
            paper="Hsu et al., 2019",
            purpose="federation",
            does="adds momentum to the server's step",
            verified="the step is compared with torch.optim.SGD on the pseudo-gradient; without momentum the result "
            "equals FedPav's",
        ),
        "fedadam": Method(
            title="FedAdam",
            paper="Reddi et al., ICLR 2021, Algorithm 2",
            purpose="federation",
            does="the server takes an Adam step along the averaged update",
            verified="the step is compared with an independent implementation of the paper's algorithm, which has no "
            "bias correction",
        ),
        "fedyogi": Method(
            title="FedYogi",
            paper="Reddi et al., ICLR 2021, Algorithm 2",
            purpose="federation",
            does="the server takes a Yogi step along the averaged update",
            verified="the step is compared with an independent implementation of the paper's algorithm",
        ),
    }

    def __init__(
        self,
        optimizer: Literal["momentum", "adam", "yogi", "adagrad"] = "momentum",
        lr: float | None = None,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
    ) -> None:
        if lr is not None and not lr > 0:
            raise FedReIDError(f"callbacks.fedopt.lr={lr}: must be above 0")
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise FedReIDError(f"callbacks.fedopt.{name}={value}: must be at least 0 and below 1")
        if not tau > 0:
            raise FedReIDError(f"callbacks.fedopt.tau={tau}: must be above 0")
        self.optimizer = optimizer
        self.lr = lr if lr is not None else (1.0 if optimizer == "momentum" else 0.01)
        self.beta1, self.beta2, self.tau = beta1, beta2, tau
        self._first: dict[str, State] = {}  # by model, by parameter
        self._second: dict[str, State] = {}

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Returns `w^{t+1} = w^t - lr * direction(w^t - w)` for every model."""
        return {
            model: {
                name: mean
                if name in federation.buffer_names or not mean.is_floating_point()
                else self._step(model, name, federation.models[model][name], mean)
                for name, mean in state.items()
            }
            for model, state in models.items()
        }

    def _step(self, model: str, name: str, old: Tensor, mean: Tensor) -> Tensor:
        dtype = torch.float64 if mean.dtype == torch.float64 else torch.float32
        first, second = self._first.setdefault(model, {}), self._second.setdefault(model, {})
        moment = first[name] if name in first else torch.zeros_like(mean, dtype=dtype)
        gradient = old.double() - mean.double()
        if self.optimizer == "momentum":
            weight, first[name] = momentum_step(old, gradient, moment, self.lr, self.beta1)
            return weight
        variance = second[name] if name in second else torch.full_like(mean, self.tau**2, dtype=dtype)
        weight, first[name], second[name] = adaptive_step(
            old, gradient, moment, variance, self.optimizer, self.lr, self.beta1, self.beta2, self.tau
        )
        return weight

    def state_dict(self) -> dict[str, Any]:
        """Returns first and second moments by model and parameter."""
        return {"first": _copy(self._first), "second": _copy(self._second)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the moments."""
        self._first, self._second = _copy(state.get("first", {})), _copy(state.get("second", {}))


def _copy(moments: Mapping[str, State]) -> dict[str, State]:
    return {model: dict(state) for model, state in moments.items()}  # the tensors are never changed in place
