"""Thresholds from validation persons and their error rates, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fedreid_pl.inspection.open_set import calibrated, open_set_entry, open_set_look
from fedreid_pl.metrics.retrieval import RankedSets

NONE = -math.inf


def look(model: str, genuine: list[float], impostor: list[float], persons: int = 3) -> dict:
    bests = torch.tensor([genuine, impostor], dtype=torch.float64)
    return {"model": model, "bests": bests, "persons": persons, "gallery": 9, "open_set": {"dir@far=0.01": math.nan}}


def test_queries_of_all_clients_count_together() -> None:
    many = [index / 1000 for index in range(150)]
    looks = [look("b", [0.9], [0.3]), look("global", [0.9] * 150, many), look("global", [0.9] * 50, [0.5] * 50, 8)]
    found = calibrated(looks)
    assert list(found) == ["global", "b"]
    # 200 searches allow two false alarms; 50 of them have the score 0.5, so all of these must stay below
    assert found["global"] == {"value": 0.5, "far": 0.01, "queries": 200, "clients": 2, "persons": 8}
    assert found["b"]["value"] == pytest.approx(0.3) and found["b"]["queries"] == 1
    assert calibrated([look("b", [0.9], [NONE])]) == {}, "no other person is in the gallery"


def test_the_error_rates_of_a_threshold() -> None:
    # correct at rank 1; another person ranks first; below the threshold; the person is not in the gallery
    entry = look("global", [0.9, 0.7, 0.4, NONE], [0.2, 0.8, 0.3, 0.6])
    costs = open_set_entry(entry, {"global": {"value": 0.5}})
    assert costs["identified"] == pytest.approx(1 / 3) and costs["false_alarms"] == 0.5
    assert costs["dir@far=0.01"] is None and costs["queries"] == 4
    assert "identified" not in open_set_entry(entry, {"another": {"value": 0.5}})


def test_the_two_best_scores_of_every_query_are_recorded() -> None:
    features = torch.eye(4)
    gallery = torch.nn.functional.normalize(torch.tensor([[0.8, 0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1.0, 0]]))
    sides = (features[:2], torch.tensor([5, 6]), torch.tensor([0, 0]), gallery, torch.tensor([5, 7, -2]))
    found = open_set_look(RankedSets(*sides, torch.tensor([1, 1, 1]), None))  # type: ignore[arg-type]
    torch.testing.assert_close(found["bests"], torch.tensor([[0.8, NONE], [0.6, 0.8]]))
    assert found["persons"] == 2 and found["gallery"] == 3
