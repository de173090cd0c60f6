"""Evaluation protocols through the command line: validation, single-shot, other images, unseen datasets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import layouts
import pytest
import support

import fedreid_pl
from fedreid_pl.cli import main

SEEN = support.TINY[:2]
"""The tiny datasets with enough persons for a validation set."""


def train(root: Path, folder: Path, exp: str, *words: str) -> dict:
    assert main(["train", f"exp={exp}", *support.quick(root, folder, *words)]) == 0
    return json.loads((folder / "summary.json").read_text())


def rows(table: str) -> list[list[str]]:
    """Returns the cells of a table, or of the first table that `evaluate` prints."""
    blocks = table.strip().split("\n\n")
    lines = blocks[min(1, len(blocks) - 1)].splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in (lines[0], *lines[2:])]


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates GRID and CAVIAR4REID in their authors' layouts."""
    root = tmp_path_factory.mktemp("unseen")
    for folder in ("underground_reid", "CAVIAR4REID"):
        layouts.write(layouts.MINIATURES[folder](), root / folder)
    return root


@pytest.fixture(scope="module")
def fedpav(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a run of two rounds and returns its folder."""
    folder = tmp_path_factory.mktemp("fedpav")
    train(tiny_root, folder, "fedpav")
    return folder


def test_the_best_round_is_chosen_by_validation(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, fedpav: Path
) -> None:
    words = ["data.val_ids=0.4", "data.single_shot=3", "rounds=3"]
    summary = train(tiny_root, tmp_path, "fedpav", *words)
    printed = capsys.readouterr()
    assert (
        f"have no validation set, because no training persons are left that two cameras show: {support.TINY[2]}"
        in printed.err
    )
    assert "val" not in printed.out.replace(str(tmp_path), "")
    assert set(summary["val_global"]) == set(summary["val_local"]) == {*SEEN, "mean"}
    assert set(summary["global"]) == set(summary["local"]) == {*support.TINY, "mean"}
    curve = {}
    for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]:
        number, section, name, metric, value = line.split(",")
        if (section, metric) == ("val_global", "rank1"):
            curve.setdefault(int(number), {})[name] = float(value)
    assert set(curve) == {0, 1, 2, 3} and all(set(scores) == set(SEEN) for scores in curve.values())
    means = {number: sum(scores.values()) / 2 for number, scores in curve.items() if number}
    assert summary["best_by"] == "validation"
    assert means[summary["best_round"]] == max(means.values())
    before = json.loads((fedpav / "summary.json").read_text())
    assert before["best_by"] == "test" and before["val_global"] == before["val_local"] == {}
    for name in SEEN:
        assert 0 < summary["clients"][name] < before["clients"][name]
    assert summary["clients"][support.TINY[2]] == before["clients"][support.TINY[2]]
    for scores in (*summary["global"].values(), *summary["val_local"].values()):
        single = [scores[f"single_shot_rank{k}"]["last"] for k in (1, 5, 10)]
        assert 0 <= single[0] <= single[1] <= single[2] <= 1
    assert not any("single_shot_rank1" in scores for scores in before["global"].values())
    assert main(["evaluate", f"run={tmp_path}", "checkpoint=best"]) == 0
    title, table, *_ = capsys.readouterr().out.split("\n\n")
    assert f"after round {summary['best_round']} of 3" in title
    header, *lines = rows(table)
    assert header == ["test set", "global R1", "global mAP", "global single-shot R1"]
    assert [line[0] for line in lines] == [*support.TINY, "mean"]
    check_open_set(tmp_path, summary["best_round"], capsys)


def check_open_set(folder: Path, best: int, capsys: pytest.CaptureFixture) -> None:
    """Checks the threshold from validation persons: saved with the last round, printed with its error rates."""
    saved = json.loads((folder / "inspection.json").read_text())
    threshold = saved["thresholds"]["global"]
    assert threshold["clients"] == len(SEEN) and 0 < threshold["value"] < 1
    assert fedreid_pl.load(folder).threshold == threshold["value"]
    assert fedreid_pl.load(folder, best).threshold == (threshold["value"] if best == saved["round"] else None)
    capsys.readouterr()
    assert main(["evaluate", f"run={folder}", "rerank=true"]) == 0
    _, scores, said, table, last = capsys.readouterr().out.split("\n\n")
    assert said.startswith("Open-set measures.")
    assert f"threshold of the global model: cosine similarity {threshold['value']:.4f} (1% false alarms" in last
    header, *lines = rows(table)
    assert header[-2:] == ["false alarms", "identified"]
    for line in lines:
        entry = saved["tests"][line[1]]["open_set"]["global"]
        assert line[2:] == [f"{100 * value:.1f}" for name, value in entry.items() if name not in ("queries", "gallery")]
    assert rows(scores)[0][-2:] == ["global re-ranked R1", "global re-ranked mAP"]


def test_the_record_of_the_data_is_saved_and_checked_at_a_resume(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_root, root)
    summary = train(root, folder, "fedpav", "rounds=1")
    splits = json.loads((folder / "splits.json").read_text())
    assert list(splits) == [*support.TINY, "mini-cuhk02", "data.root"]
    del splits["data.root"]  # not a dataset in the folder
    for name in support.TINY:
        folders = (("train", "bounding_box_train"), ("query", "query"), ("gallery", "bounding_box_test"))
        for split, images in folders:
            assert splits[name][split] == len(list((root / name / images).glob("*.jpg")))
        assert splits[name]["layout"] == "market1501"
    assert summary["data_digest"] == {name: entry["sha256"] for name, entry in splits.items()}
    moved = root.rename(tmp_path / "moved")
    again = train(moved, folder, "fedpav", "rounds=2")
    assert again["data_digest"] == summary["data_digest"] and again["rounds"] == 2
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    next((moved / support.TINY[1] / "bounding_box_test").iterdir()).unlink()
    capsys.readouterr()
    assert main(["train", "exp=fedpav", *support.quick(moved, folder, "rounds=3")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: data.root={moved}: the pictures of {support.TINY[1]} have changed") and (
        "\n" not in said
    )
    assert {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()} == before
    assert main(["evaluate", f"run={folder}", f"data.root={moved}"]) == 0
    assert f"warning: {support.TINY[1]} has another split than in training" in capsys.readouterr().err


def test_a_global_model_on_an_unseen_dataset(unseen: Path, fedpav: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in fedpav.rglob("*")}
    for data, name in (("grid", "GRID"), ("caviar", "CAVIAR4REID")):
        assert main(["evaluate", f"run={fedpav}", f"data={data}", f"data.root={unseen}", "data.single_shot=4"]) == 0
        title, table, *_ = capsys.readouterr().out.split("\n\n")
        assert title.startswith("fedpav on minireid (synthetic data), seed 0, after round 2 of 2")
        assert title.endswith(f"tested on {data}")
        header, line = rows(table)
        assert header[:6] == ["model", "test set", "Rank-1", "Rank-5", "Rank-10", "mAP"]
        assert header[6:] == ["single-shot R1", "single-shot R5", "single-shot R10"]
        assert line[:2] == ["global", name] and all(0 <= float(cell) <= 100 for cell in line[2:])
    assert {path: path.stat().st_mtime_ns for path in fedpav.rglob("*")} == before, "evaluation writes no file"


def test_splits_are_averaged(unseen: Path, fedpav: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["evaluate", f"run={fedpav}", "data=caviar", f"data.root={unseen}"]
    single = []
    for split in range(3):
        assert main([*words, f"data.split={split}"]) == 0
        single.append([float(cell) for cell in rows(capsys.readouterr().out)[1][2:]])
    assert main([*words, "splits=3"]) == 0
    printed = capsys.readouterr().out
    assert "tested on caviar, splits 0 to 2" in printed
    _, line = rows(printed)
    for cell, values in zip(line[2:], zip(*single, strict=True), strict=True):
        mean, deviation = (float(part) for part in cell.split(" ± "))
        assert mean == pytest.approx(sum(values) / 3, abs=0.11)
        squares = sum((value - sum(values) / 3) ** 2 for value in values)
        assert deviation == pytest.approx((squares / 2) ** 0.5, abs=0.11)
    assert len({tuple(values) for values in single}) > 1


# no server model, a model per cluster, local BatchNorm
@pytest.mark.parametrize(
    ("exp", "word"), [("local", ""), ("fedpav_cc", ""), ("fedpav", "callbacks.backbone_sync.batch_norm=local")]
)
def test_every_other_model_has_a_row(
    exp: str, word: str, unseen: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train(tiny_root, tmp_path, exp, *([word] if word else []))
    capsys.readouterr()
    assert main(["evaluate", f"run={tmp_path}", "data=caviar", f"data.root={unseen}"]) == 0
    _, *lines = rows(capsys.readouterr().out)
    assert all(line[1] == "CAVIAR4REID" and len(line) == 6 for line in lines)
    names = [line[0] for line in lines]
    if exp == "fedpav_cc":
        assert names and all(name.startswith("cluster-mini-") for name in names)
    else:
        assert names == list(support.TINY)
        assert len({tuple(line[2:]) for line in lines}) > 1, "the three models differ"


def test_the_same_scores_as_on_a_clients_own_data(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A renamed dataset counts as unseen; the model's scores on it equal those under the original name."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "renamed").symlink_to(tiny_root / SEEN[0])
    for exp, model in (("fedpav", "global"), ("local", SEEN[0])):
        summary = train(tiny_root, tmp_path / exp, exp)
        capsys.readouterr()
        words = [f"data.root={root}", "data.datasets=[renamed=renamed]", "data.public=null"]
        assert main(["evaluate", f"run={tmp_path / exp}", *words]) == 0
        line = next(line for line in rows(capsys.readouterr().out) if line[0] == model)
        scores = summary["global" if exp == "fedpav" else "local"][SEEN[0]]
        assert line[1:] == [
            "renamed",
            *(f"{100 * scores[metric]['last']:.1f}" for metric in ("rank1", "rank5", "rank10", "mAP")),
        ]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["splits=3"], "the run was trained on mini-market1501"),
        (["splits=1"], "splits=1: give the number of splits, 2 to 1000"),
        (["splits=ten"], "splits=ten: give the number of splits"),
        (["data=grid"], "data.root"),
        (["batch_size=8"], "batch_size=8: evaluate evaluates a trained run"),
        (["data=market_layout", "data.datasets=[renamed=renamed]", "splits=2"], "renamed has only one split"),
        (["data=market_layout", "data.root=/nowhere"], "/nowhere"),
    ],
)
def test_evaluations_that_are_not_possible_are_refused(
    words: list[str], hint: str, tiny_root: Path, tmp_path: Path, fedpav: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "renamed").symlink_to(tiny_root / SEEN[0])
    if "data=market_layout" in words and "data.root=/nowhere" not in words:
        words = [*words, f"data.root={tmp_path}"]
    assert main(["evaluate", f"run={fedpav}", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert hint in said and "\n" not in said


def test_unmatched_queries_count_if_they_are_included(
    tiny_root: Path, tmp_path: Path, fedpav: Path, capsys: pytest.CaptureFixture
) -> None:
    """Every second query has no match; including these queries halves the score, excluding them hardly changes it."""
    name = SEEN[1]
    shutil.copytree(tiny_root / name, tmp_path / name)
    persons = sorted({path.name.split("_")[0] for path in (tmp_path / name / "query").iterdir()})
    lost = persons[::2]
    for path in (tmp_path / name / "bounding_box_test").iterdir():
        if path.name.split("_")[0] in lost:
            path.unlink()
    printed = []
    for word in ("data.keep_unmatched=false", "data.keep_unmatched=true"):
        options = [f"data.root={tmp_path}", f"data.datasets=[{name}]", "data.public=null", word]
        assert main(["evaluate", f"run={fedpav}", *options]) == 0
        printed.append(float(rows(capsys.readouterr().out)[1][2]))
    queries = [path.name.split("_")[0] for path in (tmp_path / name / "query").iterdir()]
    share = sum(person not in lost for person in queries) / len(queries)
    assert 0 < share < 1 and printed[0] > 0
    assert printed[1] == pytest.approx(printed[0] * share, abs=0.11)
