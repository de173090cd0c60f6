"""Computes exact CMC, mAP and mINP for features from another program.

    python examples/metric_alone.py [FEATURES.npz]

The file contains `query [Q, D]`, `query_persons [Q]`, `query_cameras [Q]`, and the same three for `gallery`. Without a
file the example draws features at random.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from fedreid_pl import ReIDRetrieval

SIDES = ("query", "gallery")


def drawn(persons: int = 50, size: int = 32) -> dict[str, np.ndarray]:
    """Returns random features: a centre for each person, plus noise for each of the two cameras."""
    draws = np.random.default_rng(0)
    centres = draws.normal(size=(persons, size))
    arrays: dict[str, np.ndarray] = {}
    for camera, side in enumerate(SIDES):
        arrays[side] = centres + draws.normal(scale=2.0, size=centres.shape)
        arrays[f"{side}_persons"], arrays[f"{side}_cameras"] = np.arange(persons), np.full(persons, camera)
    return arrays


def scores(arrays: dict[str, np.ndarray], batch: int = 16) -> dict[str, float]:
    """Returns the scores; the metric receives the features in batches, as in a test loop."""
    metric = ReIDRetrieval(ranks=(1, 5, 10))
    for side in SIDES:
        features = torch.nn.functional.normalize(torch.as_tensor(arrays[side], dtype=torch.float32))
        persons, cameras = (torch.as_tensor(arrays[f"{side}_{what}"]).long() for what in ("persons", "cameras"))
        for start in range(0, len(features), batch):
            rows = torch.arange(start, min(start + batch, len(features)))
            metric.update(features[rows], persons[rows], cameras[rows], rows, query=side == "query")
    return metric.compute()


if __name__ == "__main__":
    for name, value in scores(dict(np.load(sys.argv[1])) if len(sys.argv) > 1 else drawn()).items():
        print(f"{name:<14} {value:.4f}")
