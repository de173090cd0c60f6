"""Knowledge distillation, compared with a simple implementation in float64; fixed points, costs, refusals."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import torch
from PIL import Image
from torch import Tensor, nn

import fedreid_pl.callbacks.distillation as module
import fedreid_pl.data.images
from fedreid_pl.callbacks import callback_factory
from fedreid_pl.callbacks.distillation import Distillation
from fedreid_pl.config import compose
from fedreid_pl.data.images import ImageSource
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.server.network import ServerNetwork
from fedreid_pl.functional.randomness import generator
from fedreid_pl.models.ide import IDEBackbone
from fedreid_pl.models.trunks import SmallResNet

IMAGES, HEIGHT, WIDTH, BATCH = 21, 32, 16, 4  # five steps, the last one of five images
QUICK = {"lr": 0.05, "weight_decay": 0.01, "batch_size": BATCH}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, noise = tmp_path_factory.mktemp("public"), np.random.default_rng(5)
    names = [str(folder / f"{number:02}.png") for number in range(IMAGES)]
    for name in names:
        Image.fromarray(noise.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(name)
    return names


def make_net(seed: int = 0, dropout: float = 0.5) -> IDEBackbone:
    """Returns a backbone whose parameters and running statistics are neither zero nor one."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        net = IDEBackbone(SmallResNet(width=8), feature_dim=8, dropout=dropout)
        for value in net.parameters():
            value.add_(0.1 * torch.randn(value.shape))
        net(torch.randn(16, 3, HEIGHT, WIDTH))
    return net.eval()


def updates_of(*seeds: int) -> list[ClientUpdate]:
    return [ClientUpdate(2, f"client{seed}", make_net(seed).state_dict(), 10 * seed, {}) for seed in seeds]


def make_federation(files: Sequence[str], make: Any = make_net, model: State | None = None, **more: Any) -> Any:
    records: list[tuple] = []
    warnings: list[str] = []
    config = SimpleNamespace(data=SimpleNamespace(pad=2, flip=0.5))
    return SimpleNamespace(
        seed=3,
        round=2,
        config=config,
        models={"global": model or make_net(100).state_dict()},
        server=ServerNetwork(make, ImageSource(files, HEIGHT, WIDTH, memory=False)),
        records=records,
        warnings=warnings,
        record=lambda *record: records.append(record),
        warn=warnings.append,
        **more,
    )


def distil(federation: Any, updates: Sequence[ClientUpdate], **options: Any) -> State:
    Distillation(**{**QUICK, **options}).on_aggregation_end(federation, updates)
    assert not federation.warnings
    return federation.models["global"]


def assert_equal(one: State, other: State) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]) and value.dtype == other[name].dtype, name


def is_buffer(name: str) -> bool:
    return "running" in name or "num_batches" in name


