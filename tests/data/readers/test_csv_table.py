"""The reader of a CSV table of images."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fedreid_pl.data.readers.csv_table import LAYOUT
from fedreid_pl.data.readers.layout import ReadOptions
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN
from fedreid_pl.errors import FedReIDError

HEADER = "path,identity,camera,split"
IMAGES = ["monday/0007.jpg", "monday/0008.jpg", "9.png", "monday/late/a, b.jpg", "x_c5.bmp"]
LINES = [
    "monday/0008.jpg,0,3,gallery",
    "monday/0007.jpg,0012,12,train",
    "9.png,0,0,query",
    '"monday/late/a, b.jpg",-1,1,gallery',
    "x_c5.bmp,distractor,7,gallery",
]


def write(root: Path, lines, header=HEADER, name="samples.csv", end="\n", encoding="utf-8") -> Path:
    stream = BytesIO()
    Image.new("RGB", (2, 4), (9, 30, 20)).save(stream, "PNG")
    for image in IMAGES:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(stream.getvalue())
    (root / name).write_bytes("".join(line + end for line in (header, *lines)).encode(encoding))
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


EXPECTED = [
    ("monday/0007.jpg", 12, 12, TRAIN),
    ("9.png", 0, 0, QUERY),
    ("monday/0008.jpg", 0, 3, GALLERY),
    ("monday/late/a, b.jpg", JUNK, 1, GALLERY),
    ("x_c5.bmp", DISTRACTOR, 7, GALLERY),
]


def test_by_hand(tmp_path):
    table = read(write(tmp_path, LINES))
    assert rows_of(table) == EXPECTED
    assert all(Path(file).is_file() for file in table.files())


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_lines_does_not_matter(tmp_path, seed):
    lines = random.Random(seed).sample(LINES, len(LINES))
    assert rows_of(read(write(tmp_path, lines))) == EXPECTED


def test_a_table_from_a_spreadsheet(tmp_path):
    lines = [f"hat, {line} ,, " for line in LINES if '"' not in line]
    root = write(tmp_path, ["", *lines, ",,,,,", " "], f"note, {HEADER},x,y", "Table 1.CSV", "\r\n", "utf-8-sig")
    assert LAYOUT.recognise(root)
    assert rows_of(read(root)) == [row for row in EXPECTED if "," not in row[0]]


def test_training_images_only(tmp_path):
    assert rows_of(read(write(tmp_path, LINES), train_only=True)) == EXPECTED[:1]
    assert message(write(tmp_path, LINES[2:]), train_only=True).endswith("contains no training image")


def test_paths_outside_and_absolute(tmp_path):
    write(tmp_path / "a", [])
    root = write(tmp_path / "b", ["../a/9.png,1,1,train", f"{tmp_path}/a/x_c5.bmp,2,1,train", "./9.png,2,1,train"])
    assert [Path(file).resolve() for file in read(root).files()] == [
        tmp_path / "a" / "9.png",
        tmp_path / "a" / "x_c5.bmp",
        root / "9.png",
    ]


def test_an_image_may_be_query_and_gallery_but_not_training_and_test(tmp_path):
    both = ["9.png,0,0,query", "9.png,0,0,gallery"]
    assert read(write(tmp_path, both)).splits.tolist() == [QUERY, GALLERY]
    for lines in (
        ["9.png,0,0,query", "9.png,0,0,train"],
        ["9.png,0,0,train", "./9.png,0,0,gallery"],
        ["9.png,0,0,gallery", "9.png,1,0,gallery"],
    ):
        root = write(tmp_path, lines)
        assert f"{root / 'samples.csv'}, line 3, column path: 9.png stands in the table already" in message(root)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("9.png,x,0,train", "column identity: identity 'x' is not a number from 0"),
        ("9.png,-2,0,train", "column identity: identity '-2'"),
        ("9.png,1.0,0,train", "column identity: identity '1.0'"),
        (f"9.png,{'9' * 30},0,train", "column identity: identity '999"),
        ("9.png,1,-1,train", "column camera: camera '-1' is not a number from 0"),
        ("9.png,1,door,train", "column camera: camera 'door'"),
        ("9.png,1,0,test", "column split: split 'test' is not one of train, query, gallery"),
        ("9.png,1,,train", "column camera: has no camera"),
        (",1,0,train", "column path: has no path"),
        ("9.png,1,0", "column split: has no split"),
        ("9.png", "column identity: has no identity"),
        ("9.png,1,0,train,9", ", line 5: 5 values for 4 columns"),
        ("9.jpg,1,0,train", "column path: there is no image "),
        ("monday,1,0,train", "column path: there is no image "),
        ("tuesday/1.jpg,1,0,train", "column path: there is no image "),
        ("9.png/1.jpg,1,0,train", "column path: there is no image "),
        ("9.png\0,1,0,train", ""),
        ('"9.png,1,0,train', ", line 5: is not CSV"),
    ],
)
def test_a_bad_line(tmp_path, line, wanted):
    root = write(tmp_path, [*LINES[:2], "", line])
    text = message(root)
    assert text.startswith(f"{root / 'samples.csv'}, line 5") and wanted in text


def test_all_bad_lines_are_listed(tmp_path):
    bad = ["9.png,1,0,test", "x_c5.bmp,1,1,query", "none.jpg,1,0,train", "monday/0008.jpg,a,0,train"]
    root = write(tmp_path, bad)
    text = message(root)
    assert "line 2, column split: split 'test'" in text and text.endswith("; bad as well: lines 4, 5")
    assert (
        message(write(tmp_path, bad[1:3]))
        == f"{root / 'samples.csv'}, line 3, column path: there is no image {root / 'none.jpg'}"
    )
    many = message(write(tmp_path, bad[:1] * 500))
    assert many.endswith("lines " + ", ".join(map(str, range(3, 22))) + ", ...")


@pytest.mark.parametrize(
    "header", ["identity,camera,split,hat", f"{HEADER},path", "", "image,img,identity,camera,split"]
)
def test_another_header(tmp_path, header):
    root = write(tmp_path, LINES, header)
    text = message(root)
    assert text.startswith(str(root / "samples.csv"))
    assert "no column path (path, file," in text or "the first line names the path twice" in text
    if "," in header and "hat" in header:
        assert not LAYOUT.recognise(root)


def test_missing_empty_and_several_tables(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n")
    assert message(tmp_path).startswith(f"{tmp_path}: contains no table; expected samples.csv")
    (tmp_path / "samples.csv").write_text("")
    assert message(tmp_path).startswith(f"{tmp_path / 'samples.csv'}: is empty")
    (tmp_path / "samples.csv").write_text(HEADER)
    assert message(tmp_path) == f"{tmp_path / 'samples.csv'}: contains no image"
    write(tmp_path / "two", LINES, name="a.csv")
    write(tmp_path / "two", LINES, name="b.csv")
    assert "a.csv, b.csv" in message(tmp_path / "two")
    write(tmp_path / "two", LINES[1:2])
    assert len(read(tmp_path / "two")) == 1


def test_a_table_that_is_not_text(tmp_path):
    root = write(tmp_path, ["9.png,é,0,train"], encoding="latin-1")
    assert message(root) == f"{root / 'samples.csv'}, line 2: is not UTF-8 or UTF-16; save the table as UTF-8"
