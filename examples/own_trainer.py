"""Trains and tests one client with a Lightning Trainer of your own: loggers, callbacks and strategies are yours.

    python examples/own_trainer.py [CLIENT] [EPOCHS]

The client is `ReIDClient`, a LightningModule; its test step fills `ReIDRetrieval`, a torchmetrics metric.
"""

from __future__ import annotations

import sys

import pytorch_lightning as pl

import fedreid_pl


class Losses(pl.Callback):
    """Prints the mean loss of every epoch; any other Lightning callback works in its place."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, *rest) -> None:
        """Adds the loss of a batch."""
        self.values = [*getattr(self, "values", []), float(outputs["loss"])]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the mean loss of the epoch and resets it."""
        print(f"epoch {trainer.current_epoch + 1}: loss {sum(self.values) / len(self.values):.3f}")
        self.values = []


def main(name: str = "mini-prid2011", epochs: int = 3) -> dict[str, dict[str, float]]:
    """Returns the scores by test set and metric."""
    config = fedreid_pl.configure("local", **{"data.datasets": [name]})
    data = fedreid_pl.read_data(config)
    client = fedreid_pl.lone_client(config, data, name)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[Losses()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    trainer.fit(client.module, client.datamodule)
    trainer.test(client.module, client.datamodule, verbose=False)
    return client.module.scores


if __name__ == "__main__":
    for test, scores in main(*sys.argv[1:2], *map(int, sys.argv[2:3])).items():
        print(f"{test} (synthetic): Rank-1 {100 * scores['rank1']:.1f}, mAP {100 * scores['mAP']:.1f}")
