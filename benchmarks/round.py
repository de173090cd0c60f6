"""Compares a whole round of MiniReID (synthetic) with all nine clients with the same work in plain PyTorch.

    python benchmarks/round.py [--repeats 9]

The federation's round is that of `fedreid-pl train exp=fedpav` without evaluation: jobs, a Lightning Trainer per
client, messages and their checks, clients' files, the average, the checkpoint. The plain loop only processes the same
batches with the same augmentation and averaging on images in memory: no Lightning, no DataLoader, no file, one
optimizer per client. Both train from the same weights. Rounds alternate in pairs; a ratio is the median of the pairs'
ratios. Processor seconds are reported beside wall-clock seconds, because other work on the machine affects them less.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from figures import Report
from processes import OtherProcess, Seconds, seconds
from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.clients import build_parts
from fedreid_pl.config import Config, compose
from fedreid_pl.data.augmentation import TrainAugmentation
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.federation.client.trainer import launch, quiet
from fedreid_pl.federation.server.attempts import Attempts
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import build_backbone
from fedreid_pl.parts import build_context

State = dict[str, Tensor]


class PlainRounds:
    """FedPav's rounds without the framework.

    Args:
        config: learning rates, batch size and augmentation.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.backbone = build_backbone(config.model, config.seed)
        self.model: State = copy.deepcopy(self.backbone.state_dict())
        pool = ImagePool(config.data.height, config.data.width, "memory")
        self.clients = []
        for name, client in load_federated_data(config.data).clients.items():
            source, labels = pool.source(client.train), torch.from_numpy(client.train.labels())
            source.load()
            head = build_head(self.backbone.feature_dim, client.train.num_identities())
            self.clients.append((name, source, labels, head))

    def round(self, number: int) -> None:
        """Trains one epoch at every client and averages the weights."""
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


def plain_round() -> Callable[[int], None]:
    """Returns the rounds in plain PyTorch, for another process."""
    return PlainRounds(configuration()).round


def configuration() -> Config:
    """Returns the configuration: FedPav on MiniReID, images in memory, without evaluation."""
    config = compose(["exp=fedpav", "data=minireid_v1", "data.cache=memory", "data.public=null", "rounds=100000"])
    config.evaluate_every = config.rounds
    return config


def federation(config: Config, folder: Path) -> FederationLoop:
    """Returns the loop of `fedreid-pl train` without output and loggers."""
    make_callbacks = callback_factory(config.callbacks)
    trainer = launch(config)
    data = load_federated_data(config.data)
    parts = build_parts(config, data, build_backbone(config.model, config.seed), folder, trainer, make_callbacks)
    parts.pool.load()
    return FederationLoop(
        build_context(config, parts, trainer),
        SequentialEngine(parts.worker),
        make_callbacks(),
        Checkpoints(folder / "checkpoints"),
        attempts=Attempts(folder / "checkpoints"),
    )


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    args = parser.parse_args()
    quiet()
    config = configuration()
    report = Report("round of MiniReID")
    with tempfile.TemporaryDirectory() as folder:
        loop, plain, other = federation(config, Path(folder)), PlainRounds(config).round, OtherProcess(plain_round)

        def ours(number: int) -> None:
            loop.context.round = number + 1
            loop.run_round()

        runners = {"ours": partial(seconds, ours), "plain": other, "kept": partial(seconds, plain)}
        times: dict[str, list[Seconds]] = {name: [] for name in runners}
        for repeat in range(args.repeats + 1):
            names = list(runners)[repeat % 3 :] + list(runners)[: repeat % 3]  # the machine's speed drifts
            for name in names:
                taken = runners[name](repeat)
                if repeat:  # the first ones warm up
                    times[name].append(taken)
        other.end()
    report.add("round of all nine clients", [mine.clock for mine in times["ours"]], unit="s")
    for name, where, bound in (
        ("plain", "plain PyTorch", "at most 1.05"),
        ("kept", "plain PyTorch that keeps freed memory", ""),
    ):
        pairs = list(zip(times["ours"], times[name], strict=True))
        report.add(f"the same in {where}", [bare.clock for _, bare in pairs], unit="s")
        report.add(f"round of MiniReID / {where}", [mine.clock / bare.clock for mine, bare in pairs], bound)
        report.add("the same, processor seconds", [mine.processor / bare.processor for mine, bare in pairs])
    report.finish(args.json)


if __name__ == "__main__":
    main()
