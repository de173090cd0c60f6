"""Intervals over seeds and persons: pairs computed by hand, a comparison's table, and a study's files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fedreid_pl.commands.words import run_folder
from fedreid_pl.comparison.differences import OVER_PERSONS, OVER_SEEDS, paired_table
from fedreid_pl.comparison.persons import Persons, pair_persons, read_persons
from fedreid_pl.comparison.plan import PlannedRun, make_plan
from fedreid_pl.comparison.results import Result, read_result
from fedreid_pl.comparison.study_persons import add_persons, persons_path, read_study_persons
from fedreid_pl.comparison.study_results import StudyResults
from fedreid_pl.comparison.study_rows import add_rows, read_rows, rows_of
from fedreid_pl.config import to_yaml
from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.paired import paired_difference
from fedreid_pl.reporting.escaping import csv_text

SEEDS = 4
QUERIES = {"a": (1, 2, 5), "b": (4, 4)}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scores_of(run: PlannedRun, test: str) -> list[float]:
    """Returns Rank-1 of each person as multiples of 1/64, which are exact as decimal fractions in files."""
    draw = np.random.default_rng([run.seed, len(run.experiment), ord(test)])
    return [float(value) / 64 for value in draw.integers(8, 40, len(QUERIES[test]))]


def write_run(run: PlannedRun, spoilt: str = "") -> None:
    """Writes a run with its persons' scores; mAP is half of Rank-1. `spoilt` is a test set with a wrong mean."""
    rows, tests = [], {}
    for test, queries in QUERIES.items():
        rank1 = scores_of(run, test)
        mean = float(np.average(rank1, weights=queries)) + (test == spoilt) / 8
        for section in ("global", "local"):
            for metric, share in (("rank1", 1.0), ("mAP", 0.5)):
                rows += [[round, section, test, metric, repr(share * mean)] for round in (1, 2)]
        persons = {"queries": queries, "rank1": rank1, "mAP": [value / 2 for value in rank1]}
        own = {"cmc": [1.0], "cmcs": {}, "ranked": [], "confusions": []}
        tests[test] = {"model": "global", "persons": {"global": persons, test: persons}, **own}
    costs = {"backbone_bytes": 1, "bytes_down": 1, "bytes_up": 1, "seconds": {"total": 60.0}}
    summary = {"complete": True, "rounds": 2, "clients": dict.fromkeys(QUERIES, 10), "costs": costs}
    content = {"version": 1, "round": 2, "images": False, "tests": tests, "thresholds": {}, "embedding": None}
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "metrics.csv").write_text(csv_text(["round", "section", "name", "metric", "value"], sorted(rows)))
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    (run.folder / "summary.json").write_text(json.dumps(summary))
    (run.folder / "inspection.json").write_text(json.dumps(content))


def experiments(spoilt: str = "") -> dict[str, list[Result]]:
    """Returns the results of two experiments over the seeds."""
    plan = make_plan(
        {"exps": "fedpav fedprox", "seeds": " ".join(map(str, range(SEEDS)))},
        ["rounds=2", "evaluate_every=1"],
        run_folder,
    )
    found: dict[str, list[Result]] = {}
    for run in plan.runs:
        write_run(run, spoilt)
        result = read_result(run)
        assert result is not None
        found.setdefault(run.experiment, []).append(result)
    return found


def expected(results: dict[str, list[Result]], tests: Sequence[str] = ("a", "b")) -> tuple[np.ndarray, np.ndarray]:
    """Returns differences in Rank-1 by seed and person, and weights, computed by loops over the written numbers."""
    values = [
        [
            100 * (one - other)
            for test in tests
            for one, other in zip(scores_of(mine.run, test), scores_of(theirs.run, test), strict=True)
        ]
        for mine, theirs in zip(results["fedprox"], results["fedpav"], strict=True)
    ]
    weights = [queries / sum(QUERIES[test]) / len(tests) for test in tests for queries in QUERIES[test]]
    return np.array(values), np.array(weights)


