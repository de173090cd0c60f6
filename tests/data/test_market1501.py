"""The reader of Market-1501's layout, on folders as in the distributed datasets."""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedreid_pl.data.readers.market1501 import is_market1501, read_market1501
from fedreid_pl.data.readers.picture_files import ENDINGS
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN
from fedreid_pl.errors import FedReIDError

TRAIN_FOLDER, GALLERY_FOLDER, QUERY_FOLDER = "bounding_box_train", "bounding_box_test", "query"

MARKET = {
    TRAIN_FOLDER: ["0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg", "0007_c6s3_077192_01.jpg"],
    GALLERY_FOLDER: ["-1_c1s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0001_c3s1_000551_00.jpg"],
    QUERY_FOLDER: ["0001_c1s1_001051_00.jpg", "0003_c2s1_000776_00.jpg"],
}


def jpeg() -> bytes:
    stream = BytesIO()
    Image.new("RGB", (4, 8), (200, 30, 90)).save(stream, "JPEG")
    return stream.getvalue()


JPEG = jpeg()


def write(root: Path, folders=MARKET, **changes) -> Path:
    """Creates a dataset with the given names per folder; `changes` replace folders, `None` removes one."""
    for folder, names in {**folders, **changes}.items():
        if names is not None:
            (root / folder).mkdir(parents=True)
            for name in names:
                (root / folder / name).write_bytes(JPEG if name.lower().endswith(ENDINGS) else b"text")
    return root


def rows_of(table):
    columns = (table.paths, table.identities.tolist(), table.cameras.tolist(), table.splits.tolist())
    return list(zip(*columns, strict=True))


def message(root, **options) -> str:
    with pytest.raises(FedReIDError) as caught:
        read_market1501(root, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_market1501_by_hand(tmp_path):
    table = read_market1501(write(tmp_path / "Market-1501-v15.09.15"))
    assert table.name == "Market-1501-v15.09.15"
    assert sorted(rows_of(table)) == sorted(
        [
            ("bounding_box_train/0002_c1s1_000451_03.jpg", 2, 1, TRAIN),
            ("bounding_box_train/0002_c2s1_000301_01.jpg", 2, 2, TRAIN),
            ("bounding_box_train/0007_c6s3_077192_01.jpg", 7, 6, TRAIN),
            ("bounding_box_test/-1_c1s1_000401_03.jpg", JUNK, 1, GALLERY),
            ("bounding_box_test/0000_c1s1_000151_01.jpg", DISTRACTOR, 1, GALLERY),
            ("bounding_box_test/0001_c3s1_000551_00.jpg", 1, 3, GALLERY),
            ("query/0001_c1s1_001051_00.jpg", 1, 1, QUERY),
            ("query/0003_c2s1_000776_00.jpg", 3, 2, QUERY),
        ]
    )
    assert all(os.path.isfile(file) for file in table.files())
    assert (table.identities.dtype, table.cameras.dtype, table.splits.dtype) == (np.int64, np.int64, np.uint8)


def test_name_can_be_given(tmp_path):
    assert read_market1501(write(tmp_path / "folder"), "market").name == "market"


def test_person_zero_of_the_training_folder_is_a_person(tmp_path):
    root = write(tmp_path, **{TRAIN_FOLDER: ["0000_c1_0000.jpg", "0000_c2_0001.jpg", "0001_c1_0000.jpg"]})
    train = read_market1501(root).split("train")
    assert train.identities.tolist() == [0, 0, 1]
    assert train.labels().tolist() == [0, 0, 1]
    assert train.num_identities() == 2


def test_person_zero_of_the_query_is_a_person_in_the_gallery_too(tmp_path):
    """MSMT17, converted to this layout, numbers its test persons from 0."""
    root = write(
        tmp_path,
        **{
            GALLERY_FOLDER: ["-1_c1_0000.jpg", "0000_c12_0003.jpg", "0001_c3_0000.jpg"],
            QUERY_FOLDER: ["0000_c1_0000.jpg", "0001_c1_0000.jpg"],
        },
    )
    table = read_market1501(root)
    assert table.split("gallery").identities.tolist() == [JUNK, 0, 1]
    assert table.split("query").identities.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("file", "identity", "camera"),
    [
        ("0002_c1s1_000451_03.jpg", 2, 1),  # Market-1501
        ("0005_c2_f0046985.jpg", 5, 2),  # DukeMTMC-reID
        ("0001_c1_301.png", 1, 1),  # CUHK03-NP
        ("0117_c12s1_000001_00.jpg", 117, 12),
        ("0117_c15_0003.jpg", 117, 15),  # MSMT17, converted
        ("0117_c09_0003.jpg", 117, 9),
        ("12345_c3.bmp", 12345, 3),
        ("1_c4_c7.jpeg", 1, 4),
        ("0002_c001s1_000451_03.jpg", 2, 1),
        ("0002_c123s1.jpg", 2, 123),
        ("094_1_c9_015833.png", 94, 9),  # LTCC: person, clothes, camera
        ("0000_000_01_0303morning_0015_0.jpg", 0, 1),  # MSMT17 under its own names
        ("-1_c5s1_000401_03.jpg", JUNK, 5),
    ],
)
def test_file_names_of_public_datasets(tmp_path, file, identity, camera):
    table = read_market1501(write(tmp_path, **{TRAIN_FOLDER: [file]}), train_only=True)
    assert rows_of(table) == [(f"bounding_box_train/{file}", identity, camera, TRAIN)]


