"""CUHK03's MATLAB file, written by h5py in MATLAB's format, and its possible defects."""

from __future__ import annotations

import sys
from pathlib import Path

import layouts
import numpy as np
import pytest
from dataset_files import message_of, persons_of, read, rows_of
from layouts import matlab

from fedreid_pl.data.decoding import decode, open_rgb
from fedreid_pl.data.layouts import find_layouts
from fedreid_pl.data.readers.cuhk03_mat import container, inside_mat
from fedreid_pl.errors import FedReIDError


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Creates the file without the new protocol's file."""
    (tmp_path / "cuhk-03.mat").write_bytes(matlab.matlab_file())
    return tmp_path


def asked_for(root: Path, split: int) -> set[tuple[int, int]]:
    """Returns pair and person of the queries."""
    return {divmod(person, 10_000) for person in persons_of(read("cuhk03_mat", root, split=split), "query")}


def test_the_splits_of_the_file_without_the_protocol(original: Path) -> None:
    for split, expected in enumerate(matlab.SPLITS):
        rows = rows_of(read("cuhk03_mat", original, split=split))
        assert asked_for(original, split) == set(expected)
        wanted = []
        for place in matlab.places():
            path, view = f"cuhk-03.mat/detected/{matlab.name_of(*place)}", 1 if place[2] <= 5 else 2
            sides = ("query", "gallery") if place[:2] in expected else ("train",)
            wanted += [(path, 10_000 * place[0] + place[1], view, side) for side in sides]
        assert sorted(rows) == sorted(wanted)


def test_an_unknown_split(original: Path) -> None:
    assert "contains the splits 0 to 1" in message_of("cuhk03_mat", original, split=2)


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
def test_pixels_equal_the_stored_ones(original: Path, boxes: str) -> None:
    table = read("cuhk03_mat" if boxes == "detected" else "cuhk03_mat_labeled", original)
    for file in table.files()[::7]:
        pair, person, _, image = (int(part) for part in Path(file).stem.split("_"))
        expected = matlab.pixels(boxes, pair, person, image)
        assert np.array_equal(np.asarray(open_rgb(file)), expected)
        assert np.array_equal(decode(file, *expected.shape[:2]), expected)


def test_labeled_boxes_are_chosen_by_name(tmp_path: Path) -> None:
    layouts.write(matlab.with_protocol("labeled", "."), tmp_path)
    assert all("/labeled/" in path for path in read("cuhk03_mat_labeled", tmp_path).paths)
    splits = {path: split for path, _, _, split in rows_of(read("cuhk03_mat_labeled", tmp_path))}
    expected = {f"cuhk-03.mat/labeled/{matlab.name_of(*place)}": split for place, split in matlab.protocol_shots()}
    assert splits == expected
    assert [key for key, layout in find_layouts().items() if layout.recognise(tmp_path)] == ["cuhk03_mat"]


def test_converted_folders_are_preferred(original: Path) -> None:
    (original / "labeled" / "bounding_box_train").mkdir(parents=True)
    assert not find_layouts()["cuhk03_mat"].recognise(original)


def test_paths_inside_the_file() -> None:
    assert inside_mat("/a.mat/b/cuhk-03.mat/detected/1_001_1_01.png")
    assert container("/a.mat/b/cuhk-03.mat/detected/1_001_1_01.png") == "/a.mat/b/cuhk-03.mat"
    for path in ("/a.mat/b/1.png", "/a.mat/1.png", "1.png"):
        assert not inside_mat(path) and container(path) == path


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("cuhk-03.mat", b"MATLAB 7.3 MAT-file", ["is not a readable MATLAB file"]),
        ("cuhk-03.mat", None, ["expected cuhk-03.mat"]),
        ("cuhk03_new_protocol_config_detected.mat", b"nothing", ["is not a file of the new protocol"]),
        (
            "cuhk03_new_protocol_config_detected.mat",
            matlab.protocol_file([("1_001_1_03.png", 4, "train")]),
            ["lists 1_001_1_03.png", "does not contain"],
        ),
        (
            "cuhk03_new_protocol_config_detected.mat",
            matlab.protocol_file([("0001_c1_1.png", 4, "train")]),
            ["0001_c1_1.png", "is not a name of an image of CUHK03"],
        ),
    ],
)
def test_invalid_files(original: Path, name: str, content: bytes | None, parts: list) -> None:
    (original / name).unlink(missing_ok=True)
    if content is not None:
        (original / name).write_bytes(content)
    text = message_of("cuhk03_mat", original)
    assert text.startswith(str(original)) and all(part in text for part in parts)


def test_a_file_without_its_cells(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "cuhk-03.mat", "w") as file:
        file["detected"] = np.zeros((1, 5))
    assert "contains no readable cells 'detected'" in message_of("cuhk03_mat", tmp_path)


@pytest.mark.parametrize("module", ["h5py", "scipy.io"])
def test_without_the_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    layouts.write(matlab.with_protocol(folder="."), tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    text = message_of("cuhk03_mat", tmp_path)
    assert text.startswith(str(tmp_path)) and "pip install 'fedreid-pl[mat]'" in text


def test_a_missing_image(original: Path) -> None:
    for name in ("9_001_1_01.png", "1_001_1_03.png", "nothing.png"):
        path = f"{original}/cuhk-03.mat/detected/{name}"
        with pytest.raises(FedReIDError) as caught:
            open_rgb(path)
        assert str(caught.value).startswith(path) and "\n" not in str(caught.value)
