"""The cosine distance weight: what the client measures, what it leaves untouched, and how the server weighs."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import torch
from PIL import Image
from torch import Tensor, nn

from fedreid_pl.callbacks.reweighting import Reweighting
from fedreid_pl.client import ReIDClient
from fedreid_pl.config import OptimConfig, compose
from fedreid_pl.data.augmentation import MEAN, STD
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import ClientUpdate, RejectedUpdate
from fedreid_pl.functional.randomness import derive_seed, generator
from fedreid_pl.models.ide import IDEBackbone, build_head
from fedreid_pl.models.trunks import SmallResNet


class Probe:
    """A datamodule with nothing but a probe batch, another one each time it is asked."""

    def __init__(self, size: int = 5) -> None:
        self.size, self.asked = size, 0

    def probe_batch(self, device: torch.device) -> Tensor:
        self.asked += 1
        return torch.randn(self.size, 3, 32, 16, generator=generator("probe", self.asked)).to(device)


def make_client(seed: int = 0) -> ReIDClient:
    torch.manual_seed(seed)
    backbone = IDEBackbone(SmallResNet(width=4), feature_dim=8)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    head = build_head(8, 6)
    head.weight.data.normal_()
    return ReIDClient(backbone, head, OptimConfig())


def run_hooks(client: ReIDClient, between: Any = lambda: None) -> tuple[float, Probe]:
    callback, datamodule = Reweighting(), Probe()
    trainer: Any = SimpleNamespace(datamodule=datamodule)
    callback.on_train_start(trainer, client)
    between()
    callback.on_train_end(trainer, client)
    return client.outbox.metrics["cosine_distance"], datamodule


def angle_by_loop(before: list[list[float]], after: list[list[float]]) -> float:
    total = 0.0
    for one, other in zip(before, after, strict=True):
        dot = math.fsum(x * y for x, y in zip(one, other, strict=True))
        total += 1 - dot / (math.hypot(*one) * math.hypot(*other))
    return total / len(before)


def test_training_for_zero_steps_gives_exactly_zero() -> None:
    distance, datamodule = run_hooks(make_client().train())
    assert distance == 0.0 and type(distance) is float
    assert datamodule.asked == 1, "before and after see the same images"


def test_the_distance_equals_a_loop_in_float64() -> None:
    client = make_client().train()
    old = [client.backbone.state_dict(), client.head.state_dict()]
    old = [{name: value.clone() for name, value in state.items()} for state in old]

    def move() -> None:
        with torch.no_grad():
            for value in client.parameters():
                value.add_(0.2 * torch.randn(value.shape, generator=generator("step", value.numel())))

    distance, _ = run_hooks(client, move)
    images = torch.randn(5, 3, 32, 16, generator=generator("probe", 1)).double()
    client.double().eval()
    after = client.head(client.backbone(images)).tolist()
    client.backbone.load_state_dict(old[0])
    client.head.load_state_dict(old[1])
    before = client.head(client.backbone(images)).tolist()
    assert 0.01 < distance < 2
    assert distance == pytest.approx(angle_by_loop(before, after), abs=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_probe_passes_change_nothing(training: bool) -> None:
    client = make_client().train(training)
    before = {name: value.clone() for name, value in client.state_dict().items()}
    state, modes = torch.get_rng_state(), [module.training for module in client.modules()]
    run_hooks(client)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in client.modules()] == modes
    for name, value in client.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(value.grad is None for value in client.parameters())


def test_the_mode_comes_back_after_an_error() -> None:
    client = make_client().train()
    client.head = nn.Linear(3, 6)  # does not fit the backbone
    with pytest.raises(RuntimeError):
        run_hooks(client)
    assert client.training and client.backbone.training


def test_a_real_turn_measures_its_own_probe_images(tiny_root: Path, tmp_path: Path) -> None:
    clients = support.TINY[1:]
    words = (
        "trainer.accelerator=cpu",
        "data.probe_size=5",
        "rounds=1",
        "seed=3",
        f"data.datasets=[{','.join(clients)}]",
    )
    config = compose(["exp=fedpav_rw", *support.quick(tiny_root, tmp_path, *words)])
    loop = train(config, tmp_path)
    distances = loop.history
    worker: Any = loop.engine.worker  # type: ignore[attr-defined]
    for client in clients:
        folder = tiny_root / client / "bounding_box_train"
        names = sorted(os.listdir(folder))
        seed = derive_seed(3, 1, client)
        order = torch.randperm(len(names), generator=generator(seed, "probe")).tolist()[:5]
        size = (config.data.width, config.data.height)
        pictures = [np.array(Image.open(folder / names[row]).resize(size, Image.Resampling.BICUBIC)) for row in order]
        images = torch.from_numpy(np.stack(pictures) / 255.0).permute(0, 3, 1, 2)
        images = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        persons = len({name.split("_")[0] for name in names})
        job = SimpleNamespace(round=1, client=client, config={}, backbone=worker.initial)
        logits = []
        for turn in ("before", "after"):
            head = build_head(config.model.feature_dim, persons, generator(3, client, "head"))
            if turn == "before":
                worker.backbone.load_state_dict(worker.initial)
            else:
                update = worker.fit(job)
                worker.backbone.load_state_dict(update.backbone)
                head.load_state_dict(loop.store.load(client, before=2)["head"])  # type: ignore[index]
            worker.backbone.eval()
            with torch.no_grad():
                logits.append(head(worker.backbone(images.float())).tolist())
        wanted = angle_by_loop(*logits)
        assert update.metrics["cosine_distance"] == pytest.approx(wanted, rel=1e-3)
        assert distances.series("weights", client, "cosine_distance") == {1: update.metrics["cosine_distance"]}
    measured = {client: distances.series("weights", client, "cosine_distance")[1] for client in clients}
    for client, distance in measured.items():
        assert loop.weights[client] == pytest.approx(distance / sum(measured.values()), rel=1e-12)


class Server:
    """What the server half uses of a federation."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str, float]] = []
        self.warnings: list[str] = []

    def record(self, *row: Any) -> None:
        self.records.append(row)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def update_of(client: str, distance: float | None) -> ClientUpdate:
    return ClientUpdate(1, client, {}, 10, {} if distance is None else {"cosine_distance": distance})


