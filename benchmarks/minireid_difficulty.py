"""Measures the difficulty of MiniReID: trains one model per domain with a bare PyTorch loop and prints a table.

    python benchmarks/minireid_difficulty.py [--version 1] [--domains mini-viper ...] [--rounds 30] [--seed 0]

This procedure defines the benchmark's difficulty. For each domain it compares the nearest neighbour in raw pixels, the
untrained network, and the network after `rounds` epochs on the domain's own training images.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.data.minireid import DOMAINS, VERSION, domains_of, ensure_minireid
from fedreid_pl.models.ide import IDEBackbone, build_head
from fedreid_pl.models.trunks import build_trunk

NAME = re.compile(r"(-?\d+)_c(\d+)")
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
SIZE = (32, 64)

Split = tuple[Tensor, np.ndarray, np.ndarray]
"""Images `[N, 3, 64, 32]` uint8, person numbers `[N]`, cameras `[N]`."""


def load(folder: Path, keep_unlabelled: bool = False) -> Split:
    """Reads all images of a folder, resized to 64 x 32; those of person -1 only with `keep_unlabelled`."""
    images, persons, cameras = [], [], []
    for file in sorted(folder.glob("*.jpg")):
        person, camera = map(int, NAME.match(file.name).groups())  # type: ignore[union-attr]
        if person < 0 and not keep_unlabelled:
            continue
        with Image.open(file) as picture:
            images.append(np.asarray(picture.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR)))
        persons.append(person)
        cameras.append(camera)
    if not images:
        return torch.empty(0, 3, *SIZE[::-1], dtype=torch.uint8), np.array([], int), np.array([], int)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return pixels, np.array(persons), np.array(cameras)


def normalise(images: Tensor) -> Tensor:
    """Converts to float images in -1..1, channels last."""
    return images.float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Applies zero padding of 3, a random crop and a random horizontal flip to `[B, 3, H, W]` uint8."""
    count, _, height, width = images.shape
    padded = F.pad(images, (3, 3, 3, 3))
    top = torch.randint(0, 7, (count, 1), generator=generator)
    left = torch.randint(0, 7, (count, 1), generator=generator)
    flip = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(flip, width - 1 - columns, columns) + left  # [B, W]
    rows = torch.arange(height) + top  # [B, H]
    picked = padded.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def train(split: Split, rounds: int, rates: tuple[float, float], seed: int) -> nn.Module:
    """Returns a backbone after `rounds` epochs; every round starts a new SGD, like a client of a federation."""
    images, persons, _ = split
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    backbone = IDEBackbone(build_trunk("small")).to(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.unique(persons, return_inverse=True)[1])
    head = build_head(backbone.feature_dim, int(labels.max()) + 1)
    backbone.train()
    for _ in range(rounds):
        groups = [
            {"params": backbone.parameters(), "lr": rates[0]},
            {"params": head.parameters(), "lr": rates[1]},
        ]
        optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=5e-4)
        for rows in torch.randperm(len(labels), generator=generator).split(32):
            if len(rows) == 1:  # BatchNorm needs two
                continue
            optimizer.zero_grad()
            scores = head(backbone(normalise(augment(images[rows], generator))))
            F.cross_entropy(scores, labels[rows]).backward()
            optimizer.step()
    return backbone


@torch.no_grad()
def embed(backbone: nn.Module, images: Tensor) -> Tensor:
    """Computes flip-averaged features of unit length `[N, D]`."""
    backbone.eval()
    found = [backbone(normalise(part)) + backbone(normalise(part.flip(3))) for part in images.split(256)]
    return F.normalize(torch.cat(found))


def rank(query: Tensor, gallery: Tensor, asked: Split, offered: Split) -> tuple[float, float]:
    """Computes Rank-1 and mAP in percent by Market-1501's rule, from unit features."""
    hits, precisions = [], []
    similarity = (query @ gallery.T).numpy()
    for row, person, camera in zip(similarity, asked[1], asked[2], strict=True):
        keep = (offered[1] != person) | (offered[2] != camera)
        order = np.argsort(-row[keep], kind="stable")
        good = (offered[1][keep] == person)[order]
        hits.append(good[0])
        places = np.flatnonzero(good)
        precisions.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
    return 100 * float(np.mean(hits)), 100 * float(np.mean(precisions))


def raw(images: Tensor) -> Tensor:
    """Returns pixels as features of unit length, without each image's grey level and contrast."""
    pixels = images.float().flatten(1)
    return F.normalize(pixels - pixels.mean(dim=1, keepdim=True))


def main() -> None:
    """Prints the table line by line, as each domain finishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=list(DOMAINS))
    parser.add_argument("--root", default=None, help="the benchmark's folder; default: the cache")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate of the backbone")
    parser.add_argument("--head-rate", type=float, default=0.02, help="learning rate of the classifier")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--version", type=int, default=VERSION)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = [domains_of(options.version)[name] for name in options.domains] if options.root else None
    root = ensure_minireid(options.root, domains=chosen, version=options.version)
    print("| domain (synthetic) | train images | raw pixels R-1 | untrained R-1 | standalone R-1 | mAP | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in options.domains:
        learn, query, gallery = (load(root / name / folder) for folder in FOLDERS)
        pixels = rank(raw(query[0]), raw(gallery[0]), query, gallery)[0]
        scores = []
        start = time.perf_counter()
        for rounds in (0, options.rounds):
            model = train(learn, rounds, (options.rate, options.head_rate), options.seed)
            scores.append(rank(embed(model, query[0]), embed(model, gallery[0]), query, gallery))
        seconds = time.perf_counter() - start
        (untrained, _), (first, average) = scores
        cells = (f"{value:.1f}" for value in (pixels, untrained, first, average))
        print(f"| {name} | {len(learn[1])} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
