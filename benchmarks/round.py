"""A whole round of MiniReID (synthetic), all nine clients, against the same work in plain PyTorch.

    python benchmarks/round.py [--repeats 9]

The federation's round is that of `fedreid-pl train exp=fedpav` without evaluation: jobs, a Lightning Trainer per
client, messages and their checks, clients' files, the average, the checkpoint. The plain loop does the same batches,
augmentation and averaging on the same images in memory and nothing else: no Lightning, no DataLoader, no file, one
optimizer per client. Both train from the same weights. Rounds alternate in pairs; a ratio is the median of the pairs'
ratios. Processor seconds are counted beside those of the clock: other work on the machine disturbs them less.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from figures import Report
from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import Config, compose
from fedreid_pl.data.augmentation import TrainAugmentation
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.federation.checkpoint import Checkpoints
from fedreid_pl.federation.engine import SequentialEngine
from fedreid_pl.federation.loop import FederationLoop
from fedreid_pl.federation.trainer import launch, quiet
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import build_backbone
from fedreid_pl.parts import Parts, build_parts

State = dict[str, Tensor]


class PlainRounds:
    """FedPav's rounds without the framework.

    Args:
        config: rates, batch size, augmentation.
        parts: whose images, in memory, are trained on.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        self.config = config
        self.backbone = copy.deepcopy(parts.worker.backbone)
        self.model: State = copy.deepcopy(parts.worker.initial)
        self.clients = []
        for name, client in parts.data.clients.items():
            source, labels = parts.pool.source(client.train), torch.from_numpy(client.train.labels())
            head = build_head(self.backbone.feature_dim, client.train.num_identities())
            self.clients.append((name, source, labels, head))

    def round(self, number: int) -> None:
        """Every client trains one epoch, then their weights are averaged."""
        total = sum(len(labels) for _, _, labels, _ in self.clients)
        average: State = {}
        for place, (_, source, labels, head) in enumerate(self.clients):
            self.backbone.load_state_dict(self.model)
            self._train(source, labels, head, seed=1000 * number + place)
            share = len(labels) / total
            for name, value in self.backbone.state_dict().items():
                if not value.is_floating_point():
                    average[name] = torch.maximum(average.get(name, value), value).clone()
                elif name in average:
                    average[name].add_(value, alpha=share)
                else:
                    average[name] = value * share
        self.model = average

    def _train(self, source, labels: Tensor, head: torch.nn.Module, seed: int) -> None:
        c, optim, size = self.config.data, self.config.optim, self.config.batch_size
        augment = TrainAugmentation(c.pad, c.flip, c.erasing, c.jitter, seed)
        groups = [
            {"params": list(self.backbone.parameters()), "lr": optim.lr_backbone},
            {"params": list(head.parameters()), "lr": optim.lr_head},
        ]
        sgd = torch.optim.SGD(groups, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=True)
        self.backbone.train()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        for rows in order.split(size):
            if len(rows) < 2:
                continue
            loss = F.cross_entropy(head(self.backbone(augment(source.read(rows)))), labels[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()


def federation(config: Config, folder: Path) -> tuple[FederationLoop, Parts]:
    """The loop that `fedreid-pl train` runs, without screen and loggers."""
    make_callbacks = callback_factory(config.callbacks)
    trainer = launch(config)
    data = load_federated_data(config.data)
    parts = build_parts(config, data, build_backbone(config.model, config.seed), folder, trainer, make_callbacks)
    parts.pool.load()
    worker = parts.worker
    loop = FederationLoop(
        config,
        {name: datamodule.num_samples for name, datamodule in worker.datamodules.items()},
        {name: client.tests for name, client in data.clients.items()},
        SequentialEngine(worker),
        make_callbacks(),
        worker.initial,
        frozenset(name for name, _ in worker.backbone.named_buffers()),
        Checkpoints(folder / "checkpoints"),
        parts.store,
    )
    return loop, parts


class Seconds(NamedTuple):
    """What a call took."""

    clock: float
    processor: float


def seconds(work: Callable[[], object]) -> Seconds:
    """Times one call."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - clock, time.process_time() - processor)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file for the figures, besides the screen")
    args = parser.parse_args()
    quiet()
    config = compose(["exp=fedpav", "data=minireid", "data.cache=memory", "data.public=null", "rounds=100000"])
    config.evaluate_every = config.rounds
    report = Report("round of MiniReID")
    with tempfile.TemporaryDirectory() as folder:
        loop, parts = federation(config, Path(folder))
        plain = PlainRounds(config, parts)

        def ours() -> None:
            loop.round += 1
            loop._run_round()

        times: list[tuple[Seconds, Seconds]] = []
        for repeat in range(-1, args.repeats):
            if repeat % 2:  # alternate which comes first: the machine's speed drifts
                pair = seconds(ours), seconds(lambda: plain.round(repeat))  # noqa: B023
            else:
                bare = seconds(lambda: plain.round(repeat))  # noqa: B023
                pair = seconds(ours), bare
            if repeat >= 0:  # the first pair warms up
                times.append(pair)
    report.add("round of all nine clients", [mine.clock for mine, _ in times], unit="s")
    report.add("the same in plain PyTorch", [bare.clock for _, bare in times], unit="s")
    report.add("round of MiniReID / plain PyTorch", [mine.clock / bare.clock for mine, bare in times], "at most 1.05")
    report.add("the same, processor seconds", [mine.processor / bare.processor for mine, bare in times])
    report.finish(args.json)


if __name__ == "__main__":
    main()
