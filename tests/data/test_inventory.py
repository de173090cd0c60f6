"""Every file in a dataset's folder is read, skipped and counted, or listed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from dataset_files import touch
from known_datasets import FILES, write
from PIL import Image

from fedreid_pl.config import DataConfig
from fedreid_pl.data import index
from fedreid_pl.data.digest import digest
from fedreid_pl.data.inventory import read_with_inventory
from fedreid_pl.data.inventory_counts import Inventory
from fedreid_pl.data.layouts import ReadOptions, recognise_layout
from fedreid_pl.data.locating import read_dataset


def inventory_of(root: Path, **options) -> Inventory:
    layout = recognise_layout(root)
    assert layout is not None
    table, _ = read_with_inventory(layout, root, "name", ReadOptions(**options))
    assert table.inventory is not None
    return table.inventory


def present(root: Path) -> int:
    """Counts the files below a folder independently; a link to a folder counts as one."""
    return sum(
        len(files) + sum(os.path.islink(os.path.join(folder, name)) for name in folders)
        for folder, folders, files in os.walk(root)
    )


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 2), shade, np.uint8)).save(path, "PNG")


def add_faults(root: Path, place: str) -> dict[str, str]:
    """Adds files of every kind; returns those that must be listed, with a part of the reason."""
    for name in ("Thumbs.db", ".DS_Store", f"{place}/._0001_c1.jpg"):
        (root / name).write_bytes(b"\0\1")
    picture(root / "__MACOSX" / "a.png")
    (root / "readme").write_text("a text without an ending")
    (root / "empty").touch()
    picture(root / place / ".hidden.png")
    picture(root / "more" / "0001.png")
    (root / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    (root / "noise").write_bytes(bytes(range(256)))
    os.mkfifo(root / "pipe")
    os.symlink(root, root / "loop")
    reasons = {f"{place}/.hidden.png": "hidden PNG picture", "more/0001.png": "PNG picture", "a.eps": "EPS"}
    return reasons | {"noise": "unknown format", "pipe": "not a regular file", "loop": "link"}


@pytest.mark.parametrize("dataset", list(FILES))
def test_read_listed_and_skipped_files_add_up_to_all_files(tmp_path, dataset):
    root = write(tmp_path, dataset)
    inside = FILES[dataset][0].rpartition("/")[0]
    reasons = add_faults(root, inside)
    if dataset == "MSMT17":  # the lists of the small copy leave out a person of the test folder
        reasons |= {path: "does not read" for path in FILES[dataset] if path.startswith("test/0001/")}
    found = inventory_of(root)
    assert found.present == present(root)
    assert found.skipped == {"system": 4, "text": 1, "empty": 1}
    named = dict(found.unread)
    assert named.keys() == reasons.keys()
    assert all(word in named[path] for path, word in reasons.items())
    assert all(path in found.named() for path in reasons)
    assert found.read + found.unused + found.lists == len(FILES[dataset]) + (2 if dataset == "MSMT17" else 0)


def test_images_in_no_split_list_are_reported(tmp_path):
    root = write(tmp_path, "MSMT17")
    before = inventory_of(root).unread
    picture(root / "train" / "0000" / "0000_009_01_x.jpg")
    new = set(inventory_of(root).unread) - set(before)
    assert new == {("train/0000/0000_009_01_x.jpg", "PNG picture, which the layout msmt17 does not read")}


def test_images_beside_the_folders_of_persons_are_reported(tmp_path):
    files = [f"{part}/{name}" for part in ("train", "query", "gallery") for name in ("1/a.jpg", "2/b.jpg", "loose.jpg")]
    root = touch(tmp_path / "own", *files, "train/1/deeper/c.jpg")
    expected = ["gallery/loose.jpg", "query/loose.jpg", "train/1/deeper/c.jpg", "train/loose.jpg"]
    assert [path for path, _ in inventory_of(root).unread] == expected


def test_folders_that_the_protocol_does_not_use_are_counted(tmp_path):
    root = touch(write(tmp_path, "Market-1501"), "gt_bbox/0001_c1.jpg", "gt_query/0001_c1.mat")
    assert (inventory_of(root).unused, inventory_of(root).unread) == (2, ())


def test_a_public_set_excludes_its_test_images(tmp_path):
    found = inventory_of(write(tmp_path, "Market-1501"), train_only=True)
    assert (found.read, found.unused, found.unread) == (3, 2, ())


@pytest.mark.parametrize("windows", ["separators", "bom", "crlf", "utf16"])
def test_lists_from_windows(tmp_path, windows):
    plain = read_dataset(DataConfig(layout="msmt17"), write(tmp_path, "MSMT17"), "name")
    root = write(tmp_path / "other", "MSMT17")
    for path in root.glob("list_*.txt"):
        text = path.read_text()
        text = text.replace("/", "\\") if windows == "separators" else text
        text = text.replace("\n", "\r\n") if windows == "crlf" else text
        codes = {"bom": "utf-8-sig", "utf16": "utf-16"}
        path.write_bytes(text.encode(codes.get(windows, "utf-8")))
    table = read_dataset(DataConfig(layout="msmt17"), root, "name")
    assert digest(table)["sha256"] == digest(plain)["sha256"]


def test_paths_of_meta_json_from_windows(tmp_path):
    images = ["cam_0/1.png", "cam_0/2.png", "cam_0/3.png", "cam_1/3.png"]
    root = touch(tmp_path / "set", *images)
    views = [[[images[0]], []], [[images[1]], []], [[images[2]], [images[3]]]]
    meta = json.dumps({"identities": views}).replace("/", r"\\")
    (root / "meta.json").write_text("\ufeff" + meta)
    (root / "split.json").write_text(json.dumps({"trainval": [0, 1], "test_probe": [2], "test_gallery": [2]}))
    assert read_dataset(DataConfig(layout="dgd"), root, "name").paths == tuple(sorted(images[:2]) + images[2:])


def test_the_index_contains_the_inventory_and_detects_new_files(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "WORTH_IT", 1)
    monkeypatch.setattr(index, "SETTLED", -1e9)
    config = DataConfig(layout="market1501", cache_dir=str(tmp_path / "cache"))
    root = write(tmp_path, "Market-1501")
    picture(root / "more" / "a.png")
    first = read_dataset(config, root, "name").inventory
    assert list((tmp_path / "cache" / "index").iterdir())
    assert read_dataset(config, root, "name").inventory == first
    picture(root / "more" / "b.png")
    again = read_dataset(config, root, "name").inventory
    assert [path for path, _ in again.unread] == ["more/a.png", "more/b.png"]
