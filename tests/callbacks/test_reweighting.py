"""The cosine distance weight: the client's measurement, its side effects, and the server's weights."""

from __future__ import annotations

import copy
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

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.callbacks.reweighting import Reweighting
from fedreid_pl.client import ReIDClient
from fedreid_pl.config import OptimConfig, compose
from fedreid_pl.data.augmentation import MEAN, STD, TrainAugmentation
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import ClientUpdate, RejectedUpdate
from fedreid_pl.functional.randomness import derive_seed, generator
from fedreid_pl.models.ide import IDEBackbone, build_head
from fedreid_pl.models.trunks import SmallResNet


class Probe:
    """A datamodule that returns another probe batch at every call."""

    def __init__(self, size: int = 5) -> None:
        self.size, self.asked, self.augmented = size, 0, False

    def probe_batch(self, device: torch.device, augmented: bool = False) -> Tensor:
        self.asked += 1
        self.augmented = augmented
        return torch.randn(self.size, 3, 32, 16, generator=generator("probe", self.asked)).to(device)


def make_client(seed: int = 0, dropout: float = 0.5, probe_seed: int = 1) -> ReIDClient:
    torch.manual_seed(seed)
    backbone = IDEBackbone(SmallResNet(width=4), feature_dim=8, dropout=dropout)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    head = build_head(8, 6)
    head.weight.data.normal_()
    return ReIDClient(backbone, head, OptimConfig(), job=support.fit_job(1, "a", {}, {"probe_seed": probe_seed}))


def run_hooks(client: ReIDClient, between: Any = lambda: None, **options: Any) -> tuple[float, Probe]:
    callback, datamodule = Reweighting(**options), Probe()
    trainer: Any = SimpleNamespace(datamodule=datamodule, world_size=1)
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
    assert datamodule.asked == 1, "both measurements use the same images"


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


def test_changed_statistics_affect_the_papers_distance_but_not_the_fixed_one() -> None:
    client = make_client().train()
    parameters = {name: value.clone() for name, value in client.named_parameters()}

    def statistics_move() -> None:
        for _ in range(20):
            client.backbone(torch.randn(8, 3, 32, 16, generator=generator("images", 0)) + 3)

    moving, _ = run_hooks(client, statistics_move)
    assert all(torch.equal(value, parameters[name]) for name, value in client.named_parameters())
    assert moving > 0.01, "although no parameter changed"
    assert client.outbox.metrics["cosine_distance_fixed"] == 0.0
    after = {name: value.clone() for name, value in client.named_buffers()}
    assert any(float(value.float().abs().max()) > 1 for name, value in after.items() if "running_mean" in name)


def test_the_fixed_distance_equals_a_loop_with_restored_statistics() -> None:
    client = make_client().train()
    images = torch.randn(5, 3, 32, 16, generator=generator("probe", 1))
    hand = copy.deepcopy(client).double().eval()
    before = hand.head(hand.backbone(images.double())).tolist()

    def train() -> None:
        with torch.no_grad():
            client.backbone(torch.randn(8, 3, 32, 16, generator=generator("images", 0)) * 4)
            for value in client.parameters():
                value.add_(0.2 * torch.randn(value.shape, generator=generator("step", value.numel())))

    run_hooks(client, train)
    with torch.no_grad():
        for mine, theirs in zip(hand.parameters(), client.parameters(), strict=True):
            mine.copy_(theirs)
    wanted = angle_by_loop(before, hand.head(hand.backbone(images.double())).tolist())
    assert client.outbox.metrics["cosine_distance_fixed"] == pytest.approx(wanted, abs=1e-5)
    assert abs(client.outbox.metrics["cosine_distance"] - wanted) > 1e-3


