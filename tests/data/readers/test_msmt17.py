"""The reader of MSMT17's distributed layout, on small copies of its folders and lists."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedreid_pl.data.readers.layout import ReadOptions
from fedreid_pl.data.readers.msmt17 import LAYOUT
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN
from fedreid_pl.errors import FedReIDError

LISTS = {
    "train": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_003_14_0302noon_0100_2.jpg 1"],
    "val": ["0001/0001_002_09_0302noon_0090_1.jpg 1", "0000/0000_001_10_0303morning_0020_0.jpg 0"],
    "query": ["0000/0000_000_15_0113afternoon_0001_1.jpg 0", "0001/0001_000_02_0113morning_0001_1.jpg 1"],
    "gallery": ["0001/0001_001_03_0113morning_0002_0.jpg 1", "0000/0000_001_01_0113morning_0777_0.jpg 0"],
}
V1, V2 = ("train", "test"), ("mask_train_v2", "mask_test_v2")


def write(root: Path, version=V1, end="\n", **changes) -> Path:
    """Creates the dataset with images for all paths in `LISTS`; `changes` replace the lines of lists."""
    stream = BytesIO()
    Image.new("RGB", (2, 4), (90, 30, 200)).save(stream, "JPEG")
    for name, lines in LISTS.items():
        for line in lines:
            path = root / version[name in ("query", "gallery")] / line.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stream.getvalue())
        lines = changes.get(name, lines)
        if lines is not None:
            (root / f"list_{name}.txt").write_bytes("".join(line + end for line in lines).encode())
    return root


def read(root: Path, **options):
    return LAYOUT.read(root, "msmt17", ReadOptions(**options))


def rows_of(table):
    columns = (table.paths, table.identities.tolist(), table.cameras.tolist(), table.splits.tolist())
    return list(zip(*columns, strict=True))


def message(root: Path, **options) -> str:
    with pytest.raises(FedReIDError) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("version", [V1, V2])
def test_by_hand(tmp_path, version):
    train, test = version
    table = read(write(tmp_path / "0007_c3", version))
    assert rows_of(table) == [
        (f"{train}/0000/0000_000_01_0303morning_0015_0.jpg", 0, 1, TRAIN),
        (f"{train}/0000/0000_001_10_0303morning_0020_0.jpg", 0, 10, TRAIN),
        (f"{train}/0001/0001_002_09_0302noon_0090_1.jpg", 1, 9, TRAIN),
        (f"{train}/0001/0001_003_14_0302noon_0100_2.jpg", 1, 14, TRAIN),
        (f"{test}/0000/0000_000_15_0113afternoon_0001_1.jpg", 2, 15, QUERY),
        (f"{test}/0001/0001_000_02_0113morning_0001_1.jpg", 3, 2, QUERY),
        (f"{test}/0000/0000_001_01_0113morning_0777_0.jpg", 2, 1, GALLERY),
        (f"{test}/0001/0001_001_03_0113morning_0002_0.jpg", 3, 3, GALLERY),
    ]
    assert table.name == "msmt17"
    assert (table.identities.dtype, table.cameras.dtype, table.splits.dtype) == (np.int64, np.int64, np.uint8)
    assert all(Path(file).is_file() for file in table.files())


def test_the_order_of_lines_and_their_ends_do_not_matter(tmp_path):
    turned = {name: ["", *lines[::-1], "  "] for name, lines in LISTS.items()}
    assert rows_of(read(write(tmp_path / "a", end="\r\n", **turned))) == rows_of(read(write(tmp_path / "b")))


def test_images_in_no_list_are_not_read(tmp_path):
    table = read(write(tmp_path, gallery=LISTS["gallery"][:1]))
    assert [path for path in table.split("gallery").paths] == ["test/0001/0001_001_03_0113morning_0002_0.jpg"]


def test_persons_only_in_val_count_for_the_shift(tmp_path):
    root = write(tmp_path, train=LISTS["train"][:1])  # person 1 is only in val
    assert sorted(set(read(root).split("query").identities.tolist())) == [2, 3]


def test_training_images_only(tmp_path):
    root = write(tmp_path, query=None, gallery=None)
    table = read(root, train_only=True)
    assert table.identities.tolist() == [0, 0, 1, 1] and set(table.splits.tolist()) == {TRAIN}


@pytest.mark.parametrize("name", list(LISTS))
def test_a_missing_or_an_empty_list(tmp_path, name):
    missing = write(tmp_path / "missing", **{name: None})
    assert f"{missing / f'list_{name}.txt'}: no such file; expected " in message(missing)
    empty = write(tmp_path / "empty", **{name: [""]})
    assert f"{empty / f'list_{name}.txt'}: lists no image" in message(empty)


@pytest.mark.parametrize(
    "line",
    [
        "0000/0000_000_01_0303morning_0015_0.jpg",  # without a person
        "0000/0000_000_01_0303morning_0015_0.jpg zero",
        "0000/0000_000_01_0303morning_0015_0.jpg -1",
        "0000/0000_000_01_0303morning_0015_0.jpg 0 1",
        "0000/0000_000_1_0303morning_0015_0.jpg 0",  # a camera of one digit
        "0000/0000_000_001_0303morning_0015_0.jpg 0",
        "0000_000_01_x/0000.jpg 0",  # the camera is in the folder
        "0000/0000_000.jpg 0",
        "0000/0000_000_01_0303morning_0015_0.jpg 9999999999999999999999",
        "0",
    ],
)
def test_a_malformed_line(tmp_path, line):
    root = write(tmp_path, query=[LISTS["query"][0], "", line])
    assert f"{root / 'list_query.txt'}, line 3: " in message(root)


def test_a_missing_image(tmp_path):
    root = write(tmp_path)
    gone = root / "test" / LISTS["gallery"][1].split()[0]
    gone.unlink()
    assert f"{root / 'list_gallery.txt'}, line 2: there is no image {gone}" in message(root)
    gone.mkdir()  # a folder is not an image
    assert f"line 2: there is no image {gone}" in message(root)


def test_a_missing_folder(tmp_path):
    root = write(tmp_path)
    (root / "test").rename(root / "tests")
    assert f"{root / 'list_query.txt'}, line 1: there is no image {root / 'test'}" in message(root)


def test_a_repeated_line(tmp_path):
    root = write(tmp_path, val=[LISTS["val"][0], LISTS["train"][0]])
    assert f"{root / 'list_val.txt'}, line 2: " in message(root) and "second time" in message(root)


def test_a_list_that_is_not_text(tmp_path):
    root = write(tmp_path)
    (root / "list_val.txt").write_bytes(b"\xff\xfe\x00caf\xe9")
    assert f"{root / 'list_val.txt'}: is not a text file" in message(root)


def test_a_null_byte_in_a_line(tmp_path):
    root = write(tmp_path, val=["0000/0000_000_01_\0.jpg 0"])
    assert f"{root / 'list_val.txt'}, line 1: " in message(root)
