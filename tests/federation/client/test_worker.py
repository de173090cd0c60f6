"""A client's turn equals a plain PyTorch loop; the content of an update; the independence of turns."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import support
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import Config, compose
from fedreid_pl.data.augmentation import MEAN, STD, TrainAugmentation
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.trainer import build_trainer, quiet
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, State, to_bytes
from fedreid_pl.functional.randomness import derive_seed, generator
from fedreid_pl.models.weights import build_backbone

A, B = "mini-viper", "mini-market1501"
quiet()


def build(root: Path, folder: Path, *words: str, exp: str = "fedpav") -> ClientWorker:
    """Returns a worker over the tiny data whose clients save their state below `folder`."""
    config = compose([f"exp={exp}", *support.quick(root, folder), "trainer.accelerator=cpu", *words])
    data = load_federated_data(config.data)
    pool = ImagePool(config.data.height, config.data.width)
    datamodules = {
        name: ReIDDataModule(client, data.tests_of(name), pool, config.data, config.batch_size)
        for name, client in data.clients.items()
    }
    return ClientWorker(
        config,
        datamodules,
        build_backbone(config.model, config.seed),
        ClientStore(folder),
        callback_factory(config.callbacks),
        lambda callbacks: build_trainer(config, list(callbacks)),
    )


def job(worker: ClientWorker, client: str, round: int = 1, **config: bool | str) -> ClientJob:
    """Returns the job of FedPav's server in the first round."""
    return support.fit_job(round, client, worker.initial, config)


def asked(worker: ClientWorker, client: str, round: int = 1, **config: bool | str) -> ClientJob:
    """Returns the same job for an evaluation."""
    return support.evaluate_job(round, client, worker.initial, config)


def assert_same(one: State, other: State) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def read_images(config: Config, client: str) -> tuple[Tensor, list[int]]:
    """Reads a training folder with PIL only: images as uint8 `[N, 3, H, W]`, and labels."""
    folder = Path(str(config.data.root)) / client / "bounding_box_train"
    names = sorted(os.listdir(folder))
    persons = sorted({name.split("_")[0] for name in names}, key=int)
    size = (config.data.width, config.data.height)
    pictures = [
        np.array(Image.open(folder / name).convert("RGB").resize(size, Image.Resampling.BICUBIC)) for name in names
    ]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return pixels, [persons.index(name.split("_")[0]) for name in names]


