"""Which section and name a score goes to: test sets and validation sets, of the server's models and of local ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate
from fedreid_pl.federation.server.evaluation import evaluate_models, record_local
from fedreid_pl.federation.server.history import History

SCORE = {"one": 1.0, "two": 4.0}
"""A model's score on every test set; on a validation set it is a tenth of it."""


class Federation(SimpleNamespace):
    """Three clients: `a` and `b` share a test set, `c` works with another model and has no validation set."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(
            round=3,
            clients={"a": 1, "b": 1, "c": 1},
            tests={"a": ("x", "val:a"), "b": ("x", "val:b"), "c": ("x", "y")},
            models={name: {"w": torch.tensor([score])} for name, score in SCORE.items()},
            costs=SimpleNamespace(phase=lambda name: nullcontext()),
            history=History(),
            warnings=[],
            jobs=[],
            engine=self,
        )
        vars(self).update(changes)

    def model_of(self, client: str) -> str:
        return "two" if client == "c" else "one"

    def record(self, *record: Any) -> None:
        self.history.add(self.round, *record)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        for job in jobs:
            self.jobs.append((job.client, job.config["tests"]))
            score = job.backbone["w"].item()
            if job.client == "b":
                yield ClientFailure(job.round, job.client, "no memory")
                continue
            tests = str(job.config["tests"]).split("/")
            scores = {f"test/{test}/rank1": score / (100 if "val:" in test else 10) for test in tests}
            yield ClientUpdate(job.round, job.client, {}, 1, scores)


def rows(federation: Any) -> list[tuple]:
    return [tuple(record[1:]) for record in federation.history.records]


def test_validation_sets_have_a_section_of_their_own() -> None:
    federation = Federation()
    evaluate_models(federation)
    assert federation.jobs == [("a", "x/val:a"), ("b", "val:b"), ("c", "x/y")]
    assert rows(federation) == [
        ("global", "x", "rank1", (2 * 0.1 + 1 * 0.4) / 3),
        ("val_global", "a", "rank1", 0.01),
        ("global", "y", "rank1", 0.4),
    ]
    assert federation.warnings == ["client b could not evaluate the one model: no memory"]


def test_a_local_model_goes_by_its_client_where_that_has_one_test_set() -> None:
    federation = Federation()
    for client, scores in (("a", {"x": 0.5, "val:a": 0.25}), ("c", {"x": 0.75, "y": 1.0})):
        metrics = {f"test/{test}/mAP": value for test, value in scores.items()} | {"train/loss": 2.0, "other": 1.0}
        record_local(federation, ClientUpdate(3, client, {}, 1, metrics))
    assert rows(federation) == [
        ("train", "a", "loss", 2.0),
        ("local", "a", "mAP", 0.5),
        ("val_local", "a", "mAP", 0.25),
        ("train", "c", "loss", 2.0),
        ("local", "x", "mAP", 0.75),
        ("local", "y", "mAP", 1.0),
    ]
