"""The lean epoch loop calls the same hooks in the same order as Lightning's loop and gives the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import tiny_turn
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from torch.utils.data import DataLoader

from fedreid_pl.client import ReIDClient
from fedreid_pl.federation.client.epoch_loop import EpochLoop
from fedreid_pl.federation.client.trainer import quiet

BATCH_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
OTHER_HOOKS = ("on_train_start", "on_train_epoch_start", "on_train_epoch_end", "on_train_end")


class Diary(pl.Callback):
    """Records every hook with its arguments, the counters, the gradients and the name of the running hook."""

    def __init__(self) -> None:
        self.lines: list[tuple] = []


def _noting(name: str) -> Any:
    def hook(self: Diary, trainer: pl.Trainer, module: Any, *arguments: Any, **named: Any) -> None:
        weight = module.head.weight
        gradient = None if weight.grad is None else weight.grad.clone()
        seen = [_plain(value) for value in (*arguments, *named.values())]
        place = (trainer.current_epoch, trainer.global_step, trainer.fit_loop.batch_idx, module._current_fx_name)
        self.lines.append((name, place, seen, _plain(gradient), _plain(weight)))

    return hook


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().flatten().tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return type(value).__name__ if isinstance(value, torch.optim.Optimizer) else value


for _name in (*BATCH_HOOKS, *OTHER_HOOKS):
    setattr(Diary, _name, _noting(_name))


class Logging(pl.Callback):
    """Calls `log` in the usual hooks."""

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.log("slope", module.head.weight.grad.norm())

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *parts: Any) -> None:
        module.log("weight", module.head.weight.norm(), on_step=True, on_epoch=True)


class HookedClient(ReIDClient):
    """A module that overrides two hooks, one of which changes gradients, and logs numbers."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_epoch=True, batch_size=len(batch[1]))
        return loss

    def on_after_backward(self) -> None:
        self.head.weight.grad.mul_(0.5)

    def on_train_batch_end(self, *parts: Any) -> None:
        self.ended = getattr(self, "ended", 0) + 1


class Batches(pl.LightningDataModule):
    """A datamodule whose transfer hook doubles the batches."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(tiny_turn.make_batches(), batch_size=None)  # type: ignore[arg-type]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch._replace(images=2 * batch.images)


def turn(loop: type[_TrainingEpochLoop], precision: str, epochs: int = 2) -> tuple[ReIDClient, Diary, pl.Trainer]:
    quiet()
    scaled = precision == "scaled"
    module = HookedClient(tiny_turn.make_backbone(), tiny_turn.make_head(), tiny_turn.MOMENTUM)
    diary = Diary()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[pl.Callback(), diary, Logging()],
        plugins=[tiny_turn.Scaled()] if scaled else [],
        precision=None if scaled else precision,  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit_loop.epoch_loop = loop(trainer)
    trainer.fit(module, datamodule=Batches())
    return module, diary, trainer


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "scaled"])
def test_hooks_and_bits_are_those_of_lightnings_loop(precision: str) -> None:
    theirs, their_diary, their_trainer = turn(_TrainingEpochLoop, precision)
    ours, diary, trainer = turn(EpochLoop, precision)
    for line, expected in zip(diary.lines, their_diary.lines, strict=True):
        assert line == expected
    assert {line[0] for line in diary.lines} == {*BATCH_HOOKS, *OTHER_HOOKS}
    assert len(diary.lines) == 2 * 3 * len(BATCH_HOOKS) + 2 * 2 + 2  # two epochs of three batches
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert ours.ended == theirs.ended == 6
    assert len(trainer.callback_metrics) == 7 and trainer.callback_metrics == their_trainer.callback_metrics
    assert ours.outbox.metrics == theirs.outbox.metrics
    assert trainer.global_step == their_trainer.global_step == 6
    assert trainer.current_epoch == their_trainer.current_epoch


def test_without_a_datamodule_the_modules_hooks_move_the_batch() -> None:
    class Doubling(ReIDClient):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch._replace(images=2 * batch.images)

    def trained(loop: type[_TrainingEpochLoop]) -> torch.Tensor:
        module = Doubling(tiny_turn.make_backbone(), tiny_turn.make_head(), tiny_turn.MOMENTUM)
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.fit_loop.epoch_loop = loop(trainer)
        trainer.fit(module, DataLoader(tiny_turn.make_batches(), batch_size=None))  # type: ignore[arg-type]
        return module.head.weight

    assert torch.equal(trained(EpochLoop), trained(_TrainingEpochLoop))


def test_a_hook_that_raises_ends_the_turn() -> None:
    class Broken(pl.Callback):
        def on_before_optimizer_step(self, *parts: Any) -> None:
            raise ArithmeticError("here")

    module = ReIDClient(tiny_turn.make_backbone(), tiny_turn.make_head(), tiny_turn.PLAIN)
    before = module.head.weight.detach().clone()
    trainer = pl.Trainer(
        accelerator="cpu", callbacks=[Broken()], logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit_loop.epoch_loop = EpochLoop(trainer)
    with pytest.raises(ArithmeticError, match="here"):
        trainer.fit(module, DataLoader(tiny_turn.make_batches(), batch_size=None))  # type: ignore[arg-type]
    assert torch.equal(module.head.weight, before)
