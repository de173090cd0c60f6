"""Counts the optimizer steps of a client's turn through Lightning's hooks."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer

from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.local_steps import displacement


def gradient_scale(trainer: pl.Trainer, optimizer: Optimizer) -> float:
    """Returns the factor by which gradients are scaled in `on_before_optimizer_step`.

    A callback that adds a term to the gradients must multiply the term by this factor. The factor is 1, except under
    16-mixed precision with an optimizer that divides by the loss scale inside its own step, such as fused SGD:
    Lightning leaves these gradients scaled. It unscales all other gradients before the hook.
    """
    scaler = _scaler(trainer)
    inside = getattr(optimizer, "_step_supports_amp_scaling", False)
    return float(scaler.get_scale()) if scaler is not None and inside else 1.0


def check_fresh_momentum(config: Config, callback: str) -> None:
    """Checks that momentum starts at zero in every round, as a callback that counts local steps requires.

    Args:
        config: configuration of the run.
        callback: name of the callback, for the message.

    Raises:
        FedReIDError: if `optimizer_state=keep` and the optimizer uses momentum.
    """
    if config.optimizer_state == "keep" and config.optim.momentum:
        raise FedReIDError(
            f"optimizer_state=keep: callbacks.{callback} requires that momentum starts at zero in every round; "
            "set optimizer_state=reset or optim.momentum=0"
        )


class LocalSteps:
    """Records the learning rates of a turn's optimizer steps. Steps that 16-mixed precision skipped do not count.

    Call `before_step` in `on_before_optimizer_step` and `after_step` in `on_train_batch_end`.
    """

    def __init__(self) -> None:
        self._groups: list[dict[str, Any]] = []
        self._rates: list[list[float]] = []  # one list per step, with one rate per parameter group
        self._scale = 0.0

    def before_step(self, trainer: pl.Trainer, optimizer: Optimizer) -> None:
        """Records the optimizer's current learning rates; call it before every step."""
        self._groups = optimizer.param_groups
        self._rates.append([float(group["lr"]) for group in self._groups])
        scaler = _scaler(trainer)
        self._scale = scaler.get_scale() if scaler is not None else 0.0

    def after_step(self, trainer: pl.Trainer) -> None:
        """Removes the step if the loss scale has fallen: its gradients were not finite, so the optimizer skipped it."""
        scaler = _scaler(trainer)
        if scaler is not None and self._rates and scaler.get_scale() < self._scale:
            self._rates.pop()
        self._scale = 0.0

    def of(self, parameter: Tensor) -> tuple[list[float], float, bool]:
        """Returns the learning rates of all steps, the momentum, and whether the momentum is Nesterov's.

        The list is empty if the optimizer does not update `parameter`.
        """
        for number, group in enumerate(self._groups):
            if any(parameter is item for item in group["params"]):
                return [rates[number] for rates in self._rates], float(group["momentum"]), bool(group["nesterov"])
        return [], 0.0, False

    def displacement(self, parameter: Tensor) -> float:
        """Returns how far the steps would have moved a parameter whose gradient is always one."""
        return displacement(*self.of(parameter))


def _scaler(trainer: pl.Trainer) -> Any:
    return getattr(trainer.precision_plugin, "scaler", None)
