"""What Lightning and the federation add to a client's turn, against a bare PyTorch loop over the same loader.

    python benchmarks/turn.py [--repeats 15]

Prints two figures, on MiniReID (synthetic) with the small model:

* the fixed cost of a turn in seconds: a turn of the smallest client (one batch) less the same batch in the
  bare loop: Trainer, optimizer, exchange of the backbone, the client's file on disk;
* the ratio of a turn of the largest client (102 batches) to the same batches in the bare loop.

The experiment is FedPav. Turns and bare loops are timed in pairs, in alternating order, so that both meet the same
machine; the ratio is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import compose
from fedreid_pl.data.augmentation import TrainAugmentation
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.store import ClientStore
from fedreid_pl.federation.trainer import build_trainer, quiet
from fedreid_pl.federation.worker import ClientWorker
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import build_backbone


def bare_turn(worker: ClientWorker, client: str, seed: int) -> None:
    """The batches of a turn and nothing else: load, augment, forward, backward, step."""
    config, datamodule = worker.config, worker.datamodules[client]
    datamodule.begin_turn(seed)
    backbone, head = worker.backbone.train(), build_head(worker.backbone.feature_dim, datamodule.num_identities)
    c, optim = config.data, config.optim
    augment = TrainAugmentation(c.pad, c.flip, c.erasing, c.jitter, seed)
    groups = [
        {"params": backbone.parameters(), "lr": optim.lr_backbone},
        {"params": head.parameters(), "lr": optim.lr_head},
    ]
    sgd = torch.optim.SGD(groups, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=True)
    for images, labels, _ in datamodule.train_dataloader():
        loss = F.cross_entropy(head(backbone(augment(images))), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()


def seconds(work) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    quiet()
    config = compose(["exp=fedpav", "data=minireid"])
    data = load_federated_data(config.data)
    pool = ImagePool(config.data.height, config.data.width, "memory")
    datamodules = {
        name: ReIDDataModule(client, data.tests_of(name), pool, config.data, config.batch_size)
        for name, client in data.clients.items()
    }
    sizes = {name: module.num_samples for name, module in datamodules.items()}
    smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    with tempfile.TemporaryDirectory() as folder:
        worker = ClientWorker(
            config,
            datamodules,
            build_backbone(config.model, config.seed),
            ClientStore(Path(folder)),
            callback_factory(config.callbacks),
            lambda callbacks: build_trainer(config, list(callbacks)),
        )
        times: dict[str, list[tuple[float, float]]] = {smallest: [], largest: []}
        number = 0
        for client, count in ((smallest, 4 * repeats), (largest, repeats)):
            for repeat in range(-1, count):
                number += 1
                job = ClientJob(number, client, worker.initial)
                turn, bare = partial(worker.fit, job), partial(bare_turn, worker, client, number)
                if repeat % 2:  # alternate which comes first: the machine's speed drifts
                    pair = seconds(turn), seconds(bare)
                else:
                    pair = seconds(bare), seconds(turn)
                    pair = pair[1], pair[0]
                if repeat >= 0:  # the first pair warms up
                    times[client].append(pair)
    for client, pairs in times.items():
        for kind, values in zip(("turn", "bare"), zip(*pairs, strict=True), strict=True):
            half, low, high = statistics.median(values), min(values), max(values)
            print(f"{client:<14} {kind}  median {half:.3f} s  min {low:.3f}  max {high:.3f}  ({len(values)} times)")
    fixed = statistics.median(turn - bare for turn, bare in times[smallest])
    ratios = sorted(turn / bare for turn, bare in times[largest])
    least = min(turn for turn, _ in times[largest]) / min(bare for _, bare in times[largest])
    print(f"fixed cost of a turn: {fixed:.3f} s (at most 0.1)")
    print(
        f"turn of {largest} / bare loop: median {statistics.median(ratios):.3f}  min {ratios[0]:.3f}  "
        f"max {ratios[-1]:.3f}; of the fastest ones {least:.3f} (at most 1.05)"
    )
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, ", end="")
    print(f"Lightning {pl.__version__}")


if __name__ == "__main__":
    main()