def by_loop(files: Sequence[str], updates: Sequence[ClientUpdate], passes: int, norm: str, mode: str) -> tuple:
    """Distils in float64, one batch at a time, with a separate network for every teacher and explicit SGD."""
    pixels = np.stack([np.asarray(Image.open(name)) for name in files]).transpose(0, 3, 1, 2)
    images = torch.tensor((pixels / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1)))
    networks = [make_net(dropout=0.0).double().train(mode == "train") for _ in range(len(updates) + 1)]
    states = [make_net(100).state_dict(), *(update.backbone for update in updates)]
    for network, state in zip(networks, states, strict=True):
        network.load_state_dict(state)
    student, *teachers = networks
    velocity = {name: torch.zeros_like(value) for name, value in student.named_parameters()}
    losses = []
    for number in range(passes):
        order = torch.randperm(IMAGES, generator=generator(3, 2, "distillation", number)).tolist()
        for rows in (order[:4], order[4:8], order[8:12], order[12:16], order[16:]):
            batch = images[rows]
            labels = []
            for teacher in teachers:
                label = teacher(batch).detach()
                labels.append(label / label.norm(dim=1, keepdim=True) if norm != "none" else label)
            output = student(batch)
            output = output / output.norm(dim=1, keepdim=True) if norm == "both" else output
            loss = ((output - sum(labels) / len(labels)) ** 2).mean()
            gradients = torch.autograd.grad(loss, list(student.parameters()))
            with torch.no_grad():
                for (name, value), gradient in zip(student.named_parameters(), gradients, strict=True):
                    velocity[name] = 0.9 * velocity[name] + gradient + 0.01 * value
                    value -= 0.05 * velocity[name]
            losses += [loss.item()] * len(rows)
    return student.state_dict(), sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("passes", "norm", "mode"),
    [(1, "none", "eval"), (1, "teachers", "eval"), (1, "both", "eval"), (3, "none", "eval"), (2, "none", "train")],
)
def test_it_equals_a_simple_implementation_in_float64(files: list[str], passes: int, norm: str, mode: str) -> None:
    updates, federation = updates_of(1, 2, 3), make_federation(files, lambda: make_net(dropout=0.0))
    before = federation.models["global"]
    after = distil(federation, updates, passes=passes, normalize=norm, mode=mode)
    wanted, loss = by_loop(files, updates, passes, norm, mode)
    for name, value in after.items():
        if name.endswith("num_batches_tracked"):
            assert int(value) - int(before[name]) == (10 if mode == "train" else 0)
        elif is_buffer(name) and mode == "eval":
            assert torch.equal(value, before[name]), name
        else:
            moved = (wanted[name] - before[name]).abs().max()
            assert moved > 1e-4, name
            assert (value - wanted[name]).abs().max() < 2e-3 * moved, name
    assert federation.records == [("train", "server", "distillation_loss", pytest.approx(loss, rel=1e-4))]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_order_of_clients_and_the_chunk_size_do_not_matter(
    mode: str, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    updates, states = updates_of(1, 2, 3), []
    for chunk, given in ((512, updates), (512, updates[::-1]), (8, updates), (1, updates[1:] + updates[:1])):
        monkeypatch.setattr(module, "CHUNK", chunk)
        states.append(distil(make_federation(files), given, mode=mode, augment=True))
    for state in states[1:]:
        assert_equal(state, states[0])


def test_teachers_equal_to_the_student_change_nothing(files: list[str]) -> None:
    update = ClientUpdate(2, "a", make_net(100).state_dict(), 5, {})
    for options in ({"passes": 1}, {"passes": 2, "augment": True}):
        federation = make_federation(files)
        state = distil(federation, [update] * 7, weight_decay=0.0, **options)
        assert_equal(state, make_net(100).state_dict())
        assert federation.records == [("train", "server", "distillation_loss", 0.0)]


def test_teachers_equal_to_the_student_leave_weight_decay_in_one_step(files: list[str]) -> None:
    update, before = ClientUpdate(2, "a", make_net(100).state_dict(), 5, {}), make_net(100).state_dict()
    after = distil(make_federation(files), [update] * 3, batch_size=IMAGES, lr=0.5, weight_decay=0.25)
    for name, value in before.items():
        assert torch.equal(after[name], value if is_buffer(name) else value - 0.5 * (0.25 * value)), name


def test_teachers_equal_to_the_student_leave_weight_decay_with_momentum(files: list[str]) -> None:
    """Unit features of a linear map do not depend on its scale, so every step consists of weight decay only."""
    make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, 6, bias=False))  # noqa: E731
    model = make().state_dict()
    federation = make_federation(files, make, {name: value.clone() for name, value in model.items()})
    update = ClientUpdate(2, "a", model, 5, {})
    after = distil(federation, [update], normalize="both", lr=1e-4, weight_decay=200.0, momentum=0.8, passes=2)
    step = np.array([[1 - 1e-4 * 200, -1e-4 * 0.8], [200, 0.8]])  # (weight, velocity) -> (weight, velocity)
    factor = np.linalg.matrix_power(step, 10)[0, 0]
    assert 0.1 < factor < 0.5
    torch.testing.assert_close(after["1.weight"], factor * model["1.weight"], rtol=1e-4, atol=1e-6)


