"""Lightning's epoch of training batches, without what a client's turn has no use for in each of them."""

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
    """Runs the batches of an epoch with the same hooks in the same order as Lightning's own loop, to the same bits.

    Batches go through the hooks of the datamodule (of the module if there is none), the forward pass through strategy
    and precision plug-in. Left out is what the Trainer of a turn is never asked for: validation and schedulers between
    batches, accumulation and clipping of gradients, loggers, several loaders, skipping, the module's hooks around the
    optimizer. Only hooks that somebody overrides are called. Under 16-mixed precision, where a loss scale comes
    between gradients and step, both are Lightning's.
    """

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Looks up once who has which hook."""
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
        """One batch."""
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
        """After a batch."""
        self._batches_that_stepped += 1

    def _on_device(self, batch: Any) -> Any:
        trainer = self.trainer
        data = trainer.datamodule or trainer.lightning_module  # type: ignore[attr-defined]
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)
        return data.on_after_batch_transfer(batch, 0)

    def _step(self, batch: Any, index: int) -> Tensor:
        """Forward and backward pass and the optimizer's step; returns the loss."""
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
