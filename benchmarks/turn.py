"""What Lightning and the federation add to a client's turn, against a bare PyTorch loop over the same loader.

    python benchmarks/turn.py [--repeats 5]

Prints two figures, on MiniReID (synthetic) with the small model:

* the fixed cost of a turn in seconds: a turn of the smallest client (one batch) less the same batch in the
  bare loop: Trainer, optimizer, exchange of the backbone, the client's file on disk;
* the ratio of a turn of the largest client (102 batches) to the same batches in the bare loop.

Turns and bare loops alternate, so that both meet the same machine; medians are compared.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

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
    backbone, head = worker.backbone.train(), build_head(config.model.feature_dim, datamodule.num_identities)
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
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    quiet()
    config = compose(["exp=fedpav_rw", "data=minireid"])
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
        rounds = iter(range(1, 10**6))
        times: dict[tuple[str, str], list[float]] = {}
        for client, count in ((smallest, 4 * repeats), (largest, repeats)):
            for repeat in range(count + 1):
                number = next(rounds)
                job = ClientJob(number, client, worker.initial)
                turn = seconds(lambda job=job: worker.fit(job))
                bare = seconds(lambda client=client, number=number: bare_turn(worker, client, number))
                if repeat:  # the first one warms up
                    times.setdefault((client, "turn"), []).append(turn)
                    times.setdefault((client, "bare"), []).append(bare)
    for (client, kind), values in times.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"{client:<14} {kind}  median {middle:.3f} s  min {low:.3f}  max {high:.3f}  ({len(values)} times)")
    pairs = {client: [statistics.median(times[client, kind]) for kind in ("turn", "bare")] for client in (smallest, largest)}
    print(f"fixed cost of a turn: {pairs[smallest][0] - pairs[smallest][1]:.3f} s (at most 0.1)")
    print(f"turn of {largest} / bare loop: {pairs[largest][0] / pairs[largest][1]:.3f} (at most 1.05)")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
