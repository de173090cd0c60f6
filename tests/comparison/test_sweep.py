"""Sweeps: planned runs, refused words, the selection of a setting, and the printed table."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedreid_pl.cli import main
from fedreid_pl.commands.words import run_folder
from fedreid_pl.comparison import sweep
from fedreid_pl.comparison.plan import PlannedRun
from fedreid_pl.comparison.sweep_plan import SweepPlan, make_sweep, split_values
from fedreid_pl.config import compose, to_yaml

WORDS = ("rounds=2", "evaluate_every=1", "data.val_ids=0.1")
RATES = "optim.lr_backbone=0.01,0.02,0.04"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "check_runs", lambda runs: None)  # reads the images


def plan(*words: str, **options: str) -> SweepPlan:
    return make_sweep({"exp": "fedpav", **options}, [*WORDS, *words], run_folder)


def write_run(run: PlannedRun, curves: Mapping[str, tuple[float, float]]) -> None:
    """Writes a complete run of two rounds and two clients; `b` is 0.1 above `a`, mAP is half of Rank-1."""
    lines = ["round,section,name,metric,value"]
    for round in (1, 2):
        for section, values in curves.items():
            for name, more in (("a", 0.0), ("b", 0.1)):
                value = values[round - 1] + more
                lines += [f"{round},{section},{name},rank1,{value}", f"{round},{section},{name},mAP,{value / 2}"]
    summary = {
        "complete": True,
        "rounds": 2,
        "clients": {"a": 10, "b": 20},
        "costs": {"backbone_bytes": 4, "bytes_down": 1, "bytes_up": 1, "seconds": {"total": 1.0}},
    }
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    (run.folder / "summary.json").write_text(json.dumps(summary))


def write_all(made: SweepPlan, by_rate: Mapping[str, tuple[float, float]]) -> None:
    """Sets validation Rank-1 of client `a` by round, plus 0.02 per seed; test Rank-1 is one minus validation."""
    for (seed, point), run in made.runs.items():
        values = [value + 0.02 * seed for value in by_rate[dict(point)["optim.lr_backbone"]]]
        write_run(run, {"val_global": (values[0], values[1]), "global": (0.9 - values[0], 0.9 - values[1])})


def numbers(text: str, first: str) -> str:
    """Returns a row of the table without its first column."""
    return next(" ".join(line.split()[1:]) for line in text.splitlines() if line.split()[:1] == [first])


def test_every_combination_is_a_run_of_train_seed_by_seed() -> None:
    made = plan(RATES, "optim.milestones=[1,2],[2]", "optim.schedule=step", "optim.lr_head=0.1", seeds="0,1", jobs="2")
    assert len(made.runs) == 3 * 2 * 2 and made.seeds == [0, 1] and made.jobs == 2
    assert made.keys == ("optim.lr_backbone", "optim.milestones")
    assert [seed for seed, _ in made.runs] == [0] * 6 + [1] * 6
    for (seed, point), run in made.runs.items():
        words = [*run.words, "resume=auto"]
        config = compose(words)
        assert run.folder == run_folder(config, words) and config.seed == seed
        assert config.optim.lr_backbone == float(dict(point)["optim.lr_backbone"])
        assert config.optim.milestones == json.loads(dict(point)["optim.milestones"])
        assert config.optim.lr_head == 0.1 and config.data.val_ids == 0.1
    assert len({run.folder for run in made.runs.values()}) == 12


def test_commas_in_brackets_and_quotes_do_not_separate_values() -> None:
    assert split_values("{a: [1,2]},{a: []}") == ["{a: [1,2]}", "{a: []}"]
    assert split_values("'x,y',z") == ["'x,y'", "z"]
    made = plan(RATES, "data.leave_out=mini-viper,mini-3dpes")
    assert {tuple(made.keys)} == {("optim.lr_backbone",)} and "data.leave_out=mini-viper,mini-3dpes" in made.words


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        ([], ["exp=", "one experiment"]),
        (["exp=local,fedpav", RATES], ["exp=local,fedpav", "one experiment"]),
        (["exp=fedpav", "data.val_ids=0.1"], ["no key has several values", "KEY=V1,V2"]),
        (["exp=fedpav", RATES], ["no validation persons", "add data.val_ids=0.1"]),
        (["exp=fedpav", RATES, "data.val_ids=0.0"], ["no validation persons"]),
        (["exp=fedpav", "optim.lr_hed=0.1,0.2"], ["optim.lr_hed=0.1", "unknown key", "lr_head"]),
        (["exp=fedpaw", RATES], ["fedpaw", "did you mean 'fedpav'"]),
        (["exp=fedpav", "optim.lr_head=,"], ["optim.lr_head=,", "empty"]),
        (["exp=fedpav", "optim.lr_head=0.1,"], ["optim.lr_head=0.1,", "empty"]),
        (["exp=fedpav", "optim.lr_head=0.1,0.2,0.1"], ["optim.lr_head=0.1,0.2,0.1", "twice"]),
        (["exp=fedpav", "optim.lr_head=0.1,0.10", "data.val_ids=0.1"], ["0.10", "same run"]),
        (["exp=fedpav", "optim.lr_head=0.1,0.2", "optim.lr_head=0.3,0.4"], ["optim.lr_head=0.3,0.4", "twice"]),
        (["exp=fedpav", "optim.lr_head=0.1,0.2", "optim.lr_head=0.3"], ["optim.lr_head=0.3", "twice"]),
        (["exp=fedpav", "optim.lr_head=0.1,-2", "data.val_ids=0.1"], ["optim.lr_head=-2"]),
        (["exp=fedpav", "data.val_ids=0.1,0.2"], ["data.val_ids=0.1,0.2", "other validation persons"]),
        (["exp=fedpav", "data=minireid,minireid_v1"], ["data=minireid,minireid_v1", "other validation persons"]),
        (["exp=fedpav", "seed=0,1", RATES], ["seed=0,1", "seeds=0,1"]),
        (["exp=fedpav", "output_dir=x", RATES], ["output_dir=x"]),
        (["exp=fedpav", "seeds=0,0", RATES], ["seeds=0,0", "twice"]),
        (["exp=fedpav", "jobs=0", RATES], ["jobs=0"]),
        (["exp=fedpav", "test=yes", RATES], ["test=yes", "true or false"]),
        (["exp=fedpav", "statistic=bset", RATES], ["statistic=bset", "did you mean 'best'"]),
        (["exp=fedpav", "batch_size=" + ",".join(map(str, range(1, 10_002)))], ["10,001", "fewer"]),
    ],
)
def test_invalid_words_give_one_line(
    words: list[str], hints: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "train_runs", lambda runs, jobs: pytest.fail("a run started"))
    assert main(["sweep", *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and all(hint in line for hint in hints), line
    assert captured.out == "" and not (tmp_path / "runs").exists()


def test_only_validation_scores_select_and_test_scores_are_shown_on_request(capsys: pytest.CaptureFixture) -> None:
    made = plan(RATES, seeds="0,1")
    write_all(made, {"0.01": (0.2, 0.3), "0.02": (0.1, 0.6), "0.04": (0.7, 0.5)})
    command = ["sweep", "exp=fedpav", "seeds=0,1", *WORDS, RATES]
    assert main(command) == 0
    shown = capsys.readouterr().out
    rows = [line.split()[0] for line in shown.splitlines() if line.startswith("0.0")]
    assert rows == ["0.02", "0.04", "0.01"], "last round, best first"
    # a and b, 0.60 and 0.70, with 0.02 more under seed 1: 65 and 67 of 100; their deviation is 2 / sqrt(2)
    assert numbers(shown, "0.02") == "66.0 ± 1.4 33.0 ± 0.7" and "test" not in shown and "synthetic" in shown
    assert "Best: optim.lr_backbone=0.02\n" in shown
    assert main([*command, "test=true", "out=scores.csv"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("0.0")] == rows, "the same order"
    assert numbers(shown, "0.02").endswith("34.0 ± 1.4 17.0 ± 0.7"), "0.9 - 0.6, 0.1 more for b, 0.02 less by seed"
    lines = list(csv.DictReader(Path("scores.csv").read_text().splitlines()))
    assert [(line["optim.lr_backbone"], line["seed"]) for line in lines][:2] == [("0.02", "0"), ("0.02", "1")]
    assert float(lines[1]["val_rank1"]) == pytest.approx(67) and float(lines[1]["test_mAP"]) == pytest.approx(16.5)


def test_statistic_best_uses_the_best_round(capsys: pytest.CaptureFixture) -> None:
    made = plan(RATES)
    write_all(made, {"0.01": (0.2, 0.3), "0.02": (0.1, 0.6), "0.04": (0.7, 0.5)})
    assert main(["sweep", "exp=fedpav", *WORDS, RATES, "statistic=best", "test=true"]) == 0
    shown = capsys.readouterr().out
    assert "Best: optim.lr_backbone=0.04\n" in shown
    assert numbers(shown, "0.04") == "75.0 37.5 25.0 12.5", "scores of round 1, also for the test sets"
    assert "0.04 is the largest value that was tried" in shown and "One seed" in shown


def test_the_printed_words_train_the_best_run(capsys: pytest.CaptureFixture) -> None:
    words = ["optim.milestones=[1],[1,2]", "optim.schedule=step"]
    made = plan(*words)
    for (_, point), run in made.runs.items():
        value = 0.5 if point[0][1] == "[1,2]" else 0.2
        write_run(run, {"val_local": (value, value), "local": (value, value)})
    assert main(["sweep", "exp=fedpav", *WORDS, *words]) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("Train with it: ")]
    program, command, *words = shlex.split(line.removeprefix("Train with it: "))
    assert (program, command) == ("fedreid-pl", "train") and "local models" in shown
    (best,) = [run for (_, point), run in made.runs.items() if point[0][1] == "[1,2]"]
    assert compose(words) == best.config


def test_existing_runs_are_not_trained_again_and_no_setting_is_selected_while_runs_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    made = plan(RATES, seeds="0,1")
    write_all(made, {"0.01": (0.2, 0.3), "0.02": (0.1, 0.6), "0.04": (0.7, 0.5)})
    gone = made.runs[1, (("optim.lr_backbone", "0.02"),)]
    scores = (gone.folder / "summary.json").read_text()
    (gone.folder / "summary.json").unlink()
    trained: list[list[Path]] = []
    monkeypatch.setattr(sweep, "train_runs", lambda runs, jobs: trained.append([run.folder for run in runs]))
    command = ["sweep", "exp=fedpav", "seeds=0,1", *WORDS, RATES]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert trained == [[gone.folder]] and "5 of 6 runs are there, 1 to train" in captured.err
    assert "1 of 6 runs are missing" in captured.err and str(gone.folder) in captured.err
    assert "Best" not in captured.out and "0.04" in captured.out, "the scores of the other settings"
    monkeypatch.setattr(
        sweep, "train_runs", lambda runs, jobs: (runs[0].folder / "summary.json").write_text(scores) and None
    )
    assert main(command) == 0 and "Best: optim.lr_backbone=0.02\n" in capsys.readouterr().out


def test_settings_that_the_seeds_cannot_separate_are_listed(capsys: pytest.CaptureFixture) -> None:
    made = plan(RATES, seeds="0,1,2")
    values = {"0.01": (0.300, 0.301, 0.299), "0.02": (0.60, 0.50, 0.55), "0.04": (0.50, 0.58, 0.54)}
    for (seed, point), run in made.runs.items():
        value = values[dict(point)["optim.lr_backbone"]][seed]
        write_run(run, {"val_global": (0.0, value), "global": (0.0, value)})
    assert main(["sweep", "exp=fedpav", "seeds=0,1,2", *WORDS, RATES]) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("Cannot be told from the best")]
    assert line.endswith(": 0.04."), "0.10, -0.08, 0.01 against 0.02: nothing; against 0.01 more than 0.2 each time"


def test_with_equal_validation_rank1_the_better_validation_map_comes_first(capsys: pytest.CaptureFixture) -> None:
    made = plan("optim.lr_backbone=0.01,0.02")
    for (_, point), run in made.runs.items():
        write_run(run, {"val_global": (0.0, 0.5), "global": (0.0, 0.5)})
        if point[0][1] == "0.02":
            path = run.folder / "metrics.csv"
            path.write_text(path.read_text().replace("2,val_global,a,mAP,0.25", "2,val_global,a,mAP,0.35"))
    assert main(["sweep", "exp=fedpav", *WORDS, "optim.lr_backbone=0.01,0.02"]) == 0
    assert "Best: optim.lr_backbone=0.02\n" in capsys.readouterr().out
