"""The client's module: features, losses, statistics of a turn, optimizer and schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import LossConfig, OptimConfig
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.federation.client.trainer import quiet
from fedreid_pl.functional.batch_part import BatchPart, current_part
from fedreid_pl.models.bnneck import BNNeckBackbone
from fedreid_pl.models.ide import IDEBackbone, build_head

quiet()


class Mean(nn.Module):
    """Maps an image to the means of its left and right halves and two more numbers, so that a flip matters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[3] // 2
        parts = [images[..., :half], images[..., half:], images[:, :1], images[..., :1]]
        return torch.stack([part.mean(dim=(1, 2, 3)) for part in parts], dim=1) * self.scale


class Batches(pl.LightningDataModule):
    """A datamodule with given training batches, the same in every epoch."""

    def __init__(self, batches: list[TrainBatch]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


def make_client(**optim: Any) -> ReIDClient:
    torch.manual_seed(0)
    return ReIDClient(Mean(), nn.Linear(4, 3), OptimConfig(**optim))


def make_batches(*sizes: int, share: float = 1.0) -> list[TrainBatch]:
    draws = torch.Generator().manual_seed(1)
    return [
        as_batch(torch.randn(size, 3, 4, 6, generator=draws), torch.randint(0, 3, (size,), generator=draws), share)
        for size in sizes
    ]


def as_batch(images: Tensor, labels: Tensor, *share: Any) -> TrainBatch:
    return TrainBatch(images, labels, torch.zeros_like(labels), torch.arange(len(labels)), *share)


def fit(client: ReIDClient, batches: list[TrainBatch], epochs: int = 1, **hooks: Any) -> None:
    kind = type("Hooks", (pl.Callback,), {name: staticmethod(hook) for name, hook in hooks.items()})
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[kind()],
    )
    trainer.fit(client, datamodule=Batches(batches))


def test_features_are_flip_averaged_and_of_length_one() -> None:
    client = make_client()
    images = torch.randn(5, 3, 4, 6)
    client.requires_grad_(False)
    features = client(images)
    mirrored = torch.flip(images, dims=[-1])
    for row, image, mirror in zip(features, images, mirrored, strict=True):
        sums = [
            float(client.backbone(image[None])[0, column]) + float(client.backbone(mirror[None])[0, column])
            for column in range(4)
        ]
        wanted = [value / math.hypot(*sums) for value in sums]
        assert row.tolist() == pytest.approx(wanted, abs=1e-5)
    torch.testing.assert_close(client(mirrored), features)
    assert client(images.bfloat16().float()).dtype == torch.float32


def test_the_loss_is_cross_entropy_times_the_share() -> None:
    client = make_client()
    ((images, labels, *_),) = make_batches(6)
    logits = client.logits(images)
    by_hand = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        by_hand.append(math.log(sum(math.exp(value) for value in row)) - row[label])
    mean = sum(by_hand) / len(by_hand)
    assert client.training_step(as_batch(images, labels), 0).item() == pytest.approx(mean, rel=1e-5)
    assert client.training_step(as_batch(images, labels, 0.25), 1).item() == pytest.approx(mean / 4, rel=1e-5)


def test_layers_receive_the_part_of_a_distributed_batch() -> None:
    client, part = make_client(), BatchPart((1, 2, 5), 6)
    seen: list[BatchPart | None] = []
    client.backbone.register_forward_hook(lambda *_: seen.append(current_part()))
    (batch,) = make_batches(3)
    client.training_step(batch._replace(part=part), 0)
    client.training_step(batch, 1)
    assert seen == [part, None] and current_part() is None


def test_the_turn_reports_loss_and_accuracy_over_images_not_batches() -> None:
    client = make_client(lr_backbone=1e-30, lr_head=1e-30)
    batches = make_batches(7, 2, 1, share=0.5)
    fit(client, batches, epochs=2)
    images, labels = torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
    with torch.no_grad():
        logits = client.logits(images)
    chosen = logits.log_softmax(1)[torch.arange(10), labels]
    assert client.outbox.metrics == {
        "train/loss": pytest.approx(-float(chosen.mean()), rel=1e-5),
        "train/accuracy": pytest.approx(float((logits.argmax(1) == labels).float().mean())),
    }
    assert all(type(value) is float for value in client.outbox.metrics.values())
    assert client.outbox.backbone == {}, "only callbacks fill the outbox"


def test_sgd_has_one_rate_for_the_backbone_and_one_for_the_head() -> None:
    client = make_client(lr_backbone=0.01, lr_head=0.2, momentum=0.7, weight_decay=0.003)
    optimizer = client.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD) and not optimizer.state
    backbone, head = optimizer.param_groups
    assert [id(value) for value in backbone["params"]] == [id(client.backbone.scale)]
    assert {id(value) for value in head["params"]} == {id(value) for value in client.head.parameters()}
    assert (backbone["lr"], head["lr"]) == (0.01, 0.2)
    for group in (backbone, head):
        assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.7, 0.003, False)


