"""Lists the settings in which the published code departs from the paper; `fidelity=code` selects the code's values.

The code is cap-ntu/FedReID at commit 81a1729. The list omits departures that are not part of the algorithm: 800
rounds, the camera number of MSMT17 cut to its first digit, and mAP by the trapezoidal rule, which every run reports in
addition to the usual mAP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from fedreid_pl.config.schema import Config


class Departure(NamedTuple):
    """One setting: its key, the value of the published code, the value of the paper, and its meaning."""

    key: str
    code: Any
    paper: Any
    text: str


DEPARTURES = (
    Departure("data.hold_out", "first", "none", "the first image of every identity is left out of training"),
    Departure("data.incomplete_batches", "skip", "train", "an epoch skips its last batch if the batch is incomplete"),
    Departure(
        "optim.schedule",
        "step",
        "constant",
        "a step schedule, as in the paper's text; with optim.scope=round it never decays",
    ),
    Departure("optim.scope", "round", "run", "the schedule restarts in every round: with one epoch it never decays"),
    Departure("optim.bottleneck", "head", "backbone", "the bottleneck has the head's learning rate"),
    Departure("optim.nesterov", True, False, "Nesterov's momentum"),
    Departure("callbacks.backbone_sync.batch_norm", "first", "average", "running statistics of one client per round"),
    Departure(
        "callbacks.reweighting.probe",
        "code",
        "eval",
        "augmented probe images, mostly in train mode, BatchNorm statistics change",
    ),
    Departure("callbacks.distillation.every_n_rounds", 10, 1, "distillation in every tenth round"),
    Departure("callbacks.distillation.mode", "train", "eval", "teachers and student with dropout on"),
    Departure("callbacks.distillation.normalize", "teachers", "none", "features of teachers are L2-normalised"),
    Departure("callbacks.distillation.nesterov", True, False, "Nesterov's momentum at the server"),
    Departure("callbacks.distillation.augment", True, False, "public images are cropped and mirrored at random"),
)


def code_settings(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the key and the code's value of every departure that affects an experiment with these callbacks."""
    return {item.key: item.code for item in DEPARTURES if _concerns(item.key, callbacks)}


def departures(config: Config) -> list[tuple[str, str, str, str]]:
    """Returns (key, value, the paper's value, meaning) of every setting in which `config` follows the code."""
    rows = []
    for item in DEPARTURES:
        value: Any = asdict(config)
        if not _concerns(item.key, config.callbacks):
            continue
        for part in item.key.split("."):
            value = value.get(part, item.paper)
        if value == item.code:
            rows.append((item.key, str(value), str(item.paper), item.text))
    return rows


def _concerns(key: str, callbacks: Mapping[str, Any]) -> bool:
    section, name, *_ = key.split(".")
    return section != "callbacks" or callbacks.get(name) is not None
