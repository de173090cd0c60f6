"""The registry of layouts; every folder is recognised by exactly one layout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import fedreid_pl.data.readers
from fedreid_pl.data import layouts
from fedreid_pl.data.layouts import find_layouts, recognise_layout
from fedreid_pl.data.readers import market1501

FOLDERS: dict[str, list[str]] = {
    "market1501": ["bounding_box_train/", "bounding_box_test/", "query/", "gt_bbox/", "readme.txt"],
    "msmt17": ["train/", "test/", "list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt"],
    "fedreid_processed": ["pytorch/train_all/", "pytorch/train/", "pytorch/val/", "pytorch/query/", "pytorch/gallery/"],
    "dgd": ["meta.json", "split.json", "cam_0/", "cam_1/"],
    "cuhk03_mat": ["cuhk03_release/cuhk-03.mat"],
    "csv_table": ["samples.csv", "shots/"],
    "id_folders": ["train/", "query/", "gallery/"],
}
VARIANTS: dict[str, list[list[str]]] = {
    "market1501": [["bounding_box_train/"]],
    "msmt17": [["mask_train_v2/", "mask_test_v2/", *FOLDERS["msmt17"][2:]], ["train/", "list_query.txt"]],
    "fedreid_processed": [["pytorch/train_all/"], ["train_all/", "train/", "query/", "gallery/"], ["pytorch/train/"]],
    "dgd": [["meta.json", "split.json", "images/cam_0/", "train/", "query/", "gallery/"]],
    "cuhk03_mat": [["cuhk-03.mat"]],
    "csv_table": [["people.csv", "notes.csv"], ["samples.csv", "train/", "query/", "gallery/"]],
}
CSV = {"samples.csv": "path,identity,camera,split\n", "people.csv": "\ufeffsplit, camera,identity,path,hat\n"}
CASES = [(key, names) for key, names in FOLDERS.items()]
CASES += [(key, names) for key, variants in VARIANTS.items() for names in variants]


def build(root: Path, names: list[str]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).write_text(CSV.get(name, "nothing\n"), encoding="utf-8")
    return root


def recognisers(folder: Path) -> list[str]:
    return [layout.key for layout in find_layouts().values() if layout.recognise(folder)]


def test_every_reader_module_is_found():
    modules = {path.stem for path in Path(str(fedreid_pl.data.readers.__file__)).parent.glob("*.py")}
    found = find_layouts()
    assert set(FOLDERS) <= modules & set(found)
    assert list(found) == sorted(found)
    assert all(layout.key == key for key, layout in found.items())
    for layout in found.values():
        assert layout.title and layout.expects and "\n" not in layout.title + layout.expects


def test_the_answer_is_a_copy():
    find_layouts().clear()
    assert "market1501" in find_layouts()


def test_two_layouts_of_one_name(monkeypatch):
    monkeypatch.setattr(market1501, "LAYOUTS", (market1501.LAYOUT,), raising=False)
    layouts._collect.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="market1501"):
            find_layouts()
    finally:
        monkeypatch.undo()
        layouts._collect.cache_clear()


@pytest.mark.parametrize(("key", "names"), CASES)
def test_a_folder_has_one_layout(tmp_path, key, names):
    root = build(tmp_path / "set", names)
    assert recognisers(root) == [key]
    layout = recognise_layout(root)
    assert layout is not None and layout.key == key


@pytest.mark.parametrize("first", list(FOLDERS))
@pytest.mark.parametrize("second", list(FOLDERS))
def test_a_folder_that_was_converted_in_place_has_one_layout(tmp_path, first, second):
    """FedReID's scripts write into the folder that they read, and a user may add a table to any folder."""
    found = recognisers(build(tmp_path / "set", FOLDERS[first] + FOLDERS[second]))
    assert len(found) == 1 and found[0] in (first, second)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["notes/", "readme.txt"],
        ["train/", "test/"],  # too generic
        ["query/", "gallery/"],
        ["meta.json"],
        ["list_train.txt"],
        ["bounding_box_train"],  # a file
        ["notes.csv"],
        ["samples.csv/"],
        [".people.csv"],
    ],
)
def test_other_folders(tmp_path, names):
    assert recognise_layout(build(tmp_path / "set", names)) is None


def test_files_and_unreadable_folders_are_not_recognised(tmp_path, monkeypatch):
    root = build(tmp_path / "set", FOLDERS["csv_table"])
    assert recognise_layout(root / "samples.csv") is None
    assert recognise_layout(tmp_path / "nowhere") is None

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    for name in ("stat", "listdir", "scandir"):
        monkeypatch.setattr(os, name, refuse)
    assert recognisers(root) == []
