"""The reader of one folder per person."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fedreid_pl.data.federated import TestSet
from fedreid_pl.data.readers.id_folders import LAYOUT
from fedreid_pl.data.readers.layout import ReadOptions
from fedreid_pl.data.readers.picture_files import ENDINGS
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN
from fedreid_pl.errors import FedReIDError

WITH_CAMERAS = [
    "train/12/IMG_c1_0007.jpg",
    "train/12/door_c02.png",
    "train/3/c103_0001.bmp",
    "query/0/a_c1s1.jpeg",
    "gallery/0/b_c2 (copy).JPG",
    "gallery/-1/x_c2.jpg",
]
NAMES = ["train/berta/1.jpg", "train/007/1.jpg", "query/carl/1.jpg", "gallery/carl/2.jpg", "gallery/anna/1.jpg"]


def write(root: Path, names) -> Path:
    stream = BytesIO()
    Image.new("RGB", (2, 4), (9, 30, 20)).save(stream, "PNG")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(stream.getvalue() if "." + name.rpartition(".")[2] in ENDINGS else b"text")
    return root


def read(root: Path, **options):
    return LAYOUT.read(root, "mine", ReadOptions(**options))


def rows_of(table):
    columns = (table.paths, table.identities.tolist(), table.cameras.tolist(), table.splits.tolist())
    return list(zip(*columns, strict=True))


def message(root: Path, **options) -> str:
    with pytest.raises(FedReIDError) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_numbers_and_cameras(tmp_path):
    assert rows_of(read(write(tmp_path / "set_c7", WITH_CAMERAS))) == [
        ("train/12/IMG_c1_0007.jpg", 12, 1, TRAIN),
        ("train/12/door_c02.png", 12, 2, TRAIN),
        ("train/3/c103_0001.bmp", 3, 103, TRAIN),
        ("query/0/a_c1s1.jpeg", 0, 1, QUERY),
        ("gallery/-1/x_c2.jpg", JUNK, 2, GALLERY),
        ("gallery/0/b_c2 (copy).JPG", 0, 2, GALLERY),
    ]


def test_names_without_cameras(tmp_path):
    """007, anna, berta, carl become 0 to 3; all gallery images of a person match its query."""
    table = read(write(tmp_path, NAMES))
    assert rows_of(table) == [
        ("train/007/1.jpg", 0, 0, TRAIN),
        ("train/berta/1.jpg", 2, 0, TRAIN),
        ("query/carl/1.jpg", 3, 0, QUERY),
        ("gallery/anna/1.jpg", 1, 1, GALLERY),
        ("gallery/carl/2.jpg", 3, 1, GALLERY),
    ]
    assert TestSet("mine", table.split("query"), table.split("gallery"))


def test_junk_and_distractors_by_name(tmp_path):
    root = write(tmp_path, [*NAMES, "gallery/junk/1.jpg", "gallery/distractor/1.jpg", "gallery/-1/1.jpg"])
    table = read(root)
    who = dict(zip(table.paths, table.identities.tolist(), strict=True))
    assert (who["gallery/junk/1.jpg"], who["gallery/-1/1.jpg"]) == (JUNK, JUNK)
    assert (who["gallery/distractor/1.jpg"], who["gallery/carl/2.jpg"]) == (DISTRACTOR, 3)


def test_junk_does_not_turn_numbers_into_names(tmp_path):
    root = write(tmp_path, [*WITH_CAMERAS, "gallery/junk/1_c1.jpg", "gallery/distractor/1_c1.jpg"])
    assert set(read(root).identities.tolist()) == {12, 3, 0, JUNK, DISTRACTOR}


def test_cameras_in_some_names_only(tmp_path):
    root = write(tmp_path, [*WITH_CAMERAS, "query/3/cat.jpg"])
    assert f"{root / 'query/3/cat.jpg'}: the name contains no camera" in message(root)


@pytest.mark.parametrize("image", ["cat.jpg", "x_c.jpg", "pic1.jpg", "xc1.jpg"])
def test_names_without_a_valid_camera(tmp_path, image):
    root = write(tmp_path, [f"{place}/{image}" for place in ("train/1", "query/2", "gallery/2")])
    assert read(root).cameras.tolist() == [0, 0, 1]


def test_padded_and_unpadded_names_of_one_number(tmp_path):
    root = write(tmp_path, ["train/1/1.jpg", "query/02/1.jpg", "gallery/2/1.jpg"])
    assert f"{root}: the folders 02 and 2 are one number" in message(root)


def test_training_images_only(tmp_path):
    root = write(tmp_path, WITH_CAMERAS[:3])
    assert read(root, train_only=True).identities.tolist() == [12, 12, 3]
    assert f"{root / 'query'}: no such folder; expected train, query and gallery" in message(root)


def test_an_empty_side(tmp_path):
    root = write(tmp_path, [*WITH_CAMERAS[:3], "query/1/readme.txt", "query/1_c1.jpg", "gallery/1/.hidden_c1.jpg"])
    assert f"{root / 'query'}: contains no image in a folder of its person" in message(root)
    write(root, ["query/1/1_c1.jpg"])
    assert f"{root / 'gallery'}: contains no image in a folder of its person" in message(root)


SPELLINGS = ["{p:04d}_cam{c}_{k}", "{p:04d}_C{c}_{k}", "{p:04d}-c{c}-{k}", "cam0{c}_{p:04d}_{k}", "shot{k} camera {c}"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_of_the_camera(tmp_path, spelling):
    """Persons and cameras equal those of names with `_c1_`."""
    shots = [
        (split, p, c, k) for split, p in (("train", 1), ("query", 7), ("gallery", 7)) for c in (1, 2) for k in (0, 1)
    ]
    names = [f"{split}/{p:04d}/{spelling.format(p=p, c=c, k=k)}.png" for split, p, c, k in shots]
    table = read(write(tmp_path, names))
    assert table.has_cameras
    found = {path: (who, camera) for path, who, camera, _ in rows_of(table)}
    assert found == {name: (p, c) for name, (_, p, c, _) in zip(names, shots, strict=True)}


def test_cameras_as_folders(tmp_path):
    root = write(tmp_path, ["train/1/cam1/a.jpg", "train/2/cam2/a.jpg", "query/3/cam1/a.jpg", "gallery/3/cam2/a.jpg"])
    table = read(root)
    assert [row[1:3] for row in rows_of(table)] == [(1, 1), (2, 2), (3, 1), (3, 2)] and table.has_cameras
    assert "camera from the camera's folder; train/1/cam1/a.jpg: person 1 (1), camera 1 (1)" in table.found
    write(root, ["train/1/b.jpg"])
    assert f"{root / 'train/1'}: images lie in the person's folder (b.jpg) and in a folder below it" in message(root)


def test_a_pattern_of_the_user(tmp_path):
    names = ["train/1/door-5.jpg", "query/2/gate-5.jpg", "gallery/2/door-5.jpg"]
    root = write(tmp_path, names)
    assert not read(root).has_cameras
    table = read(root, name_pattern="^(?P<camera>[a-z]+)-")
    assert table.cameras.tolist() == [1, 2, 1] and table.has_cameras
    assert "does not match" in message(root, name_pattern="(?P<camera>door)")
    assert "takes 5 for the person, the folder says 1" in message(root, name_pattern="(?P<person>[0-9])")
    assert "data.name_pattern=(: is not a regular expression" in message(root, name_pattern="(")


def test_how_cameras_were_found(tmp_path):
    assert read(write(tmp_path / "a", WITH_CAMERAS)).found == (
        "person from the folder's name, camera from the file's name; "
        "train/12/IMG_c1_0007.jpg: person 12 (12), camera 1 (c1), frame 0007"
    )
    without = read(write(tmp_path / "b", NAMES))
    assert "no camera in names; train/007/1.jpg: person 0 (007), no camera, frame 1" in without.found
    assert not without.has_cameras and not without.take([0]).has_cameras
