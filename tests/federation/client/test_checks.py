"""Jobs that an honest server does not send: the client refuses each before it changes any state."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import support
import tiny_turn
import torch

from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.callbacks.reweighting import Reweighting
from fedreid_pl.callbacks.scaffold import Scaffold
from fedreid_pl.federation.client.checks import check_job
from fedreid_pl.federation.messages import ClientJob, RejectedJob, from_bytes, to_bytes

NET = tiny_turn.make_backbone()
STATE = NET.state_dict()
CALLBACKS = {"backbone_sync": BackboneSync(), "reweighting": Reweighting(), "scaffold": Scaffold()}
CONTROL = {f"scaffold.{name}": torch.zeros_like(value) for name, value in NET.named_parameters()}
GOOD = support.fit_job(7, "a", STATE, {"evaluate": True, "probe_seed": 3, "starts_from": 6, "keeps": "4/5/6"}, CONTROL)
LAST = {"session": "session", "round": 6, "attempt": 1}


def check(job: ClientJob, last: Any = None, session: str | None = None) -> None:
    check_job(from_bytes(to_bytes(job)), NET, STATE, CALLBACKS, last, session)  # type: ignore[arg-type]


def test_an_honest_job_passes() -> None:
    check(GOOD, LAST, "session")
    check(replace(GOOD, extras={}), {**LAST, "round": 7})  # the same job again
    check(GOOD, {**LAST, "round": 9, "session": "another"})
    check(replace(GOOD, attempt=2), {**LAST, "round": 9})  # the server resumed from an earlier round
    check(support.evaluate_job(0, "a", STATE, {"tests": "x/y"}))
    check(support.evaluate_job(3, "a", {}, {"tests": "x/y", "starts_from": 3}), LAST)


def changed(name: str, value: torch.Tensor) -> ClientJob:
    return replace(GOOD, backbone={**GOOD.backbone, name: value})


def configured(**config: Any) -> ClientJob:
    return replace(GOOD, config={**GOOD.config, **config})


NAME = "0.weight"
BAD: dict[str, tuple[ClientJob, str]] = {
    "shape": (changed(NAME, torch.zeros(3, 4)), r"'0\.weight' has shape \(3, 4\), expected \(4, 3\)"),
    "dtype": (changed(NAME, STATE[NAME].double()), "has dtype torch.float64, expected torch.float32"),
    "NaN": (changed(NAME, STATE[NAME] * math.nan), "contains NaN or infinite values"),
    "too few": (GOOD.exchanging({NAME: STATE[NAME]}), "server and this client exchange different entries"),
    "none": (GOOD.exchanging({}), "server and this client exchange different entries"),
    "a head": (GOOD.exchanging({**STATE, "head.weight": torch.zeros(2)}), "exchange different entries .*'head.weight'"),
    "evaluates a head": (
        support.evaluate_job(1, "a", {"head.weight": torch.zeros(2)}),
        "'head.weight', which this client's backbone does not have",
    ),
    "extras": (replace(GOOD, extras={"images": torch.zeros(2)}), "tensor 'images' is not expected"),
    "extras' shape": (replace(GOOD, extras={f"scaffold.{NAME}": torch.zeros(2)}), "has shape"),
    "unknown key": (configured(lr=0.5), "'lr', which no callback of this client declares"),
    "another type": (configured(probe_seed=0.5), "'probe_seed' has type float, expected int"),
    "a flag": (configured(starts_from=True), "'starts_from' has type bool, expected int"),
    "a later round": (configured(starts_from=7), "starts from round 7"),
    "a negative round": (configured(starts_from=-1), "starts from round -1"),
    "rounds": (configured(keeps="4/../5"), "'keeps' is '4/../5', expected rounds separated by '/'"),
    "long": (configured(tests="x" * 200_000), "'tests' has 200000 characters"),
    "round 0": (replace(GOOD, round=0), "has round 0 and attempt 1"),
    "round": (replace(GOOD, round=10**9), "has round 1000000000 and"),
    "attempt": (replace(GOOD, attempt=0), "attempt 0"),
    "a replay": (replace(GOOD, round=5, config={}), "of round 5, attempt 1 is out of date: .* round 6, attempt 1"),
    "session": (
        replace(GOOD, session="other"),
        "belongs to session 'other', but this client has joined session 'session'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_hostile_jobs_are_refused(name: str) -> None:
    job, reason = BAD[name]
    with pytest.raises(RejectedJob, match=reason):
        check(job, LAST, "session")


@pytest.mark.parametrize(
    "change", [{"kind": "delete"}, {"exchanged": ("w",)}, {"session": 5}, {"attempt": "1"}, {"backbone": {}}]
)
def test_an_invalid_job_raises_an_error_when_it_is_created(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        replace(GOOD, **change)
