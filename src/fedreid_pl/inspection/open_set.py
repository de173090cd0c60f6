"""Open-set thresholds calibrated on validation persons, and their error rates on the test sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fedreid_pl.federation.client.worker import Look
from fedreid_pl.functional.open_set import (
    false_alarms,
    identified,
    open_set_scores,
    open_set_summary,
    threshold_at_far,
    without_pairs,
)
from fedreid_pl.metrics.retrieval import RankedSets

FAR = 1e-2
"""False alarm rate on the validation persons at which thresholds are calibrated."""

GLOBAL = "global"


def open_set_look(sets: RankedSets) -> Look:
    """Returns the open-set measures of a test set, and the two best scores of every query as `bests` `[2, Q]`."""
    scores = open_set_scores(*sets[:6])
    bests = torch.stack([scores.best_genuine, scores.best_impostor]).cpu()
    persons = len(sets.gallery_identities[sets.gallery_identities >= 0].unique())
    return {"open_set": open_set_summary(scores), "bests": bests, "persons": persons, "gallery": len(sets.gallery)}


def calibrated(looks: Iterable[Look]) -> dict[str, dict[str, Any]]:
    """Returns the threshold of every model that was evaluated on validation persons.

    A server's model is evaluated on the validation sets of several clients. Their queries are pooled; each query is
    compared with the gallery of its own client.

    Returns:
        By model: `value`, a cosine similarity; `far`, the false alarm rate on the validation persons; `queries` and
        `clients`, the numbers of queries and clients in the calibration; `persons`, the number of persons in the
        largest gallery.
    """
    found: dict[str, list[Look]] = {}
    for look in looks:
        found.setdefault(look["model"], []).append(look)
    thresholds = {}
    for model, parts in found.items():
        bests = torch.cat([look["bests"] for look in parts], 1)
        value = threshold_at_far(without_pairs(*bests), FAR)
        if math.isfinite(value):
            counts = {
                "queries": bests.shape[1],
                "clients": len(parts),
                "persons": max(look["persons"] for look in parts),
            }
            thresholds[model] = {"value": value, "far": FAR, **counts}
    return dict(sorted(thresholds.items(), key=lambda item: (item[0] != GLOBAL, item[0])))


def open_set_entry(look: Look, thresholds: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Returns the open-set measures of one model on one test set; undefined measures are `None`.

    The measures are those of `open_set_summary`, and `queries` and `gallery`, the numbers of images. If the model has a
    threshold: `false_alarms`, the share of absent persons that are reported as found, and `identified`, the share of
    present persons that are found with the correct identity.
    """
    bests = look["bests"]
    entry = {**look["open_set"], "queries": float(bests.shape[1]), "gallery": float(look["gallery"])}
    threshold = thresholds.get(look["model"])
    if threshold is not None:
        scores = without_pairs(*bests)
        entry["false_alarms"] = false_alarms(scores, threshold["value"])
        entry["identified"] = identified(scores, threshold["value"])
    return {name: value if math.isfinite(value) else None for name, value in entry.items()}