class Watched(IDEBackbone):
    """A backbone that records its inputs, whether gradients are enabled, and backward passes."""

    def __init__(self, log: list[tuple[str, Tensor]]) -> None:
        super().__init__(SmallResNet(width=8), feature_dim=8)
        self.log, self.loads = log, 0

    def forward(self, images: Tensor) -> Tensor:
        self.log.append(("student" if torch.is_grad_enabled() else "teacher", images.clone()))
        output = super().forward(images)
        if output.requires_grad:
            output.register_hook(lambda gradient: self.log.append(("backward", gradient)))
        return output

    def load_state_dict(self, *given: Any, **more: Any) -> Any:
        self.loads += 1
        return super().load_state_dict(*given, **more)


def watched(files: Sequence[str], updates: Sequence[ClientUpdate], **options: Any) -> tuple[list, list[Watched]]:
    log: list[tuple[str, Tensor]] = []
    networks: list[Watched] = []

    def make() -> Watched:
        networks.append(Watched(log))
        return networks[-1]

    distil(make_federation(files, make), updates, **options)
    return log, networks


def count(log: list[tuple[str, Tensor]]) -> dict[str, float]:
    """Counts passes over the public set by kind."""
    return {kind: sum(len(x) for k, x in log if k == kind) / IMAGES for kind in ("teacher", "student", "backward")}


@pytest.mark.parametrize("options", [{}, {"augment": True}, {"mode": "train"}, {"normalize": "both"}])
def test_it_costs_a_forward_pass_per_teacher_and_three_for_the_student(files: list[str], options: dict) -> None:
    updates = updates_of(1, 2, 3)
    log, networks = watched(files, updates, **options)
    passes = count(log)
    assert passes["teacher"] + passes["student"] + 2 * passes["backward"] <= len(updates) + 3
    assert passes == {"teacher": 3, "student": 1, "backward": 1}, "all passes are counted"
    assert len(networks) == 2, "one teacher in memory at a time"
    assert all(value.grad is None for network in networks for value in network.parameters())


def test_over_several_passes_of_fixed_images_the_teachers_run_once(files: list[str]) -> None:
    for options, teacher in (({}, 2), ({"augment": True}, 6), ({"mode": "train"}, 6)):
        log, _ = watched(files, updates_of(1, 2), passes=3, **options)
        assert count(log) == {"teacher": teacher, "student": 3, "backward": 3}


@pytest.mark.parametrize("augment", [False, True])
def test_images_are_decoded_once_per_pass_and_teachers_loaded_once_per_chunk(
    augment: bool, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 2 * BATCH)
    decode, decoded = fedreid_pl.data.images.decode, []

    def noted(path: str, height: int, width: int) -> np.ndarray:
        decoded.append(path)
        return decode(path, height, width)

    monkeypatch.setattr(fedreid_pl.data.images, "decode", noted)
    _, (student, teacher) = watched(files, updates_of(1, 2, 3), passes=2, augment=augment)
    assert sorted(decoded) == sorted(2 * files)
    assert decoded[:IMAGES] != decoded[IMAGES:], "every pass has another order"
    assert (student.loads, teacher.loads) == (1, 3 * 3 * (2 if augment else 1))


def test_teachers_and_student_see_the_same_crops_and_every_pass_new_ones(files: list[str]) -> None:
    log, _ = watched(files, updates_of(1, 2), passes=2, augment=True)
    inputs = {kind: [images for k, images in log if k == kind] for kind in ("teacher", "student")}
    first, second = inputs["teacher"][:5], inputs["teacher"][5:10]
    for one, other, student in zip(first, second, inputs["student"][:5], strict=True):
        assert torch.equal(one, student) and torch.equal(other, student)
    pixels = np.stack([np.asarray(Image.open(name)) for name in files])
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2), (0, 0)))
    drawn = []
    for number in range(2):
        seen = torch.cat(inputs["student"][5 * number : 5 * number + 5]).permute(0, 2, 3, 1).double().numpy()
        seen = np.rint((seen * STD + MEAN) * 255).astype(np.uint8)
        order = torch.randperm(IMAGES, generator=generator(3, 2, "distillation", number)).tolist()
        found = {}
        for image, row in zip(seen, order, strict=True):
            for top, left in np.ndindex(5, 5):
                crop = padded[row, top : top + HEIGHT, left : left + WIDTH]
                for side in (1, -1):
                    if np.array_equal(crop[:, ::side], image):
                        found[row] = (top, left, side)
        assert set(found) == set(range(IMAGES))
        assert len(set(found.values())) > 10
        drawn.append(found)
    assert sum(drawn[0][row] == drawn[1][row] for row in range(IMAGES)) < 5