def test_the_server_weighs_by_distance() -> None:
    server: Any = Server()
    weights = {"a": 0.9, "b": 0.05, "c": 0.05}
    updates = [update_of("a", 0.1), update_of("b", 0.0), update_of("c", 0.3)]
    Reweighting().on_aggregation_start(server, updates, weights)
    assert weights == {"a": 0.25, "b": 0.0, "c": pytest.approx(0.75)}
    assert server.records == [
        ("weights", "a", "cosine_distance", 0.1),
        ("weights", "b", "cosine_distance", 0.0),
        ("weights", "c", "cosine_distance", 0.3),
    ]
    assert server.warnings == []


def test_without_any_distance_the_weights_stay_and_the_run_says_so() -> None:
    server: Any = Server()
    weights = {"a": 0.75, "b": 0.25}
    Reweighting().on_aggregation_start(server, [update_of("a", 0.0), update_of("b", 0.0)], weights)
    assert weights == {"a": 0.75, "b": 0.25}
    assert len(server.warnings) == 1 and "number of images" in server.warnings[0]


@pytest.mark.parametrize("distance", [None, -0.1, 2.5, math.nan, math.inf])
def test_an_update_without_a_proper_distance_is_left_out(distance: float | None) -> None:
    server: Any = Server()
    with pytest.raises(RejectedUpdate, match="cosine distance"):
        Reweighting().on_update(server, update_of("a", distance))
    Reweighting().on_update(server, update_of("a", 2.0))
