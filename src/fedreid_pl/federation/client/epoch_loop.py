"""Lightning's loop over training batches, without the parts that a client's turn does not use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from torch import Tensor

if TYPE_CHECKING:
    from pytorch_lightning.loops.fetchers import _DataFetcher

HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class EpochLoop(_TrainingEpochLoop):
    """Runs the batches of an epoch with the same hooks, order and results (bit by bit) as Lightning's own loop.

    Batches pass through the hooks of the datamodule, or of the module if there is no datamodule. The forward pass uses
    the Trainer's strategy and precision plug-in. The loop omits the features that the Trainer of a turn does not use:
    validation and schedulers between batches, gradient accumulation and clipping, loggers, several loaders, skipped
    batches, and the module's hooks around the optimizer. It calls only hooks that a callback or the module overrides.
    Under 16-mixed precision, which scales the loss, Lightning itself runs the backward pass and the optimizer step.
    """

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Collects the overridden hooks once per run."""
        super().on_run_start(data_fetcher)
        trainer, module = self.trainer, self.trainer.lightning_module
        self._hooks: dict[str, list[Callable[..., Any]]] = {name: [] for name in HOOKS}
        for name, hooks in self._hooks.items():
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if _overrides(callback, name, pl.Callback):
                    hooks.append(partial(getattr(callback, name), trainer, module))
            if _overrides(module, name, pl.LightningModule):
                hooks.append(getattr(module, name))
        self._scaled = getattr(trainer.precision_plugin, "scaler", None) is not None

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Runs one batch."""
        progress, index = self.batch_progress, self.batch_idx + 1
        batch, _, _ = next(data_fetcher)
        progress.is_last_batch = data_fetcher.done
        batch = self._on_device(batch)
        progress.increment_ready()
        logged = self.trainer._logger_connector
        logged.on_batch_start(batch)
        self._call("on_train_batch_start", batch, index)
        progress.increment_started()
        loss = self._step(batch, index)
        progress.increment_processed()
        self._call("on_train_batch_end", {"loss": loss}, batch, index)
        logged.on_batch_end()
        progress.increment_completed()

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Counts the batch as an optimizer step."""
        self._batches_that_stepped += 1

    def _on_device(self, batch: Any) -> Any:
        trainer = self.trainer
        data = trainer.datamodule or trainer.lightning_module  # type: ignore[attr-defined]
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)
        return data.on_after_batch_transfer(batch, 0)

    def _step(self, batch: Any, index: int) -> Tensor:
        """Runs the forward pass, the backward pass and the optimizer step; returns the loss, a detached scalar."""
        strategy, module = self.trainer.strategy, self.trainer.lightning_module
        progress = self.automatic_optimization.optim_progress.optimizer
        optimizer = strategy.optimizers[0]
        losses: list[Tensor] = []

        def gradients() -> Tensor:
            module._current_fx_name = "training_step"
            loss: Any = strategy.training_step(batch, index)
            module._current_fx_name = None
            losses.append(loss.detach())
            progress.zero_grad.increment_ready()
            self._call("on_before_zero_grad", optimizer)
            optimizer.zero_grad()
            progress.zero_grad.increment_completed()
            if self._scaled:
                return strategy.backward(loss, optimizer)
            strategy.pre_backward(loss)
            self._call("on_before_backward", loss)
            loss.backward()
            self._call("on_after_backward")
            strategy.post_backward(loss)
            return loss

        progress.step.increment_ready()
        if self._scaled:
            strategy.optimizer_step(optimizer, gradients, module)
        else:
            gradients()
            self._call("on_before_optimizer_step", optimizer)
            optimizer.step()
        progress.step.increment_completed()
        return losses[0]

    def _call(self, name: str, *arguments: Any) -> None:
        hooks = self._hooks[name]
        if not hooks:
            return
        module = self.trainer.lightning_module
        before, module._current_fx_name = getattr(module, "_current_fx_name", None), name
        for hook in hooks:
            hook(*arguments)
        module._current_fx_name = before


def _overrides(owner: Any, name: str, base: type) -> bool:
    hook = getattr(owner, name)
    return getattr(hook, "__func__", hook) is not getattr(base, name)
