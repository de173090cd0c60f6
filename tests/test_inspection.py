"""The inspection of a real run, compared with metrics.csv and the dataset."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from PIL import Image

from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError
from fedreid_pl.inspection.choice import LIST, PER_IDENTITY, POINTS, RankedList, choose_lists
from fedreid_pl.inspection.observer import check_report
from fedreid_pl.metrics.retrieval import RankedSets
from fedreid_pl.reporting.inspection import read_inspection, without_images, write_inspection


def last_scores(folder: Path, section: str) -> dict[tuple[str, str], float]:
    with open(folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["section"] == section]
    last = max(int(row["round"]) for row in rows)
    return {(row["name"], row["metric"]): float(row["value"]) for row in rows if int(row["round"]) == last}


@pytest.fixture(scope="module")
def run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspected") / "run"
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, folder, "report.queries=4")]) == 0
    return folder


@pytest.fixture(scope="module")
def content(run: Path) -> dict[str, Any]:
    found = read_inspection(run)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def data(tiny_root: Path) -> FederatedData:
    return load_federated_data(compose(support.quick(tiny_root, Path("unused"))).data)


def test_curves_contain_the_last_rounds_scores_of_every_model(run: Path, content: dict[str, Any]) -> None:
    glob, local = last_scores(run, "global"), last_scores(run, "local")
    for test in support.TINY:
        entry = content["tests"][test]
        assert set(entry["cmcs"]) == {"global", test}, "the server's model and the client's model"
        assert entry["model"] == "global" and entry["cmc"] == entry["cmcs"]["global"]
        for scores, curve in ((glob, entry["cmc"]), (local, entry["cmcs"][test])):
            assert [curve[k - 1] for k in (1, 5, 10)] == [scores[test, f"rank{k}"] for k in (1, 5, 10)]
            assert len(curve) == 50 and curve == sorted(curve)
    assert content["round"] == 2


def test_the_mean_of_the_persons_scores_is_the_last_rounds_score(
    run: Path, content: dict[str, Any], data: FederatedData
) -> None:
    scores = {"global": last_scores(run, "global"), "local": last_scores(run, "local")}
    for test, entry in content["tests"].items():
        assert set(entry["persons"]) == {"global", test}
        for model, persons in entry["persons"].items():
            assert len(persons["queries"]) == len(set(data.tests[test].query.identities.tolist()))
            for metric in ("rank1", "mAP"):
                mean = np.average(persons[metric], weights=persons["queries"])
                expected = scores["global" if model == "global" else "local"][test, metric]
                assert mean == pytest.approx(expected, abs=1e-6)


def test_a_resumed_run_has_the_inspection_of_an_uninterrupted_one(
    tiny_root: Path, tmp_path: Path, content: dict[str, Any]
) -> None:
    words = support.quick(tiny_root, tmp_path / "run", "report.queries=4")
    for rounds in (1, 2):
        assert main(["train", "exp=fedpav", *words, f"rounds={rounds}"]) == 0
    assert read_inspection(tmp_path / "run") == content


def test_lists_show_the_hardest_and_randomly_drawn_queries(content: dict[str, Any]) -> None:
    for entry in content["tests"].values():
        hard = [one["average_precision"] for one in entry["ranked"] if one["hardest"]]
        others = [one["average_precision"] for one in entry["ranked"] if not one["hardest"]]
        assert len(hard) == len(others) == 2 and max(hard) <= min(others)
        for one in entry["ranked"]:
            query, gallery = one["query"], one["gallery"]
            assert 0 < len(gallery) <= LIST
            scores = [image["score"] for image in gallery]
            assert scores == sorted(scores, reverse=True)
            for image in gallery:
                assert image["correct"] == (image["identity"] == query["identity"])
                assert not image["correct"] or image["camera"] != query["camera"]


def test_thumbnails_show_the_images_that_the_columns_describe(
    run: Path, content: dict[str, Any], data: FederatedData
) -> None:
    names = set()
    for test, entry in content["tests"].items():
        for one in entry["ranked"]:
            for side, image in [("query", one["query"]), *(("gallery", image) for image in one["gallery"])]:
                names.add(image["image"])
                table, row = getattr(data.tests[test], side), int(Path(image["image"]).stem.rpartition("-")[2])
                assert (table.identities[row], table.cameras[row]) == (image["identity"], image["camera"])
                shown = np.asarray(Image.open(run / image["image"]))
                source = np.asarray(Image.open(table.files()[row]).convert("RGB").resize((32, 64)))
                assert shown.shape == (64, 32, 3)
                assert np.abs(shown.astype(int) - source).mean() < 8, "a JPEG of the same image"
    assert names == {f"images/{path.name}" for path in (run / "images").iterdir()}


def test_confusions_count_wrong_first_ranks(run: Path, content: dict[str, Any], data: FederatedData) -> None:
    scores = last_scores(run, "global")
    for test, entry in content["tests"].items():
        wrong = round((1 - scores[test, "rank1"]) * scores[test, "queries"])
        counts = [pair["count"] for pair in entry["confusions"]]
        assert counts == sorted(counts, reverse=True)
        assert sum(counts) == wrong if len(counts) < 10 else sum(counts) <= wrong
        for pair in entry["confusions"]:
            assert pair["identity"] != pair["mistaken_for"]
            assert pair["identity"] in data.tests[test].query.identities
            assert pair["mistaken_for"] in data.tests[test].gallery.identities


def test_the_embedding_is_bounded_and_changes_with_training(content: dict[str, Any]) -> None:
    points = content["embedding"]["points"]
    for test in support.TINY:
        own = [point["identity"] for point in points if point["test"] == test]
        assert 0 < len(own) <= POINTS and max(own.count(identity) for identity in own) <= PER_IDENTITY
    assert [point["before"] for point in points] != [point["after"] for point in points]
    assert content["embedding"]["method"] == "PCA" and 0 < content["embedding"]["explained"]["after"] <= 1


def test_without_images_no_data_of_single_images_are_written(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path / "run", "report.images=false")
    assert main(["train", "exp=local", *words]) == 0
    text = (tmp_path / "run" / "inspection.json").read_text()
    assert not (tmp_path / "run" / "images").exists()
    for word in ("identity", "camera", "score", "jpg", "point"):
        assert word not in text
    content = json.loads(text)
    assert content["embedding"] is None and content["images"] is False
    for test, entry in content["tests"].items():
        assert entry["ranked"] == entry["confusions"] == [] and entry["model"] == test
        assert entry["cmc"][0] == last_scores(tmp_path / "run", "local")[test, "rank1"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["data=minireid"], True),
        (["data=minireid", "report.images=false"], False),
        (["data=fedreidbench"], False),
        (["data=fedreidbench", "report.images=true"], True),
    ],
)
def test_real_images_are_shown_only_on_request(words: list[str], shown: bool) -> None:
    from fedreid_pl.reporting.inspection import shows_images

    assert shows_images(compose(words)) is shown


def test_a_failing_inspection_gives_a_warning_and_skips_its_test_set(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fails(sets: RankedSets, count: int, draws: torch.Generator) -> list[RankedList]:
        if len(sets.query) == sizes["mini-viper"]:
            raise MemoryError("no memory left")
        return choose_lists(sets, count, draws)

    words = support.quick(tiny_root, tmp_path / "run", "rounds=1")
    tests = load_federated_data(compose(words).data).tests
    sizes = {name: len(test.query) for name, test in tests.items()}
    assert len(set(sizes.values())) == len(sizes)
    monkeypatch.setattr("fedreid_pl.inspection.look.choose_lists", fails)
    assert main(["train", "exp=fedpav", *words]) == 0
    assert "inspection.json is not complete (mini-viper: MemoryError: no memory left)" in capsys.readouterr().err
    content = read_inspection(tmp_path / "run")
    assert content is not None and set(content["tests"]) == set(support.TINY) - {"mini-viper"}
    assert "mini-ilids" in (tmp_path / "run" / "report.html").read_text()


def test_a_report_that_cannot_be_written_gives_a_warning(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "run" / "report.html" / "in the way").mkdir(parents=True)
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "run", "rounds=1")]) == 0
    said = capsys.readouterr().err
    assert "report.html was not written" in said and "fedreid-pl report" in said
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["complete"]


def test_images_are_removed_after_they_are_disabled(tmp_path: Path, content: dict[str, Any]) -> None:
    write_inspection(tmp_path, content, {"a.jpg": b"1", "b.jpg": b"2"})
    write_inspection(tmp_path, content, {"c.jpg": b"3"})
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["c.jpg"]
    write_inspection(tmp_path, without_images(content), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inspection.json"]
    assert read_inspection(tmp_path) == without_images(content)


HEAD = '"round": 1, "images": false, "embedding": null'


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 1, "tests": {}}']
    + [f'{{"version": {n}, {HEAD}, "tests": {tests}}}' for n, tests in ((2, "{}"), (1, '{"a": 3}'), (1, '{"a": {}}'))],
)
def test_an_invalid_inspection_is_refused(tmp_path: Path, text: str) -> None:
    assert read_inspection(tmp_path) is None
    (tmp_path / "inspection.json").write_text(text)
    with pytest.raises(FedReIDError, match=r"inspection\.json: has another format than a run writes"):
        read_inspection(tmp_path)


def test_tsne_without_scikit_learn_gives_one_error_line(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["report.embedding=tsne"])
    check_report(config)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FedReIDError, match=r"report.embedding=tsne: install scikit-learn"):
        check_report(config)
