"""Builds the initial backbone of a run, and pretrains the initial weights for MiniReID on generated images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.config import Config
from fedreid_pl.data.augmentation import crop_and_flip, normalize
from fedreid_pl.data.cache_folder import cache_folder, made_whole
from fedreid_pl.data.minireid.lessons import LESSONS, Lesson, draw_lesson
from fedreid_pl.data.minireid.streams import VERSION
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.functional.randomness import derive_seed, generator
from fedreid_pl.models.trunks import build_trunk, is_known
from fedreid_pl.models.weights import Backbone, build_backbone
from fedreid_pl.run_weights import RunWeights, find_run, read_run

Say = Callable[[str], None]

DRAWN = "drawn"
"""The value of `model.weights` that selects the pretrained weights of this module."""
CHOSEN = "garments"
"""The pretraining task of these weights; docs/decisions.md states the rule by which it was chosen."""
EPOCHS, BATCH, RATE, PAD = 10, 50, 0.1, 3


def initial_backbone(config: Config, progress: Say | None = None, say: Say | None = None) -> Backbone:
    """Returns the initial backbone of a run: weights of a library, a file, another run, this module, or random weights.

    Args:
        config: configuration of the run.
        progress: called with a line about the progress of pretraining.
        say: called with a line that names the tensors that were loaded from a file or a run, and the unused tensors.

    Raises:
        FedReIDError: if the weights cannot be loaded, downloaded or pretrained.
    """
    model = config.model
    size = (config.data.height, config.data.width)
    if model.weights == DRAWN:
        if model.name != "small" and is_known(model.name):
            raise FedReIDError(
                f"model.weights=drawn: these weights exist for model.name=small only, not for {model.name}; "
                "set model.weights to imagenet, none, a file or a run folder"
            )
        small = model.name == "small"  # build_backbone refuses an unknown name, so nothing is pretrained
        weights = str(ensure_start(progress=progress)) if small else "none"
        return build_backbone(replace(model, weights=weights), config.seed, size=size)
    run = _run_of(config)
    if run is None:
        return build_backbone(model, config.seed, say, size=size)
    if run.backbone != model.name:
        raise FedReIDError(
            f"model.weights={model.weights}: this run trained {printable(run.backbone)}, but model.name={model.name}; "
            f"set model.name={printable(run.backbone)}, or give another run"
        )
    return build_backbone(model, config.seed, say, run.tensors, size)


def empty_backbone(config: Config) -> Backbone:
    """Returns the backbone of a run with random weights, for the caller to overwrite. Downloads and reads no file.

    Raises:
        FedReIDError: if the network is unknown.
    """
    size = (config.data.height, config.data.width)
    return build_backbone(replace(config.model, weights="none"), config.seed, size=size)


def start_record(config: Config) -> dict[str, str] | None:
    """Returns the name (without paths) and the SHA-256 of the initial weights, which a run saves in its summary.

    The hash covers the tensors of pretrained weights of this module, the bytes of a weights file (as `sha256sum`
    prints it), or the model of a run (as in the headers of feature files). Returns `None` for random weights and for
    weights of a library.
    """
    weights = config.model.weights
    if weights == DRAWN:
        return {"name": f"minireid-v{VERSION}/{CHOSEN}", "sha256": _read(start_file(LESSONS[CHOSEN]))["sha256"]}
    if weights in ("imagenet", "none", None):
        return None
    run = _run_of(config)
    if run is not None:
        return {"name": run.name, "sha256": run.sha256}
    try:
        digest = hashlib.sha256()
        with open(Path(weights).expanduser(), "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        return {"name": "weights file", "sha256": digest.hexdigest()}
    except OSError as error:
        raise FedReIDError(f"model.weights={weights}: cannot be read ({error.strerror or error})") from error


def _run_of(config: Config) -> RunWeights | None:
    """Returns the run whose model is the initial weights, or `None`."""
    weights = config.model.weights
    if weights in ("imagenet", "none", DRAWN, None):
        return None
    found = find_run(weights)
    return None if found is None else read_run(*found, f"model.weights={weights}")


def ensure_start(lesson: Lesson | None = None, progress: Say | None = None) -> Path:
    """Returns the file of pretrained weights in the cache. The first call generates the images and pretrains.

    The file contains `state_dict` (of the small trunk) and `sha256` (of the tensors). Several processes may call this
    function at once: each writes the same file in one step.

    Args:
        lesson: pretraining task; `None`: the task `CHOSEN`.
        progress: called with a line about the progress.

    Raises:
        FedReIDError: if the file cannot be written, or is damaged.
    """
    lesson = lesson or LESSONS[CHOSEN]
    path = start_file(lesson)
    if path.exists():
        _read(path)
        return path
    weights = train_start(lesson, progress)
    try:
        with made_whole(path) as temporary:
            torch.save({"state_dict": weights, "sha256": digest_of_weights(weights)}, temporary)
    except OSError as error:
        raise FedReIDError(
            f"model.weights=drawn: {path} cannot be written ({error.strerror or error}); "
            "set FEDREID_PL_CACHE to a writable folder"
        ) from error
    return path


def start_file(lesson: Lesson) -> Path:
    """Returns the path of the weights that are pretrained on a task."""
    return cache_folder() / "start" / f"minireid-v{VERSION}-{lesson.name}.pt"


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over names, dtypes, shapes and bytes of a state dict, in order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def train_start(lesson: Lesson, progress: Say | None = None) -> dict[str, Tensor]:
    """Trains the small trunk on a task and returns its state dict.

    The trunk has one linear classifier for each question of the task. SGD has momentum 0.9, and its learning rate
    falls from 0.1 to zero along a cosine. The result is bit-identical for equal tasks, versions of torch and
    processors, because training uses one thread and one seed.
    """
    pictures, labels, answers = draw_lesson(lesson, progress)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)  # [N, 3, 64, 32], channels last
    truth = torch.from_numpy(labels)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(0, "start", lesson.name))  # for the random weights before pretraining
            return _fit(images, truth, answers, generator(0, "start", lesson.name, "batches"), progress)
    finally:
        torch.set_num_threads(threads)


def _fit(
    images: Tensor, truth: Tensor, answers: tuple[int, ...], draws: torch.Generator, progress: Say | None
) -> dict[str, Tensor]:
    trunk = build_trunk("small").to(memory_format=torch.channels_last)
    heads = nn.Linear(trunk.out_channels, sum(answers))  # type: ignore[arg-type]
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=5e-4)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    trunk.train()
    for epoch in range(EPOCHS):
        if progress is not None:
            progress(f"pretraining the start: epoch {epoch + 1} of {EPOCHS}")
        for rows in torch.randperm(len(images), generator=draws).split(BATCH):
            optimizer.zero_grad()
            batch = normalize(crop_and_flip(images[rows], PAD, 0.5, draws))
            scores = heads(trunk(batch).mean(dim=(2, 3))).split(answers, dim=1)
            loss = sum(F.cross_entropy(score, truth[rows, number]) for number, score in enumerate(scores))
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
            schedule.step()
    return {name: value.detach().clone().contiguous() for name, value in trunk.state_dict().items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if found["sha256"] != digest_of_weights(found["state_dict"]):
            raise ValueError("hash")
    except Exception as error:  # the unpickler may raise anything for damaged bytes
        raise FedReIDError(
            f"{path}: is damaged, it is not the file that this program wrote; delete the file to create it again"
        ) from error
    return found
