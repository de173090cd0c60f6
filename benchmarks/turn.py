"""Measures the overhead of Lightning and the federation in a client's turn over a bare PyTorch loop.

    python benchmarks/turn.py [--repeats 15]

Prints two figures, on MiniReID (synthetic) with the small model:

* the fixed cost of a turn in seconds: a turn of the smallest client (one batch) minus the same batch in the bare loop.
  This cost consists of Trainer, optimizer, exchange of the backbone, and the client's file;
* the ratio of a turn of the largest client (102 batches) to the same batches in the bare loop.

The experiment is FedPav. Both loops use the same loader in one process, which keeps freed memory like a run. Turns and
bare loops are timed in pairs, in alternating order, so that the machine's load affects both equally; the figures are
medians over the pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch
from figures import Report
from processes import seconds
from torch.nn import functional as F

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import compose
from fedreid_pl.data.augmentation import TrainAugmentation
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.trainer import build_trainer, quiet
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.memory import keep_freed_memory
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import build_backbone


def bare_turn(worker: ClientWorker, client: str, seed: int) -> None:
    """Processes only the batches of a turn: load, augment, forward, backward, step."""
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
    for images, labels, *_ in datamodule.train_dataloader():
        loss = F.cross_entropy(head(backbone(augment(images))), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    args = parser.parse_args()
    repeats = args.repeats
    quiet()
    keep_freed_memory()
    config = compose(["exp=fedpav", "data=minireid_v1"])
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
        address = partial(ClientJob, "fit", "bench")
        job_of = lambda number, client: address(number, 1, client).exchanging(worker.initial)  # noqa: E731
        times: dict[str, list[tuple[float, float]]] = {smallest: [], largest: []}
        number = 0
        for client, count in ((smallest, 4 * repeats), (largest, repeats)):
            for repeat in range(-1, count):
                number += 1
                turn = partial(seconds, worker.fit, job_of(number, client))
                bare = partial(seconds, bare_turn, worker, client, number)
                if repeat % 2:  # alternates the order, because the machine's speed drifts
                    ours, plain = turn(), bare()
                else:
                    plain, ours = bare(), turn()
                if repeat >= 0:  # the first pair warms up
                    times[client].append((ours.clock, plain.clock))
    report = Report("a client's turn")
    for client, pairs in times.items():
        for kind, values in zip(("turn", "bare loop"), zip(*pairs, strict=True), strict=True):
            report.add(f"{kind} of {client}", values, unit="s")
    report.add("fixed cost of a turn", [turn - bare for turn, bare in times[smallest]], "at most 0.1 s", "s")
    report.add(f"turn of {largest} / bare loop", [turn / bare for turn, bare in times[largest]], "at most 1.05")
    report.finish(args.json)


if __name__ == "__main__":
    main()