def test_augmentation_without_border_and_flip_changes_no_image(files: list[str]) -> None:
    plain = distil(make_federation(files), updates_of(1, 2), passes=2)
    federation = make_federation(files)
    federation.config.data = SimpleNamespace(pad=0, flip=0.0)
    assert_equal(distil(federation, updates_of(1, 2), passes=2, augment=True), plain)


def test_train_mode_has_seeded_dropout_and_changes_the_students_statistics(files: list[str]) -> None:
    updates, states = updates_of(1, 2), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        states.append(distil(make_federation(files), updates, mode="train"))
        assert torch.equal(torch.get_rng_state(), before)
    assert_equal(*states)
    sure = distil(make_federation(files, lambda: make_net(dropout=0.0)), updates, mode="train")
    assert not torch.equal(sure["bottleneck.0.weight"], states[0]["bottleneck.0.weight"])
    assert not torch.equal(make_net(100).state_dict()["bottleneck.1.running_mean"], sure["bottleneck.1.running_mean"])


class Masked(nn.Module):
    """One linear layer behind a dropout that records its masks."""

    def __init__(self, masks: list[bytes]) -> None:
        super().__init__()
        self.linear, self.masks = nn.Linear(3, 16), masks

    def forward(self, images: Tensor) -> Tensor:
        mask = nn.functional.dropout(torch.ones(len(images), 16), 0.5, self.training)
        self.masks.append(mask.numpy().tobytes())
        return mask * self.linear(images.mean(dim=(2, 3)))


def test_every_step_pass_and_network_draws_another_dropout_mask(files: list[str]) -> None:
    masks: list[bytes] = []
    model = Masked([]).state_dict()
    updates = [ClientUpdate(2, client, model, 5, {}) for client in ("a", "b")]
    distil(make_federation(files, lambda: Masked(masks), model), updates, mode="train", passes=2)
    assert len(set(masks)) == len(masks) == 2 * 5 * 3


def test_a_last_batch_of_one_is_merged_into_the_previous_batch(files: list[str]) -> None:
    log, _ = watched(files, updates_of(1), batch_size=5, mode="train")
    assert [len(images) for kind, images in log if kind == "student"] == [5, 5, 5, 6]
    log, _ = watched(files[:1], updates_of(1), batch_size=5)
    assert [len(images) for kind, images in log if kind == "student"] == [1]


def test_nesterov_momentum(files: list[str]) -> None:
    """In a single step, Nesterov's momentum adds 0.9 times the gradient."""
    updates, before = updates_of(1, 2), make_net(100).state_dict()
    plain, ahead = (
        distil(make_federation(files), updates, batch_size=IMAGES, nesterov=nesterov) for nesterov in (False, True)
    )
    for name in (name for name in before if not is_buffer(name)):
        torch.testing.assert_close(ahead[name] - before[name], 1.9 * (plain[name] - before[name]), rtol=1e-3, atol=1e-6)


def test_distillation_runs_in_every_nth_round_without_state(files: list[str]) -> None:
    callback, states = Distillation(**QUICK, every_n_rounds=3), {}
    for round in range(1, 8):
        federation = make_federation(files)
        federation.round = round
        callback.on_aggregation_end(federation, updates_of(1))
        states[round] = federation.models["global"]
        assert len(federation.records) == (round % 3 == 0)
        if round % 3:
            assert_equal(states[round], make_net(100).state_dict())
    assert not torch.equal(states[3]["bottleneck.0.weight"], states[6]["bottleneck.0.weight"]), (
        "the order of images differs"
    )
    assert callback.state_dict() == {}
    fresh = make_federation(files)
    fresh.round = 6
    assert_equal(distil(fresh, updates_of(1), every_n_rounds=3), states[6])


