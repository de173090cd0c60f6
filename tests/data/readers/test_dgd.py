"""The reader of meta.json and split.json, on files in the format of the formatting scripts."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fedreid_pl.data.readers.dgd import LAYOUT
from fedreid_pl.data.readers.layout import ReadOptions
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN
from fedreid_pl.errors import FedReIDError

# as PRID2011: probe persons first, then training persons (one in a single camera), then a gallery-only person
IDENTITIES = [
    [["cam_0/00000_00000.png"], ["cam_1/00000_00000.png"]],
    [["cam_0/00001_00000.png"], ["cam_1/00001_00000.png", "cam_1/00001_00001.png"]],
    [["cam_0/00002_00000.png", "cam_0/00002_00001.png"], ["cam_1/00002_00000.png"]],
    [["cam_0/00003_00000.png"], []],
    [[], ["cam_1/00004_00000.png"]],
]
SPLIT = {"trainval": [2, 3], "test_probe": [0, 1], "test_gallery": [0, 1, 4]}
META = {"name": "PRID", "shot": "multiple", "num_cameras": 2, "identities": IDENTITIES}


def write(root: Path, meta=META, split=SPLIT, below="") -> Path:
    stream = BytesIO()
    Image.new("RGB", (2, 4), (9, 30, 20)).save(stream, "PNG")
    for path in (path for person in IDENTITIES for view in person for path in view):
        (root / below / path).parent.mkdir(parents=True, exist_ok=True)
        (root / below / path).write_bytes(stream.getvalue())
    for name, content in (("meta.json", meta), ("split.json", split)):
        if content is not None:
            (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
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


@pytest.mark.parametrize("below", ["", "images/"])
def test_by_hand(tmp_path, below):
    assert rows_of(read(write(tmp_path, below=below))) == [
        (f"{below}cam_0/00002_00000.png", 2, 0, TRAIN),
        (f"{below}cam_0/00002_00001.png", 2, 0, TRAIN),
        (f"{below}cam_0/00003_00000.png", 3, 0, TRAIN),
        (f"{below}cam_1/00002_00000.png", 2, 1, TRAIN),
        (f"{below}cam_0/00000_00000.png", 0, 0, QUERY),
        (f"{below}cam_0/00001_00000.png", 1, 0, QUERY),
        (f"{below}cam_1/00000_00000.png", 0, 1, GALLERY),
        (f"{below}cam_1/00001_00000.png", 1, 1, GALLERY),
        (f"{below}cam_1/00001_00001.png", 1, 1, GALLERY),
        (f"{below}cam_1/00004_00000.png", 4, 1, GALLERY),
    ]


def test_train_and_val_replace_trainval(tmp_path):
    split = {"train": [3], "val": [2], "test_probe": [0, 1], "test_gallery": [0, 1, 4]}
    assert rows_of(read(write(tmp_path / "a", split=split))) == rows_of(read(write(tmp_path / "b")))


def test_the_order_in_the_split_does_not_matter(tmp_path):
    split = {key: persons[::-1] + persons[:1] for key, persons in SPLIT.items()}
    assert rows_of(read(write(tmp_path / "a", split=split))) == rows_of(read(write(tmp_path / "b")))


@pytest.mark.parametrize(("views", "queries"), [(2, [0]), (3, [0]), (4, [0, 1]), (5, [0, 1])])
def test_the_first_half_of_the_views_is_the_query(tmp_path, views, queries):
    spare = ["cam_0/00002_00000.png", "cam_0/00002_00001.png", "cam_1/00002_00000.png", "cam_0/00003_00000.png"]
    person = [[path] for path in ["cam_0/00000_00000.png", *spare][:views]]
    split = {"trainval": [1], "test_probe": [0], "test_gallery": [0]}
    table = read(write(tmp_path, meta={"identities": [person, IDENTITIES[1]]}, split=split))
    assert sorted(table.split("query").cameras.tolist()) == queries
    assert sorted(table.split("gallery").cameras.tolist()) == list(range(len(queries), views))


def test_training_images_only(tmp_path):
    table = read(write(tmp_path, split={"trainval": [0, 4]}), train_only=True)
    assert table.paths == ("cam_0/00000_00000.png", "cam_1/00000_00000.png", "cam_1/00004_00000.png")


def test_missing_files(tmp_path):
    for name in ("meta", "split"):
        root = write(tmp_path / name, **{name: None})
        assert f"{root / name}.json: no such file; expected " in message(root)
    root = write(tmp_path / "image")
    (root / "cam_1/00004_00000.png").unlink()
    assert f"{root / 'cam_1/00004_00000.png'}: no such image" in message(root)


@pytest.mark.parametrize(
    "meta",
    [
        "[",
        "[]",
        "{}",
        {"identities": 3},
        {"identities": [["cam_0/00000_00000.png"]]},
        {"identities": [[[1]]]},
        {"identities": [[[""]]]},
        "[" * 100_000,
    ],
)
def test_a_meta_file_of_another_form(tmp_path, meta):
    root = write(tmp_path, meta=meta)
    assert f"{root / 'meta.json'}: " in message(root)


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ("nothing", "is not valid JSON"),
        ("[]", "has no 'train'"),
        ({**SPLIT, "trainval": 3}, "'trainval' is not a list of positions 0 to 4"),
        ({**SPLIT, "trainval": [2, 5]}, "'trainval' is not"),
        ({**SPLIT, "test_probe": [-1]}, "'test_probe' is not"),
        ({**SPLIT, "test_probe": [True]}, "'test_probe' is not"),
        ({**SPLIT, "test_gallery": ["0"]}, "'test_gallery' is not"),
        ({"trainval": [2]}, "has no 'test_probe'"),
        ({"train": [2], "test_probe": [0], "test_gallery": [0]}, "has no 'val'"),
        ({**SPLIT, "test_gallery": [1, 4]}, "person 0 is in test_probe but not in test_gallery"),
        ({**SPLIT, "trainval": [2, 4]}, "person 4 is in the training set and in the test set"),
        ({key: [] for key in SPLIT}, "contains no person"),
    ],
)
def test_a_split_file_of_another_form(tmp_path, split, wanted):
    root = write(tmp_path, split=split)
    assert message(root).startswith(f"{root / 'split.json'}: ") and wanted in message(root)
