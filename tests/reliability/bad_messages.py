"""Random updates with one defect; the server must refuse each before it changes the model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import support
import torch

from fedreid_pl.federation.messages import ClientJob, ClientUpdate, from_bytes, to_bytes
from fedreid_pl.federation.server.checks import check_update

Action = Callable[[], Any]
DECLARED, TESTS = 100, ("x", "y")
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool)


def backbone(draws: random.Random) -> dict[str, torch.Tensor]:
    """Returns random tensors like those of a network."""
    torch_draws = torch.Generator().manual_seed(draws.randrange(2**32))
    shapes = [tuple(draws.randrange(1, 5) for _ in range(draws.randrange(1, 5))) for _ in range(draws.randrange(1, 5))]
    state = {f"layer{number}.weight": torch.randn(shape, generator=torch_draws) for number, shape in enumerate(shapes)}
    return {**state, "norm.num_batches_tracked": torch.tensor(draws.randrange(1000))}


def pair(draws: random.Random) -> tuple[ClientJob, ClientUpdate]:
    """Returns a job and its honest answer."""
    sent = backbone(draws)
    answer = {name: value + 1 for name, value in sent.items()}
    metrics = {"train/loss": draws.uniform(0, 9), "train/accuracy": draws.random(), "test/x/rank1": draws.random()}
    round = draws.randrange(1, 300)
    job = support.fit_job(round, "a", sent, {"evaluate": True})
    return job, ClientUpdate(round, "a", answer, draws.randrange(1, DECLARED + 1), metrics)


def checking(job: ClientJob, update: ClientUpdate, draws: random.Random) -> Action:
    """Returns a check of the update, either direct or after serialization."""
    if draws.random() < 0.5:
        return lambda: check_update(update, job, DECLARED, TESTS)
    data = to_bytes(update)
    return lambda: check_update(from_bytes(data), job, DECLARED, TESTS)  # type: ignore[arg-type]


def numbers(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes an update with NaN or infinity at a random place of a tensor."""
    job, update = pair(draws)
    name = draws.choice([name for name in update.backbone if name.startswith("layer")])
    value = update.backbone[name].clone()
    value.view(-1)[draws.randrange(value.numel())] = draws.choice([math.nan, math.inf, -math.inf])
    return name, checking(job, replace(update, backbone={**update.backbone, name: value}), draws)


def shape(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes an update with a tensor of another shape, with the same or another number of elements."""
    job, update = pair(draws)
    name = draws.choice(list(update.backbone))
    value = update.backbone[name]
    other = draws.choice([value[None], value.reshape(-1, 1, 1, 1, 1), torch.zeros(*value.shape, 2), torch.zeros(0)])
    other = value[None] if other.shape == value.shape else other.to(value.dtype)
    return f"{tuple(other.shape)}", checking(job, replace(update, backbone={**update.backbone, name: other}), draws)


def dtype(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes an update with a tensor of another dtype."""
    job, update = pair(draws)
    name, kind = draws.choice(list(update.backbone)), draws.choice(DTYPES)
    changed = {**update.backbone, name: update.backbone[name].to(kind)}
    return f"{kind}", checking(job, replace(update, backbone=changed), draws)


def names(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes an update with a missing, an extra or a renamed tensor."""
    job, update = pair(draws)
    state = dict(update.backbone)
    name = draws.choice(list(state))
    what = draws.choice(["missing", "more", "renamed", "none", "extras"])
    if what in ("missing", "renamed"):
        value = state.pop(name)
        state |= {name + "x": value} if what == "renamed" else {}
    if what == "more":
        state[draws.choice(["head.weight", "", "images", "layer0.weight2"])] = torch.zeros(3)
    state = {} if what == "none" else state
    extras = {"images": torch.zeros(2)} if what == "extras" else {}
    return what, checking(job, replace(update, backbone=state, extras=extras), draws)


def address(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes an update of another round or client."""
    job, update = pair(draws)
    changed: dict[str, Any] = draws.choice(
        [
            {"round": job.round + draws.choice([-1, 1, 10**6, -job.round, 10**5000])},
            {"client": draws.choice(["b", "", "A", "a ", "a" * 10**5, "../a", "\n", "\x00"])},
        ]
    )
    return str(list(changed)), checking(job, replace(update, **changed), draws)


def count(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes an update with an impossible number of images."""
    job, update = pair(draws)
    claimed = draws.choice([0, -1, -draws.randrange(1, 10**9), DECLARED + draws.randrange(1, 10**9), 2**53, 10**5000])
    return "count", checking(job, replace(update, num_samples=claimed), draws)


def metric(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes an update with a metric that is out of range, of another client's test set, or not finite."""
    job, update = pair(draws)
    lies: dict[str, float] = draws.choice(
        [
            {"train/loss": -draws.uniform(1e-6, 1e9)},
            {"train/accuracy": draws.choice([-1, 1]) * draws.uniform(2, 1e300)},
            {f"test/{draws.choice(TESTS)}/{draws.choice(['rank1', 'mAP', 'mINP'])}": draws.uniform(1.001, 1e6)},
            {f"test/{draws.choice(TESTS)}/rank5": -draws.uniform(1e-3, 1e6)},
            {f"test/{draws.choice(['z', '', 'xx', 'x/y', 'val:x'])}/rank1": draws.random()},
            {
                draws.choice(["train/loss", "anything", "cosine_distance"]): draws.choice(
                    [math.nan, math.inf, -math.inf]
                )
            },
            {"count": 10**400},
            {"n" * 1000: 1.0},
            {f"n{number}": 1.0 for number in range(10_001)} if draws.random() < 0.05 else {"train/triplet": -1.0},
        ]
    )
    return str(list(lies)[:1]), checking(job, replace(update, metrics={**update.metrics, **lies}), draws)


def kinds(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes an update with a sparse tensor, or a meta tensor without data."""
    job, update = pair(draws)
    name = draws.choice(list(update.backbone))
    value = update.backbone[name]
    other = draws.choice([value.to_sparse(), torch.empty(value.shape, dtype=value.dtype, device="meta")])
    changed = replace(update, backbone={**update.backbone, name: other})
    return str(other.layout), lambda: check_update(changed, job, DECLARED, TESTS)


UPDATES = [numbers, shape, dtype, names, address, count, metric, kinds]
