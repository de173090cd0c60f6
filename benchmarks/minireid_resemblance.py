"""Compares MiniReID with the real datasets and prints the tables of docs/resemblance.md.

    python benchmarks/minireid_resemblance.py [--root FOLDER] [--images 300] [--weights FILE]

The first table counts persons, images and cameras beside Table 1 of Zhuang et al. (TOMM 2023). The second table shows
the distances of the domains in the features of the frozen start: the accuracy of a linear probe that classifies the ten
domains, and the Frechet distance between Gaussians fitted to the features of two domains, of two cameras of one domain,
and of two halves of one domain.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
import torch
from minireid_difficulty import FOLDERS, Split, load
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fedreid_pl.data.augmentation import normalize
from fedreid_pl.data.minireid import DOMAINS, PUBLIC, Domain, ensure_minireid
from fedreid_pl.data.minireid.schedule import schedule
from fedreid_pl.models.trunks import build_trunk
from fedreid_pl.start import ensure_start

# cameras, train persons, train images, query persons, query images, gallery images: Table 1
REAL = {
    "mini-msmt17": ("MSMT17", 15, 1041, 32621, 3060, 11659, 82161),
    "mini-dukemtmcreid": ("DukeMTMC-reID", 8, 702, 16522, 702, 2228, 17661),
    "mini-market1501": ("Market-1501", 6, 751, 12936, 750, 3368, 19732),
    "mini-cuhk03np": ("CUHK03-NP", 2, 767, 7365, 700, 1400, 5332),
    "mini-prid2011": ("PRID2011", 2, 285, 3744, 100, 100, 649),
    "mini-cuhk01": ("CUHK01", 2, 485, 1940, 486, 972, 972),
    "mini-viper": ("VIPeR", 2, 316, 632, 316, 316, 316),
    "mini-3dpes": ("3DPeS", 2, 93, 450, 86, 246, 316),
    "mini-ilids": ("i-LIDS", 2, 59, 248, 60, 98, 130),
}


def structure() -> list[str]:
    """Returns rows with MiniReID's numbers and, after a slash, those of the real dataset."""
    rows = [
        "| domain (synthetic) / stands for | cameras | share of train images | train images a person | query persons | "
        "gallery images a query person | train persons by cameras |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = sum(domain.train_images for domain in DOMAINS.values())
    theirs = sum(row[3] for row in REAL.values())
    for name, domain in DOMAINS.items():
        title, cameras, persons, images, asked, _, gallery = REAL[name]
        cells = [
            f"{name} / {title}",
            f"{domain.cameras} / {cameras}",
            f"{100 * domain.train_images / ours:.1f} % / {100 * images / theirs:.1f} %",
            f"{domain.train_images / domain.train_ids:.1f} / {images / persons:.1f}",
            f"{domain.query_ids} / {asked}",
            f"{domain.gallery_images / domain.query_ids:.1f} / {gallery / asked:.1f}",
            seen_by(domain),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def seen_by(domain: Domain) -> str:
    """Returns the shares of training persons by their number of cameras."""
    cameras: dict[int, set[int]] = defaultdict(set)
    for shot in schedule(domain):
        if shot.path.startswith(FOLDERS[0]):
            cameras[shot.person].add(shot.camera)
    counts = [len(seen) for seen in cameras.values()]
    bounds = ((1, 1), (2, 2), (3, 5), (6, 99))
    shares = [
        (f"{low}" if low == high else f"{low}-{high}" if high < 99 else f"{low}+", low, high) for low, high in bounds
    ]
    texts = [
        f"{label}: {100 * sum(low <= count <= high for count in counts) / len(counts):.0f} %"
        for label, low, high in shares
        if any(low <= count <= high for count in counts)
    ]
    return ", ".join(texts)


@torch.no_grad()
def features(root: Path, count: int, weights: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns pooled features `[N, 64]` and cameras `[N]` of up to `count` random images of every domain."""
    trunk = build_trunk("small")
    trunk.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    trunk.eval()
    draw = np.random.default_rng(0)
    found = {}
    for name in (*DOMAINS, PUBLIC.name):
        parts: list[Split] = [load(root / name / folder, keep_unlabelled=True) for folder in FOLDERS]
        images = torch.cat([part[0] for part in parts if len(part[0])])
        cameras = np.concatenate([part[2] for part in parts])
        rows = draw.permutation(len(images))[:count]
        pooled = trunk(normalize(images[rows])).mean(dim=(2, 3))
        found[name] = pooled.double().numpy(), cameras[rows]
    return found


def probe(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[float, dict[str, float]]:
    """Returns the accuracy in percent of a logistic regression from features to domains, in total and by domain."""
    halves = [
        (
            np.concatenate([x[start::2] for x, _ in found.values()]),
            np.repeat(list(found), [len(x[start::2]) for x, _ in found.values()]),
        )
        for start in (0, 1)
    ]
    scaler = StandardScaler().fit(halves[0][0])
    model = LogisticRegression(max_iter=2000).fit(scaler.transform(halves[0][0]), halves[0][1])
    right = model.predict(scaler.transform(halves[1][0])) == halves[1][1]
    return 100 * right.mean(), {name: 100 * right[halves[1][1] == name].mean() for name in found}


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the Frechet distance `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))` of `[N, D]` and `[M, D]`."""
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # the trace of the root of S1 S2 is the sum of the roots of its eigenvalues, which are real and non-negative
    roots = np.sqrt(np.clip(np.linalg.eigvals(first @ second).real, 0, None)).sum()
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * roots)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=None, help="the benchmark's folder; default: the cache")
    parser.add_argument("--images", type=int, default=300, help="images of a domain")
    parser.add_argument("--weights", type=Path, default=None, help="start weights; default: the standard ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("\n".join(structure()))
    found = features(options.root or ensure_minireid(), options.images, options.weights or ensure_start())
    accuracy, shares = probe(found)
    chance = 100 / len(found)
    print(f"\nLinear probe with {len(found)} domains: {accuracy:.1f} % classified right, {chance:.0f} % by chance\n")
    titles = ("domain (synthetic)", "classified right", "nearest domain", "its distance", "median distance")
    print(f"| {' | '.join((*titles, 'two halves', 'cameras 1 and 2'))} |")
    print("|---|---|---|---|---|---|---|")
    apart = {frozenset(pair): frechet(found[pair[0]][0], found[pair[1]][0]) for pair in combinations(found, 2)}
    for name, (values, cameras) in found.items():
        distances = {other: apart[frozenset((name, other))] for other in found if other != name}
        near = min(distances, key=lambda other: distances[other])
        own = frechet(values[::2], values[1::2])
        cells = [near, f"{distances[near]:.2f}", f"{median(distances.values()):.2f}", f"{own:.2f}"]
        pair = [values[cameras == camera] for camera in (1, 2)]
        cells.append(f"{frechet(*pair):.2f}" if DOMAINS.get(name, PUBLIC).cameras == 2 else "")
        print(f"| {name} | {shares[name]:.0f} % | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
