"""Ranked lists in wandb: sent only if allowed; the tests use an inspection made by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support
from PIL import Image
from wandb_records import assert_complete, read_back, run_file

from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.history import History
from fedreid_pl.reporting.inspection import read_inspection
from fedreid_pl.reporting.thumbnails import open_thumbnail
from fedreid_pl.reporting.wandb_media import score_table, sends_images, weight_table
from fedreid_pl.reporting.wandb_run import RoundLogger


def inspect(folder: Path) -> None:
    """Returns an inspection of two test sets, with one ranked list of three images."""
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (32, 64), (60 * number, 0, 0)).save(folder / "images" / f"{number}.jpg")
    paths = [f"images/{number}.jpg" for number in range(4)]
    gallery = [
        {"identity": 7 + number, "camera": number, "score": 0.9, "correct": number == 2, "image": paths[number]}
        for number in (1, 2, 3)
    ]
    ranked = [
        {
            "query": {"identity": 9, "camera": 5, "image": paths[0]},
            "gallery": gallery,
            "hardest": True,
            "average_precision": 0.5,
        }
    ]
    confusions = [{"identity": 9, "mistaken_for": 8, "count": 3}]
    tests: dict[str, Any] = {
        "mini-viper": {"cmc": [0.0, 1.0], "ranked": ranked, "confusions": confusions},
        "mini-ilids": {"cmc": [1.0], "ranked": [], "confusions": []},
    }
    for test in tests.values():
        test |= {"model": "global", "cmcs": {}}
    content = {"version": 1, "round": 1, "images": True, "tests": tests, "embedding": None}
    (folder / "inspection.json").write_text(json.dumps(content))


def logged(root: Path, folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Returns the media of a run's last round with the inspection made by hand."""
    hand_made = read_inspection(folder.parent)
    monkeypatch.setattr("fedreid_pl.reporting.wandb_media.read_inspection", lambda _: hand_made)
    pictures = lambda place, name: open_thumbnail(place.parent, name)  # noqa: E731
    monkeypatch.setattr("fedreid_pl.reporting.wandb_media.open_thumbnail", pictures)
    quick = support.quick(root, folder, "exp=fedpav", "logger=wandb", "rounds=1", *words)
    assert main(["train", *quick]) == 0
    assert_complete(folder)
    return read_back(folder)[1]


def test_pictures_and_confusions_of_synthetic_data(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect(tmp_path)
    last = logged(tiny_root, tmp_path / "run", monkeypatch=monkeypatch)
    assert last["ranked/mini-viper/_type"] == "images/separated" and last["ranked/mini-viper/count"] == 1
    (caption,) = last["ranked/mini-viper/captions"]
    assert caption == "person 9, camera 5; first hit at rank 2, AP 50.0; gallery cameras 1 2 3"
    assert not [key for key in last if key.startswith("ranked/mini-ilids")]
    assert last["tables/confusions/nrows"] == 1
    (picture,) = (run_file(tmp_path / "run").parent / "files" / "media" / "images").rglob("*.png")
    assert Image.open(picture).height == 136


@pytest.mark.parametrize("why", ["wandb.images=false", "photographs", "photographs, called synthetic"])
def test_no_image_is_sent_without_permission(
    why: str, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the manifest of the drawing code, images count as photographs, whatever the configuration is."""
    inspect(tmp_path)
    root, words = tiny_root, [why]
    if why.startswith("photographs"):
        root = shutil.copytree(tiny_root, tmp_path / "photographs")
        (root / "manifest.json").unlink()
        words = ["data=minireid"]  # the small network with small images
        words += ["data.synthetic=true"] if "called" in why else []
    last = logged(root, tmp_path / "run", *words, monkeypatch=monkeypatch)
    assert not [key for key in last if key.startswith("ranked/") or "confusions" in key]
    assert not list((tmp_path / "run" / "wandb").rglob("*.png"))


def test_missing_images_give_a_warning_if_requested(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    logged(tiny_root, tmp_path / "run", "wandb.images=true", monkeypatch=monkeypatch)
    assert "wandb.images=true: no pictures were sent" in capsys.readouterr().err


def test_the_conditions_for_sending_images() -> None:
    assert sends_images(compose(["data=minireid"]))
    assert not sends_images(compose(["data=minireid", "wandb.images=false"]))
    real = ["data=market_layout", "data.root=/somewhere"]
    assert not sends_images(compose(real)) and sends_images(compose([*real, "wandb.images=true"]))


def test_tables_by_hand() -> None:
    history = History()
    history.add(1, "weights", "a", "weight", 0.25)
    history.add(1, "weights", "a", "cosine_distance", 0.5)
    history.add(2, "weights", "b", "weight", 1.0)
    history.add(1, "global", "viper", "rank1", 0.5)
    history.add(2, "global", "viper", "rank1", 0.75)
    table = weight_table(history)
    assert table.columns == ["round", "client", "weight", "cosine_distance", "cluster"]
    assert table.data == [[1, "a", 0.25, 0.5, None], [2, "b", 1.0, None, None]]
    scores = score_table(history)
    assert scores.columns[-5:] == ["untrained", "last", "best", "best3", "fluctuation"]
    assert scores.data[0] == ["global", "viper", "rank1", None, 0.75, 0.75, 0.625, 0.0]


def test_an_invalid_inspection_is_refused(tmp_path: Path) -> None:
    assert read_inspection(tmp_path) is None
    for text in ("", "[]", '{"version": 99, "tests": {}}', '{"version": 1, "tests": {"a": {}}}'):
        (tmp_path / "inspection.json").write_text(text)
        with pytest.raises(FedReIDError, match=r"inspection\.json: has another format than a run writes"):
            read_inspection(tmp_path)


def test_a_round_on_the_server_is_not_sent_again() -> None:
    """For a run that was online before, the server returns the next step."""
    sent: list[tuple] = []
    log = lambda values, step, commit: sent.append((step, values["round"], commit))  # noqa: E731
    logger = RoundLogger(SimpleNamespace(step=2, log=log), last=4)
    for number in range(5):
        logger.log_metrics({"global/a/rank1": 0.5}, step=number)
    assert sent == [(2, 2, True), (3, 3, True), (4, 4, False)], "the last step waits for tables and images"
