"""The index of a large dataset: equal to the reader's table, and never outdated."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import pytest
from dataset_files import rows_of, touch

from fedreid_pl.data import index
from fedreid_pl.data.index import read_indexed
from fedreid_pl.data.layouts import Layout, ReadOptions, find_layouts
from fedreid_pl.data.readers.cuhk03_mat import inside_mat
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

MSMT = [f"{split}/{p:04d}/{p:04d}_{i:03d}_{c:02d}_a_b_{i}.jpg" for split in ("train", "test")
        for p in range(3) for i, c in enumerate((1, 12))]  # fmt: skip


@pytest.fixture
def msmt17(tmp_path: Path) -> Path:
    """Creates MSMT17 with a few empty files and old modification times."""
    root = touch(tmp_path / "MSMT17_V1", *MSMT)
    for name in ("train", "val", "query", "gallery"):
        folder = "train" if name in ("train", "val") else "test"
        rows = [path for path in MSMT if path.startswith(folder)]
        rows = rows[::2] if name in ("train", "query") else rows[1::2]
        (root / f"list_{name}.txt").write_text("".join(f"{p.partition('/')[2]} {int(p.split('/')[1])}\n" for p in rows))
    return settle(root)


def settle(root: Path) -> Path:
    """Sets all modification times to an hour ago."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, (time.time() - 3600,) * 2)
    return root


class Counted:
    """A layout that counts its reads."""

    def __init__(self, key: str) -> None:
        self.reads = 0
        self.layout: Layout = replace(find_layouts()[key], read=self.read)
        self.inner = find_layouts()[key]

    def read(self, folder: Path, name: str, options: ReadOptions) -> SampleTable:
        self.reads += 1
        return self.inner.read(folder, name, options)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(index, "WORTH_IT", 1)
    return Counted("msmt17")


def get(counted: Counted, root: Path, cache: Path, name: str = "MSMT17", **options) -> SampleTable:
    return read_indexed(counted.layout, root, name, ReadOptions(**options), cache)


def test_the_second_call_uses_the_index(counted: Counted, msmt17: Path, tmp_path: Path) -> None:
    (msmt17 / "list_gallery.txt").write_text("0000/0000_001_12_a_b_1.jpg 0\n0002/0002_001_12_a_b_1.jpg 2\n")
    (msmt17 / "list_query.txt").write_text("0000/0000_000_01_a_b_0.jpg 0\n")
    settle(msmt17)
    first = get(counted, msmt17, tmp_path / "cache")
    second = get(counted, msmt17, tmp_path / "cache", "another name")
    assert counted.reads == 1
    assert rows_of(second) == rows_of(first) and second.root == msmt17
    assert (first.name, second.name) == ("MSMT17", "another name")
    assert second.remarks == first.remarks and "has person 1" in first.remarks[0]
    for column in ("identities", "cameras", "splits"):
        one, other = getattr(first, column), getattr(second, column)
        assert one.dtype == other.dtype and np.array_equal(one, other)


def test_every_set_of_options_has_a_separate_index(counted: Counted, msmt17: Path, tmp_path: Path) -> None:
    whole = get(counted, msmt17, tmp_path / "cache")
    part = get(counted, msmt17, tmp_path / "cache", train_only=True)
    assert counted.reads == 2 and len(part) < len(whole)
    assert len(get(counted, msmt17, tmp_path / "cache", train_only=True)) == len(part) and counted.reads == 2


@pytest.mark.parametrize("change", ["image gone", "image more", "list", "folder renamed", "mask"])
def test_a_change_is_detected(counted: Counted, msmt17: Path, tmp_path: Path, change: str) -> None:
    get(counted, msmt17, tmp_path / "cache")
    if change == "image gone":
        (msmt17 / MSMT[0]).unlink()
    elif change == "image more":
        touch(msmt17, "train/0000/0000_900_01_a_b_1.jpg")
    elif change == "list":
        path = msmt17 / "list_val.txt"
        path.write_text(path.read_text().replace(" 2", " 1"))  # the same length
    elif change == "folder renamed":
        (msmt17 / "test" / "0001").rename(msmt17 / "test" / "0009")
    else:
        (msmt17 / "mask_train_v2").mkdir()
    if change in ("image gone", "folder renamed", "mask"):
        with pytest.raises(FedReIDError):
            get(counted, msmt17, tmp_path / "cache")
    else:
        get(counted, msmt17, tmp_path / "cache")
    assert counted.reads == 2


def test_recently_changed_files_are_not_indexed(counted: Counted, msmt17: Path, tmp_path: Path) -> None:
    touch(msmt17, "train/0000/0000_900_01_a_b_1.jpg")
    get(counted, msmt17, tmp_path / "cache")
    get(counted, msmt17, tmp_path / "cache")
    assert counted.reads == 2 and not (tmp_path / "cache").exists()


def test_a_small_table_has_no_index(msmt17: Path, tmp_path: Path) -> None:
    counted = Counted("msmt17")
    get(counted, msmt17, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_other_readers_have_other_indexes(
    counted: Counted, msmt17: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(counted, msmt17, tmp_path / "cache")
    monkeypatch.setattr(index, "_program", lambda: "another version")
    get(counted, msmt17, tmp_path / "cache")
    assert counted.reads == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\0" * 4000])
def test_a_damaged_index_is_rebuilt(counted: Counted, msmt17: Path, tmp_path: Path, content: bytes) -> None:
    first = get(counted, msmt17, tmp_path / "cache")
    (file,) = (tmp_path / "cache" / "index").iterdir()
    file.write_bytes(content or file.read_bytes()[: file.stat().st_size // 2])
    assert rows_of(get(counted, msmt17, tmp_path / "cache")) == rows_of(first)
    assert counted.reads == 2
    get(counted, msmt17, tmp_path / "cache")
    assert counted.reads == 2


def test_the_reader_works_without_a_writable_cache(counted: Counted, msmt17: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert len(get(counted, msmt17, tmp_path / "file")) == len(MSMT)
    assert counted.reads == 2


def test_every_reader_records_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every layout, an additional file in any folder with an image of the table is detected."""

    monkeypatch.setattr(index, "WORTH_IT", 1)
    for name, make in layouts.MINIATURES.items():
        mini = make()
        root = settle(layouts.write(mini, tmp_path / name))
        counted = Counted(mini.layout)
        options = {"train_only": mini.splits == {layouts.TRAIN}}
        first = get(counted, root, tmp_path / "cache", **options)
        assert rows_of(get(counted, root, tmp_path / "cache", **options)) == rows_of(first) and counted.reads == 1, name
        watched = sorted({os.path.dirname(path) for path in first.paths if not inside_mat(path)})
        for number, folder in enumerate(watched, start=1):
            touch(root, os.path.join(folder, "another file.txt"))
            get(counted, root, tmp_path / "cache", **options)
            assert counted.reads == 2 * number, (name, folder)
            get(counted, settle(root), tmp_path / "cache", **options)
            assert counted.reads == 2 * number + 1, (name, folder)
