"""Compares `fidelity=code` with the published code's round, written as one loop: two clients, three rounds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import support
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.cli import main
from fedreid_pl.config import Config, compose
from fedreid_pl.data.augmentation import TrainAugmentation
from fedreid_pl.federation.storage import read_state
from fedreid_pl.functional.randomness import derive_seed, generator
from fedreid_pl.models.weights import build_backbone

CLIENTS = ("mini-viper", "mini-market1501")
WORDS = (
    *(f"data.datasets=[{','.join(CLIENTS)}]", "rounds=3", "evaluate_every=2", "batch_size=3", "data.probe_size=4"),
    *("fidelity=code", "seed=4", "trainer.accelerator=cpu", "optim.lr_backbone=1e-4", "optim.lr_head=1e-3"),
)


class Client:
    """Images, labels and head of one client of the published code."""

    def __init__(self, config: Config, name: str) -> None:
        self.config, self.name = config, name
        folder = Path(str(config.data.root)) / name / "bounding_box_train"
        files, seen = [], set()
        for file in sorted(os.listdir(folder)):
            if (person := file.split("_")[0]) in seen:
                files.append(file)
            seen.add(person)  # the first image of every person is for validation
        size = (config.data.width, config.data.height)
        pictures = [
            np.array(Image.open(folder / f).convert("RGB").resize(size, Image.Resampling.BICUBIC)) for f in files
        ]
        self.images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        kept = sorted({file.split("_")[0] for file in files})
        self.labels = torch.tensor([kept.index(file.split("_")[0]) for file in files])
        self.head = nn.Linear(config.model.feature_dim, len(kept))
        nn.init.zeros_(self.head.bias)
        draws = generator(config.seed, name, "head")
        self.head.weight.data = torch.empty_like(self.head.weight).normal_(0.0, 0.001, generator=draws)

    def augmented(self, rows: Tensor, augment: TrainAugmentation) -> Tensor:
        return augment(self.images[rows]).contiguous(memory_format=torch.channels_last)

    def turn(self, network: nn.Module, round: int, tested: bool) -> float:
        """Trains `network` and the head in place; returns the cosine distance.

        `network` has the server's weights and the running statistics that this client loaded. After the pass before
        training, `self.left` contains the changed statistics for the next client.
        """
        config, name, head = self.config, self.name, self.head
        seed = derive_seed(config.seed, round, name)
        torch.manual_seed(derive_seed(seed, "dropout", 0))
        nn.Linear(head.in_features, head.out_features)  # creating the head draws random numbers
        loaded = {key: value.clone() for key, value in network.state_dict().items()}
        pad, flip = config.data.pad, config.data.flip
        rows = torch.randperm(len(self.images), generator=generator(seed, "probe"))[: config.data.probe_size]
        probe = self.augmented(rows, TrainAugmentation(pad, flip, 0.0, 0.0, derive_seed(seed, "probe", "augment")))
        old = self.logits(network, probe, round, "before", train=not tested)
        self.left = {key: value.clone() for key, value in network.state_dict().items()}
        network.load_state_dict(loaded)

        bottleneck = list(network.bottleneck.parameters())
        trunk = [value for value in network.parameters() if all(value is not other for other in bottleneck)]
        slow, fast = config.optim.lr_backbone, config.optim.lr_head
        rates = ((trunk, slow), (list(head.parameters()), fast), (bottleneck, fast))
        groups = [{"params": values, "lr": rate} for values, rate in rates]
        sgd = torch.optim.SGD(groups, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
        augment = TrainAugmentation(pad, flip, 0.0, 0.0, derive_seed(seed, "augment", 0))
        order = torch.randperm(len(self.images), generator=generator(seed, "order", 0))
        torch.empty((), dtype=torch.int64).random_()  # a DataLoader draws a seed
        network.train()
        for batch in order.split(config.batch_size):
            if len(batch) < config.batch_size:
                continue
            loss = F.cross_entropy(head(network(self.augmented(batch, augment))), self.labels[batch])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        new = self.logits(network, probe, round, "after", train=True)
        old, new = old.double(), new.double()
        cosine = (old * new).sum(1) / (old.norm(dim=1) * new.norm(dim=1))
        return float((1 - cosine).mean().float())

    @torch.no_grad()
    def logits(self, network: nn.Module, images: Tensor, round: int, moment: str, train: bool) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(derive_seed(self.config.seed, round, self.name, "probe"), moment))
            network.train(train)
            return self.head(network(images))


def published_code(config: Config) -> tuple[dict[str, Tensor], list[Client], list[list[float]]]:
    """Returns the server's model and the clients after all rounds, and each round's weights."""
    network = build_backbone(config.model, config.seed)
    buffers = {name for name, _ in network.named_buffers()}
    model = {name: value.clone() for name, value in network.state_dict().items()}
    clients = [Client(config, name) for name in CLIENTS]
    history = []
    for round in range(1, config.rounds + 1):
        tested = round == 1 or (round - 1) % config.evaluate_every == 0
        states, distances, shared = [], [], dict(model)
        for client in clients:
            network.load_state_dict(shared)
            distances.append(client.turn(network, round, tested))
            states.append({name: value.clone() for name, value in network.state_dict().items()})
            shared = {**shared, **{name: client.left[name] for name in buffers}}
        weights = [distance / sum(distances) for distance in distances]
        draws = generator(config.seed, round, "batch_norm")
        source = states[int(torch.randint(len(states), (), generator=draws))]
        for name in model:
            mean = states[0][name] * weights[0]
            if name not in buffers:
                mean.add_(states[1][name], alpha=weights[1])
            model[name] = source[name] if name in buffers else mean
        history.append(weights)
    return model, clients, history


def test_the_preset_is_the_published_code(tiny_root: Path, tmp_path: Path) -> None:
    words = ["exp=fedpav_rw", *support.quick(tiny_root, tmp_path, *WORDS)]
    assert main(["train", *words]) == 0
    config = compose(words)
    model, clients, history = published_code(config)
    saved = read_state(tmp_path / "checkpoints" / "round-00003.ckpt")
    assert list(saved["weights"].values()) == history[-1]
    for name, value in saved["models"]["global"].items():
        assert torch.equal(value, model[name]), name
    for client in clients:
        head = read_state(tmp_path / "clients" / client.name / "round-00003.pt")["head"]
        assert torch.equal(head["weight"], client.head.weight.data)
        assert len(client.images) % config.batch_size, "the last batch is incomplete"