def test_the_server_weights_by_the_selected_distance() -> None:
    numbers = {"a": (0.1, 0.3), "b": (0.3, 0.1)}
    updates = [
        ClientUpdate(1, client, {}, 10, {"cosine_distance": moving, "cosine_distance_fixed": fixed})
        for client, (moving, fixed) in numbers.items()
    ]
    for statistics, wanted in (("moving", 0.25), ("fixed", 0.75)):
        server: Any = Server()
        weights: dict[str, float] = {}
        callback = Reweighting(statistics=statistics)  # type: ignore[arg-type]
        callback.on_aggregation_start(server, updates, weights)
        assert weights["a"] == pytest.approx(wanted)
        assert [row[2:] for row in server.records if row[1] == "a"] == [
            ("cosine_distance", 0.1),
            ("cosine_distance_fixed", 0.3),
        ]
    with pytest.raises(RejectedUpdate, match="cosine distance of None"):
        Reweighting(statistics="fixed").on_update(server, update_of("a", 0.5))
    with pytest.raises(FedReIDError, match="statistics=fixed: has no effect with"):
        Reweighting(statistics="fixed", probe="train")


@pytest.mark.parametrize("training", [True, False])
def test_the_probe_passes_do_not_change_the_client(training: bool) -> None:
    client = make_client().train(training)
    before = {name: value.clone() for name, value in client.state_dict().items()}
    state, modes = torch.get_rng_state(), [module.training for module in client.modules()]
    run_hooks(client)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in client.modules()] == modes
    for name, value in client.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(value.grad is None for value in client.parameters())


def test_the_mode_is_restored_after_an_error() -> None:
    client = make_client().train()
    client.head = nn.Linear(3, 6)  # does not fit the backbone
    with pytest.raises(RuntimeError):
        run_hooks(client)
    assert client.training and client.backbone.training


@pytest.mark.parametrize(("options", "forwards"), [({}, 3), ({"probe": "train"}, 2), ({"by": "uniform"}, 0)])
def test_a_turn_needs_few_forward_passes_of_one_batch(options: dict[str, str], forwards: int) -> None:
    client, batches = make_client(), []
    client.backbone.register_forward_hook(lambda module, arguments, output: batches.append(len(arguments[0])))
    if forwards:
        run_hooks(client, **options)
    else:
        callback: Any = Reweighting(**options)  # type: ignore[arg-type]
        callback.on_train_start(None, client)
        callback.on_train_end(None, client)
        assert client.outbox.metrics == {}
    assert batches == [5] * forwards


def test_a_probe_in_train_mode_has_dropout_and_repeats_with_its_seed() -> None:
    distance, datamodule = run_hooks(make_client(), probe="train")
    assert datamodule.augmented and datamodule.asked == 1
    assert 0.05 < distance < 1.5, "two dropout masks differ, although no step was taken"
    assert run_hooks(make_client(), torch.seed, probe="train")[0] == distance
    assert run_hooks(make_client(probe_seed=2), probe="train")[0] != distance
    assert run_hooks(make_client(dropout=0.0), probe="train")[0] == 0.0, "both passes use the batch's statistics"
    assert not run_hooks(make_client())[1].augmented


@pytest.mark.parametrize("training", [True, False])
def test_a_probe_in_train_mode_only_updates_the_statistics_once(training: bool) -> None:
    client = make_client().train(training)
    reference = copy.deepcopy(client.backbone).train()
    at_start: dict[str, Tensor] = {}

    def note() -> None:
        at_start.update({name: value.clone() for name, value in client.backbone.named_buffers()})

    before = {name: value.clone() for name, value in client.backbone.named_buffers()}
    state, modes = torch.get_rng_state(), [module.training for module in client.modules()]
    run_hooks(client, note, probe="train")
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in client.modules()] == modes
    with torch.no_grad():
        reference(torch.randn(5, 3, 32, 16, generator=generator("probe", 1)))
    for name, value in reference.named_buffers():
        assert torch.equal(at_start[name], before[name]), "the pass before training changes no state"
        assert not torch.equal(value, before[name])
        assert torch.equal(dict(client.backbone.named_buffers())[name], value), name
    for value, wanted in zip(client.backbone.parameters(), reference.parameters(), strict=True):
        assert torch.equal(value, wanted) and value.grad is None