def crop_one_by_one(images: Tensor, config: Config, draws: torch.Generator) -> Tensor:
    """Applies the paper's augmentation image by image with slices, and normalises by the formula."""
    pad, (height, width) = config.data.pad, images.shape[2:]
    corners = torch.randint(0, 2 * pad + 1, (2, len(images)), generator=draws).tolist()
    mirrored = (torch.rand(len(images), generator=draws) < config.data.flip).tolist()
    out = []
    for image, top, left, mirror in zip(images.numpy(), *corners, mirrored, strict=True):
        framed = np.zeros((3, height + 2 * pad, width + 2 * pad), dtype=np.uint8)
        framed[:, pad : pad + height, pad : pad + width] = image
        crop = framed[:, top : top + height, left : left + width]
        out.append(crop[:, :, ::-1].copy() if mirror else crop)
    scaled = torch.from_numpy(np.stack(out)).float() / 255
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class ByHand:
    """A client as a plain loop without Lightning or callbacks; `keep` uses one optimizer for all turns."""

    def __init__(self, config: Config, client: str, exact: bool, keep: bool = False) -> None:
        self.config, self.client, self.exact, self.keep = config, client, exact, keep
        self.sgd: torch.optim.SGD | None = None
        self.images, self.labels = read_images(config, client)
        self.backbone = build_backbone(config.model, config.seed)
        self.head = nn.Linear(config.model.feature_dim, len(set(self.labels)))
        nn.init.zeros_(self.head.bias)
        draws = generator(config.seed, client, "head")
        self.head.weight.data = torch.empty_like(self.head.weight).normal_(0.0, 0.001, generator=draws)

    def turn(self, round: int) -> dict[str, float]:
        config = self.config
        seed = derive_seed(config.seed, round, self.client)
        torch.manual_seed(derive_seed(seed, "dropout", 0))
        nn.Linear(self.head.in_features, self.head.out_features)  # creating the client's head draws random numbers
        draws = torch.Generator().manual_seed(derive_seed(seed, "augment", 0))
        augment = TrainAugmentation(config.data.pad, config.data.flip, 0.0, 0.0, derive_seed(seed, "augment", 0))
        weights = [(value, config.optim.lr_backbone) for value in self.backbone.parameters()]
        weights += [(value, config.optim.lr_head) for value in self.head.parameters()]
        speed = [torch.zeros_like(value) for value, _ in weights]
        groups = [{"params": [value], "lr": rate} for value, rate in weights]
        sgd = self.sgd if self.keep else None
        self.sgd = sgd = sgd or torch.optim.SGD(groups, momentum=0.9, weight_decay=5e-4, fused=True)
        losses = correct = count = 0.0
        self.backbone.train()
        for epoch in range(config.local_epochs):
            rows = torch.randperm(len(self.images), generator=generator(seed, "order", epoch)).tolist()
            factor = config.optim.gamma ** (((round - 1) * config.local_epochs + epoch) // config.optim.step)
            for group, (_, rate) in zip(sgd.param_groups, weights, strict=True):
                group["lr"] = rate * factor
            for batch in self.batches(rows):
                labels = torch.tensor([self.labels[row] for row in batch])
                images = self.images[batch]
                images = augment(images) if self.exact else crop_one_by_one(images, config, draws)
                logits = self.head(self.backbone(images.contiguous(memory_format=torch.channels_last)))
                loss = F.cross_entropy(logits, labels)
                for value, _ in weights:
                    value.grad = None
                loss.backward()
                if self.exact:
                    sgd.step()
                else:
                    for (value, rate), moved in zip(weights, speed, strict=True):
                        moved.mul_(0.9).add_(value.grad + 5e-4 * value.data)
                        value.data -= rate * factor * moved
                losses += loss.item() * len(batch)
                correct += float((logits.argmax(1) == labels).sum())
                count += len(batch)
        return {"train/loss": losses / count, "train/accuracy": correct / count}

    def batches(self, rows: list[int]) -> Iterator[list[int]]:
        size = self.config.batch_size
        cut = [rows[start : start + size] for start in range(0, len(rows), size)]
        loader = DataLoader(self.images, batch_sampler=[part for part in cut if len(part) > 1], collate_fn=len)
        for part, _ in zip(cut, loader, strict=False):  # a DataLoader draws a seed, as the client's does
            yield part


HAND = (
    *("batch_size=3", "local_epochs=2", "seed=5"),
    *("optim.schedule=step", "optim.step=3", "optim.gamma=0.5", "optim.lr_backbone=0.01"),
)


@pytest.mark.parametrize("client", [A, "mini-ilids"])  # 3 + 3 + 2 images, and 3 with one left over
def test_two_turns_equal_a_plain_loop_to_the_bit(tiny_root: Path, tmp_path: Path, client: str) -> None:
    worker = build(tiny_root, tmp_path, *HAND)
    hand = ByHand(worker.config, client, exact=True)
    backbone: State = worker.initial
    for round in (1, 2):
        update = worker.fit(support.fit_job(round, client, backbone))
        expected = hand.turn(round)
        backbone = update.backbone
        assert_same(backbone, hand.backbone.state_dict())
        kept = worker.store.load(client, before=round + 1)
        assert kept is not None
        assert_same(kept["head"], hand.head.state_dict())
        assert update.metrics == pytest.approx(expected, rel=1e-5)
    steps = 2 * 2 * (-(-len(hand.images) // 3) - (len(hand.images) % 3 == 1))
    assert int(backbone["trunk.stem.1.num_batches_tracked"]) == steps


def test_a_turn_equals_a_loop_with_its_own_augmentation_and_sgd(tiny_root: Path, tmp_path: Path) -> None:
    words = ("model.dropout=0", "batch_size=4", "optim.lr_backbone=1e-3", "optim.lr_head=1e-2")
    worker = build(tiny_root, tmp_path, *HAND, *words)
    hand = ByHand(worker.config, A, exact=False)
    update, expected = worker.fit(job(worker, A)), hand.turn(1)
    for name, value in hand.backbone.state_dict().items():
        moved = (value - worker.initial[name]).float().norm()
        assert float((value - update.backbone[name]).float().norm()) <= 0.01 * float(moved) + 1e-6, name
    assert update.metrics == pytest.approx(expected, rel=1e-4)


def test_an_update_contains_only_the_backbone_and_numbers(tiny_root: Path, tmp_path: Path) -> None:
    worker = build(tiny_root, tmp_path, exp="fedpav_rw")
    update = worker.fit(job(worker, B, evaluate=True))
    kept = worker.store.load(B, before=2)
    assert kept is not None
    assert set(vars(update)) == {"round", "client", "backbone", "num_samples", "metrics", "extras"}
    assert update.extras == {}
    assert (update.round, update.client) == (1, B)
    assert update.num_samples == len(os.listdir(tiny_root / B / "bounding_box_train"))
    scores = {"rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP", "queries"}
    assert set(update.metrics) == {"train/loss", "train/accuracy", "cosine_distance", "cosine_distance_fixed"} | {
        f"test/{B}/{name}" for name in scores
    }
    assert all(type(value) is float for value in update.metrics.values())

    reference = build_backbone(worker.config.model, 99).state_dict()
    assert list(update.backbone) == list(reference)
    own = {value.untyped_storage().data_ptr() for value in worker.backbone.state_dict().values()}
    for name, value in update.backbone.items():
        assert (value.shape, value.dtype) == (reference[name].shape, reference[name].dtype)
        assert not value.requires_grad and value.device.type == "cpu"
        assert value.untyped_storage().data_ptr() not in own, "the update shares no memory with the worker's backbone"
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), (
            "the tensor has no hidden storage"
        )

    data = to_bytes(update)
    assert update.nbytes <= len(data) < 1.2 * update.nbytes + 20_000
    head = kept["head"]["weight"]
    assert head.shape[0] == len({name.split("_")[0] for name in os.listdir(tiny_root / B / "bounding_box_train")})
    for row in head:
        assert row.numpy().tobytes()[:64] not in data
    assert kept["head"]["bias"].numpy().tobytes() not in data
    assert str(tiny_root).encode() not in data and b".jpg" not in data and b"bounding_box" not in data
    pixels, _ = read_images(worker.config, B)
    assert pixels[0, 0, 0].numpy().tobytes() not in data


def test_a_turn_leaves_no_objects_in_memory(tiny_root: Path, tmp_path: Path) -> None:
    worker = build(tiny_root, tmp_path, exp="fedpav_rw")
    held: list[weakref.ref] = []
    make = worker.make_trainer

    def watched(callbacks: Iterable[pl.Callback]) -> pl.Trainer:
        trainer = make(callbacks)
        held.append(weakref.ref(trainer))
        return trainer

    worker.make_trainer = watched
    sent = job(worker, A, evaluate=True)
    update = worker.fit(sent)
    worker.evaluate(asked(worker, B, 0))
    held += [weakref.ref(value) for value in (*update.backbone.values(), *sent.backbone.values())]
    own = {id(value) for value in worker.initial.values()}
    del update, sent
    gc.collect()
    assert [ref for ref in held if ref() is not None and id(ref()) not in own] == []
    assert all(value.grad is None for value in worker.backbone.parameters())


def test_a_turn_does_not_depend_on_earlier_turns(tiny_root: Path, tmp_path: Path) -> None:
    one, other = (build(tiny_root, tmp_path / name, exp="fedpav_rw") for name in ("one", "other"))
    first = [one.fit(job(one, A)), one.fit(job(one, B))]
    other.evaluate(asked(other, "mini-ilids", 0))
    torch.rand(17)
    second = [other.fit(job(other, B, evaluate=True)), other.fit(job(other, A, evaluate=True))][::-1]
    for left, right in zip(first, second, strict=True):
        assert_same(left.backbone, right.backbone)
        assert left.metrics == {name: right.metrics[name] for name in left.metrics}
        heads = [worker.store.load(left.client, before=2) for worker in (one, other)]
        assert heads[0] and heads[1]
        assert_same(heads[0]["head"], heads[1]["head"])
    assert not torch.equal(first[0].backbone["bottleneck.0.weight"], first[1].backbone["bottleneck.0.weight"])


def test_rounds_and_seeds_draw_differently(tiny_root: Path, tmp_path: Path) -> None:
    worker, reseeded = build(tiny_root, tmp_path / "0"), build(tiny_root, tmp_path / "1", "seed=1")
    first, second = worker.fit(job(worker, A)), worker.fit(job(worker, A, 2))
    third = reseeded.fit(support.fit_job(1, A, worker.initial))
    name = "bottleneck.0.weight"
    assert not torch.equal(first.backbone[name], second.backbone[name])
    assert not torch.equal(first.backbone[name], third.backbone[name])


def test_a_rate_of_almost_zero_moves_statistics_only(tiny_root: Path, tmp_path: Path) -> None:
    worker = build(tiny_root, tmp_path, "optim.lr_backbone=1e-30", "optim.lr_head=1e-30")
    update = worker.fit(job(worker, A))
    parameters = {name for name, _ in worker.backbone.named_parameters()}
    for name, value in update.backbone.items():
        changed = float((value - worker.initial[name]).abs().max()) > 1e-25
        assert changed == (name not in parameters), name


def test_the_head_is_saved_between_turns(tiny_root: Path, tmp_path: Path) -> None:
    worker = build(tiny_root, tmp_path)
    worker.fit(job(worker, A))
    after_one = worker.store.load(A, before=2)
    tiny = build(tiny_root, tmp_path, "optim.lr_backbone=1e-30", "optim.lr_head=1e-30")
    tiny.fit(job(tiny, A, 2))
    after_two = tiny.store.load(A, before=3)
    assert after_one and after_two and set(after_one) == {"head", "callbacks", "persons", "turn"}
    assert_same(after_one["head"], after_two["head"])
    assert float(after_one["head"]["bias"].abs().max()) > 0, "a new head has a bias of zero"
    assert worker.store.load(B, before=3) is None


@pytest.mark.parametrize("exp", ["fedpav", "local"])
def test_a_repeated_turn_gives_the_same_bits(tiny_root: Path, tmp_path: Path, exp: str) -> None:
    worker = build(tiny_root, tmp_path, exp=exp)
    jobs = [support.fit_job(round, A, worker.initial if exp == "fedpav" else {}) for round in (1, 2)]
    worker.fit(jobs[0])
    first, kept = worker.fit(jobs[1]), worker.store.load(A, before=3)
    again, kept_again = worker.fit(jobs[1]), worker.store.load(A, before=3)  # as after a kill before the save
    assert kept and kept_again and first.metrics == again.metrics
    assert_same(first.backbone, again.backbone)
    assert ("backbone" in kept) == (exp == "local")
    for part in ("head", "backbone")[: len(kept) - 3]:
        assert_same(kept[part], kept_again[part])


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_without_exchange_every_client_continues_with_its_own_backbone(
    tiny_root: Path, tmp_path: Path, state: str
) -> None:
    """The optimizer's state also continues over rounds, unless the configuration resets it in every round."""
    more = [] if state == "keep" else ["optimizer_state=reset"]
    worker = build(tiny_root, tmp_path, *HAND, *more, exp="local")
    hand = ByHand(worker.config, A, exact=True, keep=state == "keep")
    for round in (1, 2):
        update = worker.fit(support.fit_job(round, A))
        assert update.backbone == {} and update.nbytes == 0
        worker.fit(support.fit_job(round, "mini-ilids"))
        hand.turn(round)
    kept = worker.store.load(A, before=3)
    assert kept is not None
    assert_same(kept["backbone"], hand.backbone.state_dict())
    assert_same(kept["head"], hand.head.state_dict())
    assert ("optimizer" in kept) == (state == "keep")
    worker.evaluate(support.evaluate_job(3, A))
    assert_same(dict(worker.backbone.state_dict()), kept["backbone"])


def test_scores_after_training_are_those_of_the_uploaded_backbone(tiny_root: Path, tmp_path: Path) -> None:
    worker = build(tiny_root, tmp_path)
    update = worker.fit(job(worker, B, evaluate=True))
    evaluated = worker.evaluate(support.evaluate_job(1, B, update.backbone))
    assert evaluated.backbone == {}
    assert evaluated.metrics == {name: value for name, value in update.metrics.items() if name.startswith("test/")}
    before = worker.evaluate(asked(worker, B, 0))
    assert before.metrics != evaluated.metrics
    assert os.listdir(tmp_path / B) == ["round-00001.pt"], "an evaluation saves no state"


def test_only_the_named_test_sets_are_evaluated(tiny_root: Path, tmp_path: Path) -> None:
    worker = build(tiny_root, tmp_path, exp="centralized")
    (client,) = worker.datamodules
    update = worker.evaluate(asked(worker, client, 0, tests=f"{support.TINY[2]}/{support.TINY[1]}"))
    assert {name.split("/")[1] for name in update.metrics} == {support.TINY[1], support.TINY[2]}
    everything = worker.evaluate(asked(worker, client, 0))
    assert {name.split("/")[1] for name in everything.metrics} == set(support.TINY)
    assert update.metrics.items() <= everything.metrics.items()
    assert update.metrics[f"test/{A}/queries"] == len(os.listdir(tiny_root / A / "query"))


@pytest.mark.parametrize("exp", ["fedpav", "local"])
def test_training_into_nan_is_a_failure_and_saves_no_state(tiny_root: Path, tmp_path: Path, exp: str) -> None:
    worker = build(tiny_root, tmp_path, "optim.lr_backbone=1e30", "optim.lr_head=1e30", "batch_size=2", exp=exp)
    backbone = worker.initial if exp == "fedpav" else {}
    jobs = [support.fit_job(1, client, backbone) for client in (A, B)]
    outcomes = list(SequentialEngine(worker).fit(jobs))
    assert [(type(outcome), outcome.round, outcome.client) for outcome in outcomes] == [
        (ClientFailure, 1, A),
        (ClientFailure, 1, B),
    ]
    assert all("NaN" in outcome.detail and "\n" not in outcome.detail for outcome in outcomes)
    assert all(outcome.reason == "Diverged" and outcome.final for outcome in outcomes), "the job is not repeated"
    assert not list(tmp_path.rglob("*.pt"))


def test_a_backbone_with_nan_is_a_failure_and_saves_no_state(tiny_root: Path, tmp_path: Path) -> None:
    worker = build(tiny_root, tmp_path, "optim.lr_backbone=1e38", "optim.weight_decay=1e4", "batch_size=8")
    (outcome,) = SequentialEngine(worker).fit([job(worker, A)])  # one step: the head is updated before the damage
    assert isinstance(outcome, ClientFailure) and "backbone" in outcome.detail
    assert not list(tmp_path.rglob("*.pt"))


def test_a_failed_evaluation_does_not_affect_the_next_client(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, shaken = build(tiny_root, tmp_path / "calm"), build(tiny_root, tmp_path / "shaken")
    expected = calm.fit(job(calm, A))

    def fail(*parts: object, **named: object) -> None:
        raise RuntimeError("out of\n memory")

    with monkeypatch.context() as patch:
        patch.setattr("fedreid_pl.client.ReIDClient.test_step", fail)
        (outcome,) = SequentialEngine(shaken).evaluate([asked(shaken, B)])
    place = f"test_worker.py, line {fail.__code__.co_firstlineno + 1}"
    assert outcome == ClientFailure(1, B, "RuntimeError", f"out of memory ({place})")
    assert_same(shaken.fit(job(shaken, A)).backbone, expected.backbone)


def test_mistakes_of_the_user_are_not_failures_of_a_client(tiny_root: Path, tmp_path: Path) -> None:
    worker = build(tiny_root, tmp_path)

    class Broken:
        def fit(self, job: ClientJob) -> ClientUpdate:
            raise FedReIDError("x.jpg: not a readable image")

    class Slipped(Broken):
        def fit(self, job: ClientJob) -> ClientUpdate:
            raise KeyError("slip")

    with pytest.raises(FedReIDError, match=r"x\.jpg"):
        list(SequentialEngine(Broken()).fit([job(worker, A)]))  # type: ignore[arg-type]
    with pytest.raises(FedReIDError, match=f"{A} failed in round 3.*slip"):
        list(SequentialEngine(Slipped(), world=2).fit([job(worker, A, 3)]))  # type: ignore[arg-type]
    told: list[tuple[str, str]] = []
    engine = SequentialEngine(Slipped(), lambda job: told.append((job.kind, job.client)))  # type: ignore[arg-type]
    outcomes = list(engine.fit([job(worker, A), job(worker, B)]))
    assert [outcome.client for outcome in outcomes] == [A, B] and told == [("fit", A), ("fit", B)]
