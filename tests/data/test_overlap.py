"""Images and persons in two places are found, counted, recorded and refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedreid_pl.config import DataConfig
from fedreid_pl.data import file_digests
from fedreid_pl.data.check import check_data
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError
from fedreid_pl.reporting.run_folder import write_splits
from fedreid_pl.reporting.summary_file import read_splits

PARTS = {"bounding_box_train": (1, 2, 3), "query": (5, 6), "bounding_box_test": (5, 6)}


def draw(path: Path, *key: int, format: str = "PNG") -> None:
    pixels = np.random.default_rng(key).integers(0, 256, (8, 4), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format)


def dataset(root: Path, name: str, number: int) -> Path:
    """Creates a dataset of two cameras with queries in camera 1 and matches in camera 2; all images differ."""
    for place, (folder, persons) in enumerate(PARTS.items()):
        for person in persons:
            for camera in {0: (1, 2), 1: (1,), 2: (2,)}[place]:
                draw(root / name / folder / f"{person:04d}_c{camera}_{place}.png", number, place, person, camera)
    return root / name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dataset(tmp_path / "data", "one", 1)
    dataset(tmp_path / "data", "two", 2)
    return tmp_path / "data"


def config(root: Path, **options) -> DataConfig:
    return DataConfig(root=str(root), layout="auto", cache_dir=str(root.parent / "cache"), **options)


def copy(root: Path, source: str, target: str) -> None:
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    (root / target).write_bytes((root / source).read_bytes())


TRAIN, QUERY, GALLERY = ("bounding_box_train/0001_c1_0.png", "query/0005_c1_1.png", "bounding_box_test/0005_c2_2.png")


def test_separate_datasets_have_no_overlap(root):
    data = load_federated_data(config(root, overlap="refuse"))
    assert (data.overlaps, data.remarks) == ((), ())


@pytest.mark.parametrize(
    ("source", "target", "where", "of"),
    [
        (f"one/{TRAIN}", f"two/{TRAIN}", ("client1 train", "client2 train"), 6),
        (f"one/{TRAIN}", f"two/{GALLERY}", ("client2 gallery", "client1 train"), 2),
        (f"one/{QUERY}", f"one/{GALLERY}", ("client1 query", "client1 gallery"), 2),
        (f"one/{TRAIN}", f"one/{GALLERY}", ("client1 gallery", "client1 train"), 2),
        (f"one/{TRAIN}", f"one/{QUERY}", ("client1 query", "client1 train"), 2),
    ],
)
def test_one_image_in_two_places(root, source, target, where, of):
    copy(root, source, target)
    found = load_federated_data(config(root, overlap="warn"))
    (item,) = found.overlaps
    assert (item.what, item.where, item.count, item.of) == ("bytes", where, 1, of)
    inside = {path.partition("/")[2] for path in (source, target)}
    assert set(item.examples[0].split(" = ")) == inside
    assert any("byte for byte" in line and item.examples[0] in line for line in found.remarks)
    with pytest.raises(FedReIDError, match=r"data\.overlap=refuse: 1 of the"):
        load_federated_data(config(root, overlap="refuse"))
    if item.serious:
        with pytest.raises(FedReIDError, match=r"data\.overlap=auto: 1 of the .*data\.overlap=warn to train with them"):
            load_federated_data(config(root))
    else:
        assert load_federated_data(config(root)).overlaps == found.overlaps
    assert item.serious == (where[0].split()[0] == where[1].split()[0] and where[1].endswith("train"))


def test_query_and_gallery_of_one_camera_may_share_an_image(root):
    copy(root, f"one/{QUERY}", "one/bounding_box_test/0005_c1_9.png")
    assert load_federated_data(config(root)).overlaps == ()


def test_the_public_set_may_not_contain_test_images(root):
    copy(root, f"two/{TRAIN}", f"one/{GALLERY}")
    data = load_federated_data(config(root, datasets=["one"], public="two"))
    assert [item.where for item in data.overlaps] == [("client1 gallery", "the public set public")]


def test_clients_of_one_dataset(root):
    copy(root, "one/bounding_box_train/0001_c1_0.png", "one/bounding_box_train/0002_c2_0.png")
    copy(root, "one/bounding_box_train/0001_c1_0.png", "one/bounding_box_train/0001_c1_9.png")
    chosen = config(root, datasets=["one"])
    assert load_federated_data(chosen).overlaps == ()
    data = load_federated_data(config(root, datasets=["one"], scenario="by_camera"))
    assert [(item.where, item.count) for item in data.overlaps] == [(("client1-cam1 train", "client1-cam2 train"), 2)]


def test_persons_with_the_same_numbers(root):
    draw(root / "one" / "bounding_box_train" / "0005_c1_7.png", 99)
    (item,) = load_federated_data(config(root)).overlaps
    assert (item.what, item.count, item.of, item.examples) == ("persons", 1, 2, ("5",))
    assert "make sure that they are different people" in str(item)


def test_splits_json_records_overlaps_and_folders(root, tmp_path):
    copy(root, f"one/{TRAIN}", f"two/{TRAIN}")
    (root / "odd").mkdir()
    data = load_federated_data(config(root))
    write_splits(tmp_path, data.digests, data.datasets, data.overlaps, data.unread_folders)
    recorded = json.loads((tmp_path / "splits.json").read_text())["data.root"]
    (item,) = recorded["overlaps"]
    assert (item["where"], item["count"]) == (["client1 train", "client2 train"], 1)
    assert len(recorded["unread_folders"]) == 1 and str(root / "odd") in recorded["unread_folders"][0]
    assert list(read_splits(tmp_path)) == ["client1", "client2"]


def test_data_check_compares_pixels(root):
    draw(root / "one" / "bounding_box_test" / "0006_c2_8.bmp", 1, 0, 1, 1, format="BMP")  # the first training picture
    assert load_federated_data(config(root)).overlaps == ()
    check = check_data(config(root))
    (item,) = check.overlaps
    assert (item.what, item.where, item.count) == ("pixels", ("client1 gallery", "client1 train"), 1)
    assert not check.ok and "after decoding" in check.problem
    assert check.as_dict()["overlaps"][0]["examples"] == ("bounding_box_test/0006_c2_8.bmp = " + TRAIN,)


def test_hashes_are_cached_by_size_and_time(tmp_path, monkeypatch):
    files = [str(tmp_path / name) for name in "abcde"]
    for number, file in enumerate(files[:4]):
        Path(file).write_bytes(b"" if number == 3 else bytes([number]))
        os.utime(file, (time.time() - 3600,) * 2)
    real, hashed = file_digests._digest, []
    monkeypatch.setattr(file_digests, "_digest", lambda file: hashed.append(file) or real(file))
    first = file_digests.file_digests(files, tmp_path / "cache")
    assert hashed == files[:3]
    assert not first[3:].any() and first[:3].any(1).all()
    assert np.array_equal(file_digests.file_digests(files, tmp_path / "cache"), first) and len(hashed) == 3
    Path(files[1]).write_bytes(b"new")
    again = file_digests.file_digests(files, tmp_path / "cache")
    assert hashed[3:] == [files[1]] and (again[1] != first[1]).any() and np.array_equal(again[0], first[0])
    next((tmp_path / "cache" / "digests").iterdir()).write_bytes(b"damaged")
    assert np.array_equal(file_digests.file_digests(files, tmp_path / "cache"), again)