@pytest.mark.parametrize("spoil", ["teacher", "rate"])
def test_a_distillation_that_ends_in_nan_is_undone(files: list[str], spoil: str) -> None:
    federation, (update,) = make_federation(files), updates_of(1)
    if spoil == "teacher":  # finite weights, infinite features
        update.backbone["bottleneck.0.weight"].fill_(3e38)
    callback = Distillation(lr=1e30 if spoil == "rate" else 0.1, batch_size=BATCH)
    callback.on_aggregation_end(federation, [update])
    assert_equal(federation.models["global"], make_net(100).state_dict())
    assert federation.warnings == [
        "distillation has produced NaN or infinite values; this round uses the aggregated model"
    ]
    assert not federation.records


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("every_n_rounds", 0),
        ("passes", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", math.inf),
        ("lr", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -0.1),
        ("normalize", "student"),
    ],
)
def test_values_out_of_bounds_are_refused(key: str, value: Any) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks\.distillation\.{key}={value}: must be"):
        callback_factory({"backbone_sync": {}, "distillation": {key: value}})


def test_incompatible_values_are_refused() -> None:
    with pytest.raises(FedReIDError, match=r"batch_size=1: must be at least 2 with mode=train"):
        Distillation(batch_size=1, mode="train")
    with pytest.raises(FedReIDError, match=r"nesterov=True: must be false if momentum is 0"):
        Distillation(momentum=0.0, nesterov=True)


def test_it_needs_public_images_and_whole_models() -> None:
    config, data = compose(["exp=fedpav_kd"]), SimpleNamespace(public=range(5))
    Distillation().check(config, data)  # type: ignore[arg-type]
    Distillation(mode="train").check(config, data)  # type: ignore[arg-type]
    with pytest.raises(FedReIDError, match=r"needs unlabelled public images; set data\.public"):
        Distillation().check(config, SimpleNamespace(public=None))  # type: ignore[arg-type]
    with pytest.raises(FedReIDError, match="at least 2 public images"):
        Distillation(mode="train").check(config, SimpleNamespace(public=range(1)))  # type: ignore[arg-type]
    config.callbacks["backbone_sync"] = {"batch_norm": "local"}
    with pytest.raises(
        FedReIDError, match=r"^callbacks\.distillation: .* set callbacks\.backbone_sync\.batch_norm to average"
    ):
        Distillation().check(config, data)  # type: ignore[arg-type]


def test_it_needs_an_average_and_refuses_clusters() -> None:
    with pytest.raises(FedReIDError, match=r"add callbacks\.backbone_sync"):
        callback_factory({"distillation": {}})
    with pytest.raises(FedReIDError, match=r"callbacks\.distillation.*clustering"):
        callback_factory({"backbone_sync": {}, "distillation": {}, "clustering": {}})


def test_a_run_distils_the_average_and_records_the_loss(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averages: list[State] = []
    original = Distillation.on_aggregation_end

    def spy(self: Distillation, federation: Any, updates: Sequence[ClientUpdate]) -> None:
        averages.append(federation.models["global"])
        original(self, federation, updates)

    monkeypatch.setattr(Distillation, "on_aggregation_end", spy)
    words = ["exp=fedpav_kd", *support.quick(tiny_root, tmp_path, "rounds=1", "trainer.accelerator=cpu")]
    loop = train(compose(words), tmp_path)
    (average,) = averages
    (loss,) = loop.context.history.series("train", "server", "distillation_loss").values()
    assert 0 < loss < math.inf
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "distillation_loss"]
    assert [(row["round"], row["section"], row["name"], float(row["value"])) for row in rows] == [
        ("1", "train", "server", loss)
    ]
    assert list(loop.context.models["global"]) == list(average)
    for name, value in loop.context.models["global"].items():
        assert torch.equal(value, average[name]) == is_buffer(name), name
