"""Shared code of the readers: listings depend only on the file names."""

from __future__ import annotations

import os
import random
from contextlib import nullcontext

import numpy as np
import pytest

from fedreid_pl.data.readers.listing import image_names, make_table, missing_files, person_folders, person_numbers
from fedreid_pl.errors import FedReIDError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_the_order_of_images_depends_only_on_their_names(tmp_path, monkeypatch):
    touch(tmp_path, "b.jpg", "A.JPG", "c.Png", "d.jpeg", "e.bmp", "._b.jpg", ".jpg", "f.txt", "gjpg", "h.jpg/x.jpg")
    expected = ["A.JPG", "b.jpg", "c.Png", "d.jpeg", "e.bmp"]
    scandir = os.scandir
    for seed in range(4):
        entries = list(scandir(tmp_path))
        random.Random(seed).shuffle(entries)
        monkeypatch.setattr(os, "scandir", lambda _, entries=entries: nullcontext(entries))
        assert image_names(tmp_path, "images") == expected


def test_links_to_images_are_listed_and_links_to_folders_are_not(tmp_path):
    touch(tmp_path, "real/1.jpg", "set/2.jpg")
    (tmp_path / "set" / "1.jpg").symlink_to(tmp_path / "real" / "1.jpg")
    (tmp_path / "set" / "3.jpg").symlink_to(tmp_path / "real")
    assert image_names(tmp_path / "set", "images") == ["1.jpg", "2.jpg"]
    (tmp_path / "persons").mkdir()
    (tmp_path / "persons" / "7").symlink_to(tmp_path / "real")
    assert person_folders(tmp_path / "persons", "images") == {"7": ["1.jpg"]}


def test_persons_without_images_are_skipped(tmp_path):
    touch(tmp_path, "2/b.jpg", "2/a.jpg", "10/c.png", "3/readme.txt", ".git/d.jpg", "e.jpg")
    assert person_folders(tmp_path, "images") == {"10": ["c.png"], "2": ["a.jpg", "b.jpg"]}


def test_numbers_of_persons(tmp_path):
    assert person_numbers(tmp_path, ["0002", "10", "0", "-1"]) == {"0002": 2, "10": 10, "0": 0, "-1": -1}
    for bad in ("", "-0", "-2", "+1", "1_0", " 1", "x", "²"):
        with pytest.raises(FedReIDError, match="is not a person's number"):
            person_numbers(tmp_path, ["3", bad])


def test_missing_files_are_found_with_one_listing_per_folder(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "0.jpg", "a/d.jpg/x")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    paths = ["a/1.jpg", "0.jpg", "a/3.jpg", "b/1.jpg", "c/1.jpg", "a/2.jpg", "a/d.jpg", "b/1.jpg", "d\0/1.jpg"]
    assert missing_files(tmp_path, paths) == [2, 4, 6, 8]
    assert len(listed) == len(set(map(str, listed))) == 5  # a, b, c, d\0 and the root


def test_a_name_with_another_case_is_not_missing_if_the_file_system_opens_it(tmp_path, monkeypatch):
    """A case-insensitive file system opens a/1.JPG although the listing contains 1.jpg."""
    touch(tmp_path, "a/1.jpg")
    isfile = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: isfile(str(path).replace("JPG", "jpg")))
    assert missing_files(tmp_path, ["a/1.JPG", "a/2.JPG"]) == [1]


def test_a_table_is_sorted_by_split_and_path(tmp_path):
    rows = [("b", 5, 1, 0), ("a", 7, 2, 2), ("c", 6, 3, 0), ("a", 8, 4, 1)]
    for seed in range(4):
        table = make_table("x", tmp_path, random.Random(seed).sample(rows, len(rows)))
        assert table.paths == ("b", "c", "a", "a")
        assert table.identities.tolist() == [5, 6, 8, 7] and table.cameras.tolist() == [1, 3, 4, 2]
        assert table.splits.tolist() == [0, 0, 1, 2]
        assert (table.identities.dtype, table.cameras.dtype, table.splits.dtype) == (np.int64, np.int64, np.uint8)
    assert len(make_table("x", tmp_path, [])) == 0


def test_folders_that_cannot_be_read(tmp_path):
    touch(tmp_path, "file")
    (tmp_path / "empty").mkdir()
    for place, wanted in (("none", "no such folder; expected cats"), ("file", "cannot be read"), ("empty", "no image")):
        for list_names in (image_names, person_folders):
            with pytest.raises(FedReIDError, match=wanted):
                list_names(tmp_path / place, "cats")