def test_folders_with_image_like_names_are_ignored(tmp_path):
    plain = read_market1501(write(tmp_path / "plain"))
    odd = read_market1501(write(tmp_path / "0099_c7s1" / "foo12_c3"))
    assert rows_of(odd) == rows_of(plain)


def test_listing_order_does_not_matter(tmp_path, monkeypatch):
    root = write(tmp_path)
    scandir = os.scandir
    tables = []
    for seed in range(6):

        def shuffled(folder, seed=seed):
            entries = list(scandir(folder))
            return nullcontext(random.Random(seed).sample(entries, len(entries)))

        monkeypatch.setattr(os, "scandir", shuffled)
        tables.append(rows_of(read_market1501(root)))
    assert all(table == tables[0] for table in tables)


def test_other_files_are_ignored_and_extensions_may_be_upper_case(tmp_path):
    names = ["0001_c1.JPG", "0002_c2.Png", "0003_c1.BMP", "0004_c1.JPEG"]
    others = ["Thumbs.db", ".DS_Store", "readme.txt", "0005_c1s1_000451_03.mat", "0006_c1jpg", "0007_c1.jpg.part"]
    root = write(tmp_path, **{TRAIN_FOLDER: names + others})
    assert read_market1501(root).split("train").identities.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "file",
    [
        "0002.jpg",
        "0002_s1_000451.jpg",
        "_c1s1.jpg",
        "0002_cs1.jpg",
        "0002_c1234s1.jpg",
        "x0002_c1s1.jpg",
        "-2_c1s1.jpg",
        "20240131_c1_0001.jpg",
    ],
)
def test_name_without_person_or_camera(tmp_path, file):
    root = write(tmp_path, **{QUERY_FOLDER: ["0001_c1s1_001051_00.jpg", file]})
    assert str(root / "query" / file) in message(root)


@pytest.mark.parametrize("folder", [TRAIN_FOLDER, GALLERY_FOLDER, QUERY_FOLDER])
def test_missing_and_empty_folders(tmp_path, folder):
    missing = write(tmp_path / "missing", **{folder: None})
    assert f"{missing / folder}: no such folder" in message(missing)
    empty = write(tmp_path / "empty", **{folder: ["readme.txt"]})
    assert f"{empty / folder}: contains no image" in message(empty)


def test_missing_root_and_a_file_in_place_of_a_folder(tmp_path):
    assert str(tmp_path / "nowhere") in message(tmp_path / "nowhere")
    root = write(tmp_path / "set", **{QUERY_FOLDER: None})
    (root / "query").write_text("")
    assert str(root / "query") in message(root)


def test_folder_without_permission(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    root = write(tmp_path)
    monkeypatch.setattr(os, "scandir", refuse)
    assert f"{root / TRAIN_FOLDER}: cannot be read (Permission denied)" in message(root)


def test_a_public_set_needs_only_its_training_folder(tmp_path):
    root = write(tmp_path, **{GALLERY_FOLDER: None, QUERY_FOLDER: [], TRAIN_FOLDER: ["-1_c1_1.jpg", "-1_c2_1.jpg"]})
    table = read_market1501(root, train_only=True)
    assert table.identities.tolist() == [JUNK, JUNK]
    assert table.num_identities() == 0


def test_recognised_by_the_training_folder(tmp_path, monkeypatch):
    assert is_market1501(write(tmp_path / "set"))
    assert not is_market1501(tmp_path / "set" / TRAIN_FOLDER)
    assert not is_market1501(tmp_path / "set" / QUERY_FOLDER / MARKET[QUERY_FOLDER][0])
    assert not is_market1501(tmp_path / "nowhere")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)  # lost+found of a mounted disk
    assert not is_market1501(tmp_path / "set")


NAMES = st.builds(
    "{:0{}d}_c{:0{}d}{}{}{}".format,
    st.integers(0, 99999),
    st.integers(1, 5),
    st.integers(0, 99),
    st.integers(1, 2),
    st.sampled_from(["", "s1_000451_03", "_f0046985", "_0000", "_c9s9", " copy"]),
    st.just("."),
    st.sampled_from(["jpg", "jpeg", "png", "bmp", "JPG", "PNG"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=8, unique_by=str.lower))
def test_generated_names(names):
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder), **{TRAIN_FOLDER: names})
        train = read_market1501(root).split("train")
        persons, expected = {}, {}
        for name in names:
            person, rest = name.split("_c", 1)
            digits = rest[:2] if rest[:2].isdigit() else rest[:1]
            expected[f"bounding_box_train/{name}"] = (int(person), int(digits))
        for label, person in enumerate(sorted({person for person, _ in expected.values()})):
            persons[person] = label
        assert len(train) == len(names)
        columns = (train.paths, train.identities.tolist(), train.cameras.tolist(), train.labels().tolist())
        for path, identity, camera, label in zip(*columns, strict=True):
            assert (identity, camera) == expected[path]
            assert label == persons[identity]
