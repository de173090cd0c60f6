"""Section and name of every score: test and validation sets, models of the server and local models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch

from fedreid_pl.config import compose
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.evaluation import evaluate_models, evaluate_own, record_local

SCORE = {"one": 1.0, "two": 4.0}
"""A model's score on every test set; the score on a validation set is a tenth of it."""


class Clients:
    """Three clients: `a` and `b` share a test set; `c` uses another model and has no validation set."""

    def __init__(self, backwards: bool = False) -> None:
        self.backwards = backwards
        self.jobs: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        tests = {"a": ("x", "val:a"), "b": ("x", "val:b"), "c": ("x", "y")}
        self.context = RoundContext(compose(["exp=fedpav"]), dict.fromkeys("abc", 1), tests, {}, frozenset())
        self.context.round = 3
        self.context.models = {name: {"w": torch.tensor([score])} for name, score in SCORE.items()}
        self.context.assignment = {"a": "one", "b": "one", "c": "two"}
        self.context.ledger.listeners.append(self.warnings.append)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        outcomes: list[ClientUpdate | ClientFailure] = []
        for job in jobs:
            self.jobs.append((job.client, str(job.config["tests"])))
            score = job.backbone["w"].item() if job.exchanged else 2.0
            tests = str(job.config["tests"]).split("/")
            scores = {f"test/{test}/rank1": score / (100 if "val:" in test else 10) for test in tests}
            good = ClientUpdate(job.round, job.client, {}, 1, scores)
            outcomes.append(ClientFailure(job.round, job.client, "no memory") if job.client == "b" else good)
        yield from reversed(outcomes) if self.backwards else outcomes

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def rows(clients: Clients) -> list[tuple]:
    return [tuple(record[1:]) for record in clients.context.history.records]


@pytest.mark.parametrize("backwards", [False, True])
def test_validation_sets_have_a_separate_section(backwards: bool) -> None:
    federation = Clients(backwards)
    evaluate_models(federation.context, federation)
    assert federation.jobs == [("a", "x/val:a"), ("b", "val:b"), ("c", "x/y")]
    assert rows(federation) == [
        ("global", "x", "rank1", (2 * 0.1 + 1 * 0.4) / 3),
        ("val_global", "a", "rank1", 0.01),
        ("global", "y", "rank1", 0.4),
    ]
    assert federation.warnings == ["round 3: client b could not evaluate the one model: no memory"]


def test_a_local_models_scores_have_its_clients_name_if_the_client_has_one_test_set() -> None:
    federation = Clients()
    for client, scores in (("a", {"x": 0.5, "val:a": 0.25}), ("c", {"x": 0.75, "y": 1.0})):
        metrics = {f"test/{test}/mAP": value for test, value in scores.items()} | {"train/loss": 2.0, "other": 1.0}
        record_local(federation.context, ClientUpdate(3, client, {}, 1, metrics))
    assert rows(federation) == [
        ("train", "a", "loss", 2.0),
        ("local", "a", "mAP", 0.5),
        ("val_local", "a", "mAP", 0.25),
        ("train", "c", "loss", 2.0),
        ("local", "x", "mAP", 0.75),
        ("local", "y", "mAP", 1.0),
    ]


@pytest.mark.parametrize("backwards", [False, True])
def test_every_clients_own_model_is_evaluated_through_the_engine_in_order(backwards: bool) -> None:
    federation = Clients(backwards)
    evaluate_own(federation.context, federation)
    assert federation.jobs == [("a", "x/val:a"), ("b", "x/val:b"), ("c", "x/y")]
    assert [row[:2] for row in rows(federation)] == [("local", "a"), ("val_local", "a"), ("local", "x"), ("local", "y")]
    assert federation.warnings == ["round 3: client b could not evaluate its own model: no memory"]