def rates(scope: str, before: int) -> Iterator[tuple[float, float]]:
    seen: list[tuple[float, float]] = []

    def note(trainer: pl.Trainer, *rest: Any) -> None:
        backbone, head = trainer.optimizers[0].param_groups
        seen.append((backbone["lr"], head["lr"]))

    optim = OptimConfig(lr_backbone=0.5, lr_head=2.0, schedule="step", step=3, gamma=0.1, scope=scope)
    client = ReIDClient(Mean(), nn.Linear(4, 3), optim, epochs_before=before)
    fit(client, make_batches(4, 4), epochs=5, on_train_batch_start=note)
    yield from seen[::2]
    assert seen[::2] == seen[1::2], "the rate is the same for all batches of an epoch"


def test_the_schedule_counts_the_epochs_of_the_run_or_of_the_round() -> None:
    wanted = [(0.5 * 0.1 ** (epoch // 3), 2.0 * 0.1 ** (epoch // 3)) for epoch in range(20)]
    for before in (0, 2, 7):
        assert list(rates("run", before)) == [pytest.approx(pair) for pair in wanted[before : before + 5]]
        assert list(rates("round", before)) == [pytest.approx(pair) for pair in wanted[:5]]


@pytest.mark.parametrize("before", [0, 2])
def test_the_cosine_falls_over_the_run_or_over_the_round(before: int) -> None:
    def given(**options: Any) -> list[float]:
        seen: list[float] = []
        optim = OptimConfig(lr_backbone=0.5, schedule="cosine", **options)
        client = ReIDClient(Mean(), nn.Linear(4, 3), optim, epochs_before=before, total_epochs=20)
        note = lambda trainer, *rest: seen.append(trainer.optimizers[0].param_groups[0]["lr"])  # noqa: E731
        fit(client, make_batches(4), epochs=5, on_train_batch_start=note)
        return seen

    run = [0.25 * (1 + math.cos(math.pi * epoch / 20)) for epoch in range(before, before + 5)]
    assert given() == pytest.approx(run)
    warm = [0.5 * epoch / 4 for epoch in (1, 2, 3, 4)]
    warm += [0.25 * (1 + math.cos(math.pi * epoch / 16)) for epoch in range(5)]
    assert given(warmup=4) == pytest.approx(warm[before : before + 5])
    anew = [0.25 * (1 + math.cos(math.pi * epoch / 5)) for epoch in range(5)]
    assert given(scope="round") == pytest.approx(anew)


class Pooled(nn.Module):
    """A trunk with one convolution."""

    out_channels = 6

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


def make_reid_client(neck: str, loss: LossConfig, **optim: Any) -> ReIDClient:
    torch.manual_seed(0)
    backbone = BNNeckBackbone(Pooled()) if neck == "bnneck" else IDEBackbone(Pooled(), feature_dim=5, dropout=0.0)
    head = build_head(backbone.feature_dim, 3, bias=backbone.head_bias)
    return ReIDClient(backbone, head, OptimConfig(**optim), loss=loss)


NECKS = pytest.mark.parametrize("neck", ["bottleneck", "bnneck"])


@NECKS
def test_the_bottleneck_can_use_the_heads_learning_rate(neck: str) -> None:
    rates = {"lr_backbone": 0.01, "lr_head": 0.2}
    client = make_reid_client(neck, LossConfig(), **rates, bottleneck="head")
    names = {id(value): name for name, value in client.named_parameters()}
    backbone, head, bottleneck = client.configure_optimizers().param_groups
    assert (backbone["lr"], head["lr"], bottleneck["lr"]) == (0.01, 0.2, 0.2)
    members = [{names[id(value)] for value in group["params"]} for group in (backbone, head, bottleneck)]
    assert members[0] == {"backbone.trunk.layer.weight", "backbone.trunk.layer.bias"}
    assert all(name.startswith("head.") for name in members[1])
    assert all(name.startswith("backbone.bottleneck.") for name in members[2])
    assert set().union(*members) == set(names.values()) and sum(map(len, members)) == len(names)
    assert len(make_reid_client(neck, LossConfig(), **rates).configure_optimizers().param_groups) == 2


def smoothed(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Returns cross-entropy with the target (1 - e) at the label plus e / n everywhere (Szegedy et al., 2016)."""
    total = logits.new_zeros(())
    for row, label in zip(logits, labels.tolist(), strict=True):
        chances = [value - torch.log(torch.exp(row).sum()) for value in row]
        targets = [smoothing / len(row) + (1 - smoothing) * (place == label) for place in range(len(row))]
        total = total - sum(target * chance for target, chance in zip(targets, chances, strict=True))
    return total / len(labels)


def hardest(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Returns the batch-hard triplet loss, as a loop over anchors that all have positive and negative pairs."""
    losses = []
    for a, (anchor, label) in enumerate(zip(features, labels, strict=True)):
        apart = [((anchor - other) ** 2).sum().sqrt() for other in features[labels != label]]
        mates = [b for b in range(len(labels)) if b != a and labels[b] == label]
        losses.append(margin + max(((anchor - features[b]) ** 2).sum().sqrt() for b in mates) - min(apart))
    return torch.stack([loss.clamp(min=0) for loss in losses]).mean()


def test_label_smoothing_by_hand() -> None:
    client = make_client()
    client.loss = LossConfig(label_smoothing=0.3)
    ((images, labels, *_),) = make_batches(6)
    wanted = smoothed(client.logits(images), labels, 0.3).item()
    assert client.training_step(as_batch(images, labels, 0.5), 0).item() == pytest.approx(wanted / 2, rel=1e-5)


@NECKS
def test_a_turn_with_every_option_equals_a_plain_loop(neck: str) -> None:
    """Includes the triplet loss's weight, the share, the rates of three groups, and the reported numbers."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    batches = [as_batch(batch.images, labels, share) for share in (1.0, 0.5) for batch in make_batches(6)]
    loss = LossConfig(label_smoothing=0.2, triplet=0.7, margin=0.4)
    optim = {"lr_backbone": 0.02, "lr_head": 0.1, "schedule": "cosine", "warmup": 2, "bottleneck": "head"}
    client, hand = (make_reid_client(neck, loss, **optim) for _ in range(2))
    fit(client, batches, epochs=4)

    rates = {name: 0.02 if ".trunk." in name else 0.1 for name, _ in hand.named_parameters()}
    speed = {name: torch.zeros_like(value) for name, value in hand.named_parameters()}
    totals, triplets = [], []
    for factor in (1 / 2, 1.0, 1.0, 1 / 2):  # two epochs of warm-up, then half a cosine over the other two
        for images, _, _, _, share, _ in batches:
            pooled = hand.backbone.trunk(images).flatten(2).mean(2)
            metric = pooled if neck == "bnneck" else hand.backbone.bottleneck[0](pooled)
            norm = hand.backbone.bottleneck if neck == "bnneck" else hand.backbone.bottleneck[1]
            scaled = (metric - metric.mean(0)) / (metric.var(0, unbiased=False) + 1e-5).sqrt() * norm.weight
            logits = hand.head(scaled if norm.bias is None else scaled + norm.bias)
            triplets.append(hardest(metric, labels, 0.4))
            total = smoothed(logits, labels, 0.2) + 0.7 * triplets[-1]
            totals.append(total.item())
            grads = torch.autograd.grad(total * share, list(hand.parameters()))
            for (name, value), grad in zip(hand.named_parameters(), grads, strict=True):
                speed[name] = 0.9 * speed[name] + grad + 5e-4 * value.detach()
                value.data -= rates[name] * factor * speed[name]
    for (name, value), other in zip(client.named_parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5, msg=name)
    metrics = client.outbox.metrics
    assert set(metrics) == {"train/loss", "train/accuracy", "train/triplet"}
    assert metrics["train/loss"] == pytest.approx(sum(totals) / len(totals), rel=1e-4)
    assert metrics["train/triplet"] == pytest.approx(sum(map(float, triplets)) / len(triplets), rel=1e-4)
    assert 0.05 < metrics["train/triplet"] < metrics["train/loss"]


class Flat(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2]


def test_loaders_alternate_between_query_and_gallery_of_each_test_set() -> None:
    client = ReIDClient(Flat(), nn.Linear(2, 2), OptimConfig())
    client._trainer = SimpleNamespace(datamodule=SimpleNamespace(active_tests=("near", "far")))  # type: ignore[assignment]
    client.on_test_start()
    right, up = [1.0, 0.0], [0.0, 1.0]

    def feed(loader: int, rows: list[list[float]], persons: list[int], camera: int) -> None:
        images = torch.tensor(rows).view(-1, 1, 1, 2).expand(-1, 1, 1, 2)
        images = torch.cat([images, images.flip(3)], dim=3)  # symmetric images
        index = torch.arange(len(rows))
        client.test_step((images, torch.tensor(persons), torch.full((len(rows),), camera), index), 0, loader)

    feed(0, [right], [1], 0)
    feed(1, [right, up], [1, 2], 1)
    feed(2, [right], [2], 0)
    feed(3, [right, up], [1, 2], 1)
    client.on_test_epoch_end()
    assert list(client.scores) == ["near", "far"]
    assert client.scores["near"]["rank1"] == 1.0 and client.scores["far"]["rank1"] == 0.0
    assert client.scores["far"]["mAP"] == 0.5 and client.scores["near"]["queries"] == 1.0
    assert all(type(value) is float for scores in client.scores.values() for value in scores.values())
