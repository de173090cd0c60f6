"""Studies: files, rows and trained runs, with a replacement for the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fedreid_pl.cli import main
from fedreid_pl.commands.words import run_folder
from fedreid_pl.comparison import study as studies
from fedreid_pl.comparison.plan import PlannedRun
from fedreid_pl.comparison.study import StudyPlan, expected_seconds, plan_study, run_study
from fedreid_pl.comparison.study_file import Group, Study, read_study
from fedreid_pl.comparison.study_rows import COLUMNS, Row, add_rows, newest, read_rows, run_key
from fedreid_pl.config import available, compose, to_yaml
from fedreid_pl.errors import FedReIDError

RESULTS = Path("results/study.csv")
STUDY = Study("own", ("rounds=4", "evaluate_every=1"), (Group("a", ("local", "fedpav"), 2), Group("b", ("fedpav",), 3)))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "check_runs", lambda runs: None)


def plan(study: Study = STUDY, jobs: int = 1, keep: bool = False) -> StudyPlan:
    return plan_study(study, [], jobs, RESULTS, Path("runs"), keep, run_folder)


def write_run(run: PlannedRun) -> None:
    """Writes a complete run: Rank-1 of 10, 30, 20 and 40 % on a, half of that on b; mAP is half of Rank-1."""
    lines = ["round,section,name,metric,value"]
    lines += [f"0,local,{test},rank1,0.0{test == 'a':d}" for test in "ab"]
    for round, value in enumerate((0.1, 0.3, 0.2, 0.4), 1):
        for test, share in (("a", 1), ("b", 0.5)):
            lines += [f"{round},local,{test},rank1,{value * share}", f"{round},local,{test},mAP,{value * share / 2}"]
    costs = {"backbone_bytes": 1, "bytes_down": 30, "bytes_up": 12, "seconds": {"total": 50.0}}
    summary = {"complete": True, "rounds": 4, "clients": {"a": 99, "b": 7}, "costs": costs}
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    (run.folder / "summary.json").write_text(json.dumps(summary))


def trainer(trained: list[str], failing: Sequence[str] = ()) -> Callable[..., None]:
    def train(runs: Sequence[PlannedRun], jobs: int, threads: int | None, ended: Callable[[PlannedRun], None]) -> None:
        assert threads == 1
        for run in runs:
            trained.append(run.name)
            if run.name not in failing:
                write_run(run)
                ended(run)

    return train


@pytest.mark.parametrize("name", available("study"))
def test_every_experiment_of_a_shipped_study_can_be_composed(name: str) -> None:
    study = read_study(name)
    for group in study.groups:
        assert plan(replace(study, groups=(replace(group, seeds=1),))).runs
    assert plan(read_study(name, small=True)).runs


def test_groups_are_trained_seed_by_seed_and_every_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    monkeypatch.setattr(studies, "train_runs", trainer(trained))
    run_study(plan())
    expected = ["local seed 0", "fedpav seed 0", "local seed 1", "fedpav seed 1", "fedpav seed 2"]
    assert trained == expected
    run_study(plan())
    assert trained == expected, "runs with rows are not repeated"
    text = RESULTS.read_text()
    RESULTS.write_text("".join(line for line in text.splitlines(True) if not line.startswith("fedpav,1,")))
    run_study(plan())
    assert trained == [*expected, "fedpav seed 1"]
    assert sorted(RESULTS.read_text().splitlines()) == sorted(text.splitlines())
    assert not any(run.folder.exists() for run in plan().runs)


def test_a_row_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "train_runs", trainer([]))
    run_study(plan(keep=True))
    run = plan().runs[0]
    assert run.folder.exists()
    one, two, mean = (row for row in read_rows(RESULTS) if row.key == run_key(run))
    assert (one.experiment, one.seed, one.rounds, one.section, one.test) == ("local", 0, 4, "local", "a")
    assert (one.images, two.images, mean.images) == (99, 7, None)
    assert (one.rank1, two.rank1, mean.rank1) == (40.0, 20.0, 30.0)
    assert (one.mAP, mean.mAP) == (20.0, 15.0)
    assert (one.rank1_start, two.rank1_start, mean.rank1_start, one.mAP_start) == (1.0, 0.0, 0.5, None)
    assert one.rank1_best3 == 30.0, "of 10, 30, 20, 40"
    assert (one.fluctuation, two.fluctuation, mean.fluctuation) == (20.0, 10.0, 15.0), "20 to 40 is the second half"
    assert (one.largest_drop, two.largest_drop, mean.largest_drop) == (10.0, 5.0, 10.0)
    assert (mean.seconds, mean.bytes, mean.threads) == (50.0, 42, 1)


def test_the_validated_round_is_the_best_one_on_validation_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "train_runs", trainer([]))
    run = plan().runs[0]
    write_run(run)
    chosen = {1: (0.3, 0.1), 2: (0.1, 0.9), 3: (0.2, 0.2), 4: (0.4, 0.4)}  # round 2 has the highest mean, 0.5
    with (run.folder / "metrics.csv").open("a") as file:
        for round, (a, b) in chosen.items():
            file.write(f"{round},val_local,a,rank1,{a}\n{round},val_local,b,rank1,{b}\n")
    run_study(plan(keep=True))
    rows = read_rows(RESULTS)
    one, two, mean = (row for row in rows if row.key == run_key(run))
    assert (one.rank1_validated, two.rank1_validated, mean.rank1_validated) == (30.0, 15.0, 22.5)
    assert (one.mAP_validated, mean.mAP_validated) == (15.0, 11.25)
    others = [row for row in rows if row.key != run_key(run)]
    assert others and all(row.rank1_validated is None for row in others), "no validation persons"


def test_an_older_table_has_no_columns_of_the_validated_round() -> None:
    add_rows(RESULTS, [row("local", 0)])
    lines = RESULTS.read_text().splitlines()
    assert lines[0].endswith(",rank1_validated,mAP_validated") and lines[1].endswith(",,")
    RESULTS.write_text("".join(line.rsplit(",", 2)[0] + "\n" for line in lines))
    assert add_rows(RESULTS, [row("local", 1)])
    assert read_rows(RESULTS) == [row("local", 0), row("local", 1)]
    assert RESULTS.read_text().splitlines()[:2] == lines


def test_a_failed_run_is_reported_and_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "train_runs", trainer([], failing=["local seed 1"]))
    with pytest.raises(FedReIDError, match="study own: 1 run without a row: local seed 1"):
        run_study(plan())
    assert [run.name for run in plan().missing()] == ["local seed 1"]


def test_a_finished_run_without_a_row_is_not_trained_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(studies, "train_runs", trainer(trained))
    write_run(plan().runs[3])
    run_study(plan())
    assert "fedpav seed 1" not in trained and len(trained) == 4
    assert not plan().missing()


def test_the_expected_time_comes_from_the_rows() -> None:
    longer = Study("own", STUDY.words, (Group("a", ("local", "fedpav", "fedpav+local_epochs=5"), 1),))
    first = plan(longer)
    assert expected_seconds(first, first.runs) == [40.0, 40.0, 200.0], "ten seconds an epoch"
    add_rows(RESULTS, [row("local", 3, seconds=8.0)])
    add_rows(RESULTS, [row("local", 4, seconds=16.0)])
    assert expected_seconds(first, first.runs) == [12.0, 12.0, 60.0], "twelve seconds for four epochs"


def row(experiment: str, seed: int, seconds: float = 1.0, fingerprint: str = "f", test: str = "mean") -> Row:
    config = compose([f"exp={experiment}", *STUDY.words])
    values = dict.fromkeys(COLUMNS) | {"experiment": experiment, "seed": seed, "rounds": config.rounds, "test": test}
    values |= {"section": "local", "seconds": seconds, "bytes": 0, "threads": 1, "version": "1", "start": ""}
    return Row(**(values | {"fingerprint": fingerprint}))  # type: ignore[arg-type]


def test_rows_are_written_once_and_read_back() -> None:
    assert add_rows(RESULTS, [row("local", 0)])
    assert not add_rows(RESULTS, [row("local", 0, seconds=2.0)])
    assert add_rows(RESULTS, [row("fedpav", 0)])
    assert read_rows(RESULTS) == [row("local", 0), row("fedpav", 0)]
    assert [path.name for path in RESULTS.parent.iterdir()] == ["study.csv"]


def test_a_repeated_run_with_other_settings_replaces_the_first() -> None:
    old = [row("local", 0, fingerprint="old", test=test) for test in ("a", "gone", "mean")]
    new = [row("local", 0, fingerprint="new", test=test) for test in ("a", "mean")]
    other = row("local", 1, fingerprint="old")
    assert newest([*old, other, *new]) == [other, *new]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("words: [rounds=2]", "groups: expected a group"),
        ("groups: {a: {seeds: 1}}", "groups.a.experiments: expected a list"),
        ("groups: {a: {seeds: 0, experiments: [local]}}", "groups.a.seeds: expected the number of seeds"),
        ("groups: {a: {seed: 1, experiments: [local]}}", "unknown key 'seed'"),
        ("groups: {a: {seeds: 1, experiments: [lcal]}}", "exp=lcal: no such configuration"),
        ("groups: {a: {seeds: 1, experiments: [local]}}\nwords: [sed=1]", "sed"),
        ("groups: [a]", "groups: expected a group"),
    ],
)
def test_an_invalid_study_file_is_refused_in_one_line(
    text: str, said: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(text)
    assert main(["study", "own.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give its name"),
        (["main", "main"], "give one name"),
        (["mian"], "study mian: no such study"),
        (["main", "groups=main,batchnorm"], "groups=batchnorm: study main has no such group, did you mean"),
        (["main", "jobs=0"], "jobs=0: must be a whole number"),
        (["main", "small=yes"], "small=yes: expected true or false"),
        (["main", "seed=1"], "seed=1: a comparison names its seeds"),
        (["main", "results=there.csv"], "results=there.csv: is not a table of a study"),
    ],
)
def test_invalid_words_are_refused_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("a,b\n1,2\n")
    assert main(["study", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


def test_a_dry_run_trains_no_run(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert main(["study", "main", "small=true", "jobs=2", "dry_run=true"]) == 0
    said = capsys.readouterr().err
    assert "  fedpav_cc_rw: seeds 0, 1, 2\n" in said and "24 to train" in said and "about 4 min 0 s" in said
    assert not list(tmp_path.iterdir())