def test_the_probe_in_train_mode_does_not_disturb_training(tiny_root: Path, tmp_path: Path) -> None:
    clients = support.TINY[1:]
    words = ("trainer.accelerator=cpu", "rounds=1", f"data.datasets=[{','.join(clients)}]", "data.probe_size=6")
    loops = []
    for probe in ("eval", "train"):
        folder = tmp_path / probe
        config = compose(
            ["exp=fedpav_rw", f"callbacks.reweighting.probe={probe}", *support.quick(tiny_root, folder, *words)]
        )
        loops.append(train(config, folder))
    for client in clients:
        one, other = (loop.engine.worker.store.load(client, before=2)["head"] for loop in loops)  # type: ignore[index]
        assert all(torch.equal(one[name], other[name]) for name in one)
        measured = [loop.context.history.series("weights", client, "cosine_distance")[1] for loop in loops]
        assert measured[0] != measured[1]
    datamodule = loops[0].engine.worker.datamodules[clients[0]]  # type: ignore[attr-defined]
    datamodule.begin_turn(11)
    plain, *images = (datamodule.probe_batch(torch.device("cpu"), augmented) for augmented in (False, True, True))
    assert torch.equal(*images) and images[0].shape == plain.shape
    c, rows = datamodule.config, torch.randperm(datamodule.num_samples, generator=generator(11, "probe"))[:6].tolist()
    augment = TrainAugmentation(c.pad, c.flip, c.erasing, c.jitter, derive_seed(11, "probe", "augment"))
    assert torch.equal(images[0], augment(datamodule.pool.source(datamodule.client.train).read(rows)))


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
    distances = loop.context.history
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
        job = support.fit_job(1, client, worker.initial)
        logits = []
        for turn in ("before", "after"):
            head = build_head(config.model.feature_dim, persons, generator(3, client, "head"))
            if turn == "before":
                worker.backbone.load_state_dict(worker.initial)
            else:
                update = worker.fit(job)
                worker.backbone.load_state_dict(update.backbone)
                head.load_state_dict(worker.store.load(client, before=2)["head"])
            worker.backbone.eval()
            with torch.no_grad():
                logits.append(head(worker.backbone(images.float())).tolist())
        wanted = angle_by_loop(*logits)
        assert update.metrics["cosine_distance"] == pytest.approx(wanted, rel=1e-3)
        assert distances.series("weights", client, "cosine_distance") == {1: update.metrics["cosine_distance"]}
    measured = {client: distances.series("weights", client, "cosine_distance")[1] for client in clients}
    for client, distance in measured.items():
        assert loop.context.weights[client] == pytest.approx(distance / sum(measured.values()), rel=1e-12)


