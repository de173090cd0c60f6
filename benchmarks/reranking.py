"""Measures time and memory of k-reciprocal re-ranking, compared with the dense implementation.

    python benchmarks/reranking.py                              # with the dense one
    python benchmarks/reranking.py --size market1501            # the dense one has three 2 GB matrices
    python benchmarks/reranking.py --size msmt17 --no-dense     # too large for the dense one

With `--no-dense` the distances of 256 queries at a time are computed and discarded, as in the evaluation; otherwise all
distances stay in memory, as in the dense implementation.

The dense implementation follows ReID toolboxes: numpy matrices over all pairs of images for distances, order and
vectors, and a Python loop over images. Both use the same features and alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from figures import Report
from ranking import SIZES, Size, extra_peak, generate, seconds

from fedreid_pl.functional.reranking import KReciprocal

SIZES = {**SIZES, "half": Size(1_684, 9_866, 375, 6, 1_399, 1_909)}


def dense(query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, weight: float = 0.3) -> np.ndarray:
    """Computes re-ranked distances `[Q, G]` with `[N, N]` matrices."""
    features = np.concatenate([query, gallery])
    count, queries = len(features), len(query)
    distance = np.float32(2) - 2 * (features @ features.T)
    distance /= distance.max(1, keepdims=True)
    np.fill_diagonal(distance, -1e-6)
    order = np.argpartition(distance, range(1, k1 + 1))[:, : k1 + 1]
    np.fill_diagonal(distance, 0)
    vectors = np.zeros((count, count), np.float32)
    half = round(k1 / 2) + 1
    for i in range(count):
        forward = order[i]
        mutual = forward[(order[forward] == i).any(1)]
        expanded = mutual
        for candidate in mutual:
            near = order[candidate, :half]
            theirs = near[(order[near, :half] == candidate).any(1)]
            if len(np.intersect1d(theirs, mutual)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        affinity = np.exp(-distance[i, expanded])
        vectors[i, expanded] = affinity / affinity.sum()
    original = distance[:queries]
    del distance
    averaged = np.empty_like(vectors)
    for i in range(count):
        averaged[i] = vectors[order[i, :k2]].mean(0)
    del vectors
    holders = [np.flatnonzero(averaged[:, column]) for column in range(count)]
    result = np.empty((queries, count), np.float32)
    for i in range(queries):
        overlap = np.zeros(count, np.float32)
        for column in np.flatnonzero(averaged[i]):
            rows = holders[column]
            overlap[rows] += np.minimum(averaged[i, column], averaged[rows, column])
        result[i] = 1 - overlap / (2 - overlap)
    return (result * (1 - weight) + original * weight)[:, queries:]


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="half")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-dense", action="store_true", help="measure only this program's implementation")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    args = parser.parse_args()
    size = SIZES[args.size]
    (query, *_), (gallery, *_) = generate(size, args.dim, 2.5, args.device)

    whole = query.new_empty(0 if args.no_dense else len(query), len(gallery))  # the dense one makes the whole matrix

    def ours() -> torch.Tensor:
        found = KReciprocal(query, gallery)
        for rows in torch.arange(len(query), device=query.device).split(256):
            distances = found.distances(rows)
            if len(whole):
                whole[rows] = distances
        return whole

    other = np.empty(0)

    def theirs() -> None:
        nonlocal other
        other = dense(query.cpu().numpy(), gallery.cpu().numpy())

    report = Report(f"re-ranking, {args.size}")
    report.note(f"{args.size}: {size.queries} queries x {size.gallery} gallery images, {args.dim} values")
    start = time.perf_counter()
    found, peak = extra_peak(ours, args.device)  # type: ignore[arg-type]
    times = [(time.perf_counter() - start, 0.0)] if args.no_dense else []
    if peak is not None:
        report.add(f"memory above the features, {args.size}", [peak / 2**20], "under 7629 MiB (8 GB)", "MiB")
    while len(times) < args.repeats:
        times.append((seconds(ours, args.device), 0.0 if args.no_dense else seconds(theirs, args.device)))
    report.add(f"re-ranking, {args.size}", [mine for mine, _ in times], unit="s")
    if not args.no_dense:
        report.add(f"dense re-ranking, {args.size}", [dense_time for _, dense_time in times], unit="s")
        report.add(f"dense / this, {args.size}", [dense_time / mine for mine, dense_time in times], "at least 3")
        report.note(f"largest difference: {float(np.abs(found.cpu().numpy() - other).max()):.1e}")
    report.finish(args.json)


if __name__ == "__main__":
    main()