def test_the_table_resamples_seeds_and_persons() -> None:
    results = experiments()
    table = paired_table(results, "fedpav", "last", "")
    assert table is not None and table.notes == [OVER_PERSONS]
    found = {lead[1]: cells for lead, cells in table.rows}["global, Rank-1"]
    values, weights = expected(results)
    one = paired_difference(values, weights=weights)
    assert [cell.mean for cell in found[:4] if cell] == pytest.approx([one.mean, one.low, one.high, one.p])
    assert one.mean == pytest.approx((values @ weights).mean())
    over_seeds = paired_difference(values @ weights)
    assert (one.low, one.high) != pytest.approx((over_seeds.low, over_seeds.high))


def test_a_score_that_differs_from_its_persons_mean_has_an_interval_over_seeds_only() -> None:
    results = experiments(spoilt="a")
    assert all(set(result.persons["global"]) == {"b"} for result in results["fedpav"])
    table = paired_table(results, "fedpav", "last", "")
    assert table is not None and table.notes == [OVER_SEEDS]


def test_selected_evaluations_have_intervals_over_seeds_only() -> None:
    best = paired_table(experiments(), "fedpav", "best", "")
    assert best is not None and best.notes == [OVER_SEEDS]


@pytest.mark.parametrize("text", [None, "{"], ids=["missing", "damaged"])
def test_without_persons_scores_intervals_are_over_seeds_only(text: str | None) -> None:
    results = experiments()
    file = results["fedpav"][0].run.folder / "inspection.json"
    file.unlink()
    if text is not None:
        file.write_text(text)
    again = read_result(results["fedpav"][0].run)
    assert again is not None and again.persons == {} and again.scores == results["fedpav"][0].scores
    table = paired_table({**results, "fedpav": [again, *results["fedpav"][1:]]}, "fedpav", "last", "")
    assert table is not None and table.notes == [OVER_SEEDS]


def test_persons_scores_of_an_earlier_round_are_not_used() -> None:
    results = experiments()
    one = results["fedpav"][0]
    assert read_persons(one.run.folder, 3, one.scores) == {}


def test_runs_with_different_persons_cannot_be_paired() -> None:
    one, other = Persons((1, 3), (1.0, 0.0), (1.0, 0.5)), Persons((2, 2), (0.0, 0.0), (0.5, 0.5))
    assert pair_persons([({"a": one}, {"a": other})], ["a"], "rank1") is None
    assert pair_persons([({"a": one}, {})], ["a"], "rank1") is None
    assert pair_persons([({"a": one}, {"a": one})], ["a"], "fluctuation") is None


def test_a_study_saves_and_resamples_the_persons_scores() -> None:
    results = experiments()
    rows = Path("results/study.csv")
    for result in (*results["fedpav"], *results["fedprox"], results["fedpav"][0]):
        add_persons(persons_path(rows), result)
        add_rows(rows, rows_of(result, 1))
    persons = read_study_persons(persons_path(rows))
    assert len(persons) == 2 * SEEDS * 2 * len(QUERIES), "experiments, seeds, sections, test sets"
    study = StudyResults(read_rows(rows), persons)
    for test, tests in (("a", ["a"]), ("mean", ["a", "b"])):
        found = study.difference(("fedprox", "global"), ("fedpav", "global"), test)
        values, weights = expected(results, tests)
        one = paired_difference(values, weights=weights)
        assert found is not None and found[:4] == pytest.approx(one[:4], abs=0.01), "scores have four decimals"
    without = StudyResults(read_rows(rows)).difference(("fedprox", "global"), ("fedpav", "global"), "mean")
    over_seeds = paired_difference(values @ weights)
    assert without is not None and without[:4] == pytest.approx(over_seeds[:4], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: "other" + text, "has other columns"),
        (lambda text: text.replace(",1 2 5,", ",1 2,", 1), "line 2: .*different numbers of persons"),
        (lambda text: text.replace(",1 2 5,", ",1 2 x,", 1), "line 2: "),
        (lambda text: text + "fedpav,0\n", "line "),
        (lambda text: None, "cannot be read"),
    ],
)
def test_the_error_names_a_damaged_file_and_its_line(change: Callable[[str], str | None], match: str) -> None:
    path = Path("study_persons.csv.gz")
    add_persons(path, experiments()["fedpav"][0])
    text = change(gzip.decompress(path.read_bytes()).decode())
    path.write_bytes(path.read_bytes()[:-9] if text is None else gzip.compress(text.encode()))
    with pytest.raises(FedReIDError, match=f"study_persons.csv.gz.*{match}"):
        read_study_persons(path)
