"""Is a person in the gallery at all? A threshold from validation persons, and what it costs on the test sets."""

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
"""Share of absent persons that a calibrated threshold reports as found among the validation persons."""

GLOBAL = "global"


def open_set_look(sets: RankedSets) -> Look:
    """Returns the open-set measures of a test set, and the two best scores of every query as `bests` `[2, Q]`."""
    scores = open_set_scores(*sets[:6])
    bests = torch.stack([scores.best_genuine, scores.best_impostor]).cpu()
    persons = len(sets.gallery_identities[sets.gallery_identities >= 0].unique())
    return {"open_set": open_set_summary(scores), "bests": bests, "persons": persons, "gallery": len(sets.gallery)}


def calibrated(looks: Iterable[Look]) -> dict[str, dict[str, Any]]:
    """Returns the threshold of every model that validation persons were shown to, with what it was chosen by.

    A server's model was shown to the validation persons of several clients; their queries count together, each with
    the gallery of its own client.

    Returns:
        By model `value`, a cosine similarity; `far`, the share of absent persons that it lets through; `queries` and
        `clients`, how many it was chosen by; `persons`, those of the largest gallery among them.
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
    """Returns the open-set measures of one model on one test set; `None` where nothing can be counted.

    Besides those of `open_set_summary`: `queries` and `gallery`, how many images there are; and at the model's
    threshold, where there is one, `false_alarms`, the share of absent persons that are reported as found, and
    `identified`, the share of present persons that are found and named rightly.
    """
    bests = look["bests"]
    entry = {**look["open_set"], "queries": float(bests.shape[1]), "gallery": float(look["gallery"])}
    threshold = thresholds.get(look["model"])
    if threshold is not None:
        scores = without_pairs(*bests)
        entry["false_alarms"] = false_alarms(scores, threshold["value"])
        entry["identified"] = identified(scores, threshold["value"])
    return {name: value if math.isfinite(value) else None for name, value in entry.items()}
