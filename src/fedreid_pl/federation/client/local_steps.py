"""The optimizer steps of a client's turn, as a client half sees them through Lightning's hooks."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer

from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.local_steps import displacement


def gradient_scale(trainer: pl.Trainer, optimizer: Optimizer) -> float:
    """The factor that gradients carry in `on_before_optimizer_step`; what is added to them has to carry it too.

    It is one but for 16-mixed precision with an optimizer that divides by the loss scale inside its own step, as
    fused SGD does: Lightning leaves those gradients scaled, all others it unscales before the hook.
    """
    scaler = _scaler(trainer)
    inside = getattr(optimizer, "_step_supports_amp_scaling", False)
    return float(scaler.get_scale()) if scaler is not None and inside else 1.0


def check_fresh_momentum(config: Config, callback: str) -> None:
    """Refuses momentum that lasts over rounds, for a callback that counts steps from zero momentum.

    Raises:
        FedReIDError: with `optimizer_state=keep` and momentum.
    """
    if config.optimizer_state == "keep" and config.optim.momentum:
        raise FedReIDError(
            f"optimizer_state=keep: callbacks.{callback} counts local steps that begin with zero momentum; "
            "set optimizer_state=reset or optim.momentum=0"
        )


class LocalSteps:
    """Records the learning rates of a turn's steps; one that 16-mixed precision skipped does not count.

    `before_step` belongs into `on_before_optimizer_step`, `after_step` into `on_train_batch_end`.
    """

    def __init__(self) -> None:
        self._groups: list[dict[str, Any]] = []
        self._rates: list[list[float]] = []  # of each step, by parameter group
        self._scale = 0.0

    def before_step(self, trainer: pl.Trainer, optimizer: Optimizer) -> None:
        """A step is about to be taken with the rates that the optimizer has now."""
        self._groups = optimizer.param_groups
        self._rates.append([float(group["lr"]) for group in self._groups])
        scaler = _scaler(trainer)
        self._scale = scaler.get_scale() if scaler is not None else 0.0

    def after_step(self, trainer: pl.Trainer) -> None:
        """Takes the step back if the loss scale fell: its gradients were not finite, and nothing was moved."""
        scaler = _scaler(trainer)
        if scaler is not None and self._rates and scaler.get_scale() < self._scale:
            self._rates.pop()
        self._scale = 0.0

    def of(self, parameter: Tensor) -> tuple[list[float], float, bool]:
        """Learning rate of each step, the momentum and whether it is Nesterov's; no rates if no optimizer has it."""
        for number, group in enumerate(self._groups):
            if any(parameter is item for item in group["params"]):
                return [rates[number] for rates in self._rates], float(group["momentum"]), bool(group["nesterov"])
        return [], 0.0, False

    def displacement(self, parameter: Tensor) -> float:
        """How far the steps would have moved a parameter whose gradient is always one."""
        return displacement(*self.of(parameter))


def _scaler(trainer: pl.Trainer) -> Any:
    return getattr(trainer.precision_plugin, "scaler", None)
