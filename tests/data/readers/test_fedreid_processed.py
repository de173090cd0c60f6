"""The reader of FedReID's processed folders, on folders in the format of its scripts."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fedreid_pl.data.readers.fedreid_processed import LAYOUT
from fedreid_pl.data.readers.layout import ReadOptions
from fedreid_pl.data.readers.picture_files import ENDINGS
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN
from fedreid_pl.errors import FedReIDError

MARKET = [
    "train_all/0002/0002_c1s1_000451_03.jpg",
    "train_all/0002/0002_c12s1_000301_01.jpg",
    "train_all/0010/0010_c6s3_077192_01.jpg",
    "train/0002/0002_c12s1_000301_01.jpg",
    "val/0002/0002_c1s1_000451_03.jpg",
    "val/0010/0010_c6s3_077192_01.jpg",
    "query/0001/0001_c1s1_001051_00.jpg",
    "gallery/-1/-1_c1s1_000401_03.jpg",
    "gallery/0000/0000_c1s1_000151_01.jpg",
    "gallery/0001/0001_c3s1_000551_00.jpg",
    "multi-query/0001/0001_c1s1_001051_01.jpg",
]
SMALL = [
    "train_all/10/cam_0_00010_00000.png",
    "train_all/10/cam_1_00010_00000.png",
    "train_all/2/cam_12_00002_00001.png",
    "query/0/cam_0_00000_00000.png",
    "gallery/0/cam_1_00000_00000.png",
    "gallery/3/cam_1_00003_00000.png",
]


def write(root: Path, names, below="pytorch") -> Path:
    stream = BytesIO()
    Image.new("RGB", (2, 4), (9, 30, 200)).save(stream, "PNG")
    for name in names:
        path = root / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue() if "." + name.rpartition(".")[2] in ENDINGS else b"text")
    return root


def read(root: Path, **options):
    return LAYOUT.read(root, "set", ReadOptions(**options))


def rows_of(table):
    columns = (table.paths, table.identities.tolist(), table.cameras.tolist(), table.splits.tolist())
    return list(zip(*columns, strict=True))


def message(root: Path, **options) -> str:
    with pytest.raises(FedReIDError) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_large_set_by_hand(tmp_path):
    assert rows_of(read(write(tmp_path / "0009_c4", MARKET))) == [
        ("pytorch/train_all/0002/0002_c12s1_000301_01.jpg", 2, 12, TRAIN),
        ("pytorch/train_all/0002/0002_c1s1_000451_03.jpg", 2, 1, TRAIN),
        ("pytorch/train_all/0010/0010_c6s3_077192_01.jpg", 10, 6, TRAIN),
        ("pytorch/query/0001/0001_c1s1_001051_00.jpg", 1, 1, QUERY),
        ("pytorch/gallery/-1/-1_c1s1_000401_03.jpg", JUNK, 1, GALLERY),
        ("pytorch/gallery/0000/0000_c1s1_000151_01.jpg", DISTRACTOR, 1, GALLERY),
        ("pytorch/gallery/0001/0001_c3s1_000551_00.jpg", 1, 3, GALLERY),
    ]


def test_a_small_set_by_hand(tmp_path):
    """Numbers are unpadded, cameras may have two digits, and 0 is a person."""
    assert rows_of(read(write(tmp_path, SMALL))) == [
        ("pytorch/train_all/10/cam_0_00010_00000.png", 10, 0, TRAIN),
        ("pytorch/train_all/10/cam_1_00010_00000.png", 10, 1, TRAIN),
        ("pytorch/train_all/2/cam_12_00002_00001.png", 2, 12, TRAIN),
        ("pytorch/query/0/cam_0_00000_00000.png", 0, 0, QUERY),
        ("pytorch/gallery/0/cam_1_00000_00000.png", 0, 1, GALLERY),
        ("pytorch/gallery/3/cam_1_00003_00000.png", 3, 1, GALLERY),
    ]


def test_the_folder_itself_may_be_named(tmp_path):
    whole = read(write(tmp_path, MARKET))
    inner = read(tmp_path / "pytorch")
    assert [f"pytorch/{path}" for path in inner.paths] == list(whole.paths)
    assert inner.files() == whole.files() and inner.identities.tolist() == whole.identities.tolist()


def test_train_and_val_are_train_all(tmp_path):
    with_all = read(write(tmp_path / "a", MARKET), train_only=True)
    without = read(write(tmp_path / "b", [name for name in MARKET if "train_all" not in name]), train_only=True)

    def content(table):
        names = [Path(path).name for path in table.paths]
        return sorted(zip(names, table.identities.tolist(), table.cameras.tolist(), strict=True))

    assert content(with_all) == content(without)


def test_train_without_val(tmp_path):
    table = read(write(tmp_path, ["train/0002/0002_c1_1.jpg", "train/0003/0003_c1_1.jpg"]), train_only=True)
    assert table.identities.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("query", "gallery", "expected"),
    [
        ("query/0001/0001_c1.jpg", "gallery/0000/0000_c2.jpg", DISTRACTOR),
        ("query/0000/0000_c1.jpg", "gallery/0000/0000_c2.jpg", 0),  # MSMT17 numbers persons from 0
        ("query/1/cam_0_00001_00000.png", "gallery/0/cam_1_00000_00000.png", 0),  # a gallery person without a query
    ],
)
def test_person_zero(tmp_path, query, gallery, expected):
    root = write(tmp_path, [query.replace("query", "train_all"), query, gallery])
    assert read(root).split("gallery").identities.tolist() == [expected]


def test_person_zero_of_the_training_folder_is_a_person(tmp_path):
    root = write(tmp_path, [*MARKET, "train_all/0000/0000_c1_0.jpg"])
    assert 0 in read(root).split("train").identities.tolist()


def test_the_public_set_has_only_training_images(tmp_path):
    root = write(tmp_path, [name for name in SMALL if name.startswith("train_all")])
    assert read(root, train_only=True).identities.tolist() == [10, 10, 2]
    assert f"{root / 'pytorch' / 'query'}: no such folder; expected " in message(root)


def test_hidden_files_folders_named_like_images_and_other_files(tmp_path):
    more = ["._0001_c3.jpg", "0001_c5.jpg/x.txt", "Thumbs.db", "0001_c4.mat"]
    root = write(tmp_path, MARKET + [f"gallery/0001/{name}" for name in more])
    write(root, ["gallery/.hidden/0001_c3.jpg", "gallery/0005/readme.txt", "gallery/imgs.json"])
    assert rows_of(read(root)) == rows_of(read(write(tmp_path / "plain", MARKET)))


@pytest.mark.parametrize("image", ["IMG_0001.jpg", "0001_5.jpg", "1.png"])
def test_a_name_without_camera(tmp_path, image):
    root = write(tmp_path, [*MARKET, f"query/0001/{image}"])
    assert f"{root / 'pytorch/query/0001' / image}: the name contains no camera" in message(root)


@pytest.mark.parametrize("person", ["anna", "-2", "1a", "1.0", "٣", "9" * 30])
def test_a_folder_that_is_not_a_person(tmp_path, person):
    root = write(tmp_path, [*MARKET, f"query/{person}/0001_c1.jpg"])
    assert f"{root / 'pytorch/query' / person}: the folder's name is not a person's number" in message(root)


def test_two_folders_with_the_same_number(tmp_path):
    root = write(tmp_path, [*MARKET, "query/1/0001_c2.jpg"])
    assert f"{root / 'pytorch/query'}: the folders 0001 and 1 are one number" in message(root)


def test_images_outside_of_persons_folders(tmp_path):
    root = write(tmp_path, ["train_all/0002_c1s1_000451_03.jpg"])
    assert f"{root / 'pytorch/train_all'}: contains no image in a folder of its person" in message(root)