class Server:
    """The attributes of a federation that the server half uses."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str, float]] = []
        self.warnings: list[str] = []

    def record(self, *row: Any) -> None:
        self.records.append(row)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def update_of(client: str, distance: float | None, images: int = 10) -> ClientUpdate:
    return ClientUpdate(1, client, {}, images, {} if distance is None else {"cosine_distance": distance})


def test_the_server_weights_by_distance() -> None:
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


def test_if_all_distances_are_zero_the_weights_do_not_change_and_a_warning_is_given() -> None:
    server: Any = Server()
    weights = {"a": 0.75, "b": 0.25}
    Reweighting().on_aggregation_start(server, [update_of("a", 0.0), update_of("b", 0.0)], weights)
    assert weights == {"a": 0.75, "b": 0.25}
    assert len(server.warnings) == 1 and "number of images" in server.warnings[0]


@pytest.mark.parametrize("distance", [None, -0.1, 2.5, math.nan, math.inf])
def test_an_update_with_an_invalid_distance_is_refused(distance: float | None) -> None:
    server: Any = Server()
    with pytest.raises(RejectedUpdate, match="cosine distance"):
        Reweighting().on_update(server, update_of("a", distance))
    Reweighting().on_update(server, update_of("a", 2.0))


def weigh(options: dict[str, Any], **updates: tuple[float | None, int]) -> tuple[dict[str, float], Server]:
    server: Any = Server()
    weights = {client: 0.0 for client in updates}
    sent = [update_of(client, distance, images) for client, (distance, images) in updates.items()]
    callback = Reweighting(**options)
    for update in sent:
        callback.on_update(server, update)
    callback.on_aggregation_start(server, sent, weights)
    assert server.warnings == [] and sum(weights.values()) == pytest.approx(1.0)
    return weights, server


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, (0.25, 0.75)),
        ({"mix": 0.0}, (0.9, 0.1)),
        ({"mix": 0.5}, (0.575, 0.425)),
        ({"temperature": 0.2}, (1 / (1 + math.e), math.e / (1 + math.e))),
        ({"temperature": 0.2, "mix": 0.5}, (0.45 + 0.5 / (1 + math.e), 0.05 + 0.5 * math.e / (1 + math.e))),
        ({"clip": 1.2}, (25 / 61, 36 / 61)),  # halves of 5/6 and 6/5, divided by their sum: 25/61 and 36/61
        ({"clip": 3.0}, (0.25, 0.75)),
        ({"clip": 1.0, "mix": 0.5}, (0.7, 0.3)),
        ({"by": "data_volume"}, (0.9, 0.1)),
        ({"by": "data_volume", "temperature": 0.8}, (math.e / (1 + math.e), 1 / (1 + math.e))),
        ({"by": "uniform"}, (0.5, 0.5)),
        ({"by": "uniform", "mix": 0.25}, (0.8, 0.2)),
        ({"by": "uniform", "temperature": 3.0}, (0.5, 0.5)),
    ],
)
def test_options_by_hand(options: dict[str, Any], wanted: tuple[float, float]) -> None:
    weights, _ = weigh(options, a=(0.1, 90), b=(0.3, 10))
    assert weights == pytest.approx({"a": wanted[0], "b": wanted[1]})


def test_a_softmax_gives_weights_for_distances_of_zero() -> None:
    assert weigh({"temperature": 0.1}, a=(0.0, 90), b=(0.0, 10))[0] == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("by", ["data_volume", "uniform"])
def test_other_scores_need_no_distance(by: str) -> None:
    weights, server = weigh({"by": by}, a=(None, 30), b=(math.nan, 10))
    assert weights["a"] == {"data_volume": 0.75, "uniform": 0.5}[by]
    assert server.records == []


def test_only_a_probe_in_train_mode_sends_a_seed() -> None:
    federation: Any = SimpleNamespace(seed=3, round=2)
    job = support.fit_job(2, "a", {}, {"evaluate": True})
    for options in ({}, {"by": "uniform", "probe": "train"}):
        assert Reweighting(**options).on_distribute(federation, job) is job
    callback, seeds = Reweighting(probe="train"), set()
    for seed, round, client in ((3, 2, "a"), (3, 2, "b"), (3, 1, "a"), (4, 2, "a")):
        federation = SimpleNamespace(seed=seed, round=round)
        sent = callback.on_distribute(federation, support.fit_job(round, client, {}, {"evaluate": True}))
        assert sent.config.pop("evaluate") is True
        seeds.add(sent.config["probe_seed"])
    assert len(seeds) == 4
    assert sent == callback.on_distribute(federation, support.fit_job(2, "a"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("temperature", value) for value in (0.0, -1.0, math.inf, math.nan)),
        *(("mix", value) for value in (-0.1, 1.1, math.nan)),
        ("by", "distance"),
        ("probe", "test"),
    ],
)
def test_values_out_of_bounds_are_refused(key: str, value: Any) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks.reweighting.{key}={value}: must be"):
        callback_factory({"backbone_sync": {}, "reweighting": {key: value}})


def test_a_null_temperature_is_the_default() -> None:
    made: Any = callback_factory({"backbone_sync": {}, "reweighting": {"temperature": None}})()["reweighting"]
    assert made.temperature is None
    made = callback_factory({"backbone_sync": {}, "reweighting": {"temperature": 2, "mix": 1}})()["reweighting"]
    assert (made.temperature, made.mix) == (2.0, 1.0)


def test_batch_statistics_need_two_images() -> None:
    config, data = compose(["exp=fedpav_rw", "data.probe_size=1"]), SimpleNamespace()
    Reweighting().check(config, data)  # type: ignore[arg-type]
    Reweighting(by="uniform", probe="train").check(config, data)  # type: ignore[arg-type]
    with pytest.raises(FedReIDError, match=r"data.probe_size=1: must be at least 2"):
        Reweighting(probe="train").check(config, data)  # type: ignore[arg-type]
