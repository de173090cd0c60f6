"""GRID's reader: official and drawn splits, and the unmatched persons."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
from dataset_files import counts_of, message_of, persons_of, read, rows_of, touch

from fedreid_pl.data.samples import DISTRACTOR

MAT = "features_and_partitions.mat"


def write(root, persons=range(1, 7), unmatched=3):
    return touch(
        root,
        *(f"probe/{person:04d}_{person % 8 + 1}_25004_{person}_1.jpeg" for person in persons),
        *(f"gallery/{person:04d}_{(person + 3) % 8 + 1}_25023_{person}_1.jpeg" for person in persons),
        *(f"gallery/0000_{number % 8 + 1}_{number}_1.jpeg" for number in range(unmatched)),
    )


def write_mat(root, splits, name="trainIdxAll"):
    """Writes the official format: a row of cells, each a struct whose third field lists the training persons."""
    from scipy.io import savemat

    cells = np.empty((1, len(splits)), dtype=object)
    for number, persons in enumerate(splits):
        row = np.array([persons], dtype=np.uint16)
        cells[0, number] = {"probe": row + 300, "gallery": row + 600, "persons": row, "last": row + 900}
    savemat(root / MAT, {name: cells, "features": np.zeros((5, 5))})
    return root


def test_official_splits(tmp_path):
    pytest.importorskip("scipy")
    splits = [[1, 4, 6], [2, 3, 5], [1, 2, 3]]
    root = write_mat(write(tmp_path), splits)
    for number, persons in enumerate(splits):
        table = read("grid", root, split=number, seed=number)
        assert persons_of(table, "train") == set(persons)
        assert persons_of(table, "query") == set(range(1, 7)) - set(persons)
        assert len(table.split("train")) == 6
    rows = rows_of(read("grid", root, split=0))
    assert ("probe/0004_5_25004_4_1.jpeg", 4, 5, "train") in rows
    assert ("gallery/0004_8_25023_4_1.jpeg", 4, 8, "train") in rows
    assert ("probe/0002_3_25004_2_1.jpeg", 2, 3, "query") in rows
    assert ("gallery/0005_1_25023_5_1.jpeg", 5, 1, "gallery") in rows


def test_a_split_that_is_not_in_the_file(tmp_path):
    pytest.importorskip("scipy")
    root = write_mat(write(tmp_path), [[1, 2, 3]] * 10)
    text = message_of("grid", root, split=10)
    assert str(root / MAT) in text and "0 to 9" in text


def test_a_damaged_file_of_splits(tmp_path):
    pytest.importorskip("scipy")
    root = write(tmp_path)
    for content in (b"", b"no MATLAB file", bytes(range(256)) * 4):
        (root / MAT).write_bytes(content)
        assert str(root / MAT) in message_of("grid", root)
    assert "trainIdxAll" in message_of("grid", write_mat(root, [[1, 2]], name="other"))


def test_without_scipy_a_warning_is_given_and_half_is_drawn(tmp_path, monkeypatch):
    root = write(tmp_path)
    drawn = rows_of(read("grid", root, split=1))
    (root / MAT).write_bytes(b"never read")

    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.warns(UserWarning, match=r"fedreid-pl\[mat\]"):
        assert rows_of(read("grid", root, split=1)) == drawn


def test_no_warning_without_the_file(tmp_path):
    root = write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read("grid", root)


def test_full_size_drawn(tmp_path):
    root = write(tmp_path, persons=range(1, 251), unmatched=775)
    table = read("grid", root)
    assert len(table) == 1275
    assert counts_of(table) == [125, 250, 125, 125, 125, 900]
    assert (table.identities == DISTRACTOR).sum() == 775
    assert set(table.cameras.tolist()) == set(range(1, 9))


def test_unmatched_persons_are_distractors_of_the_gallery(tmp_path):
    rows = rows_of(read("grid", write(tmp_path)))
    assert [row for row in rows if row[0].startswith("gallery/0000")] == [
        ("gallery/0000_1_0_1.jpeg", DISTRACTOR, 1, "gallery"),
        ("gallery/0000_2_1_1.jpeg", DISTRACTOR, 2, "gallery"),
        ("gallery/0000_3_2_1.jpeg", DISTRACTOR, 3, "gallery"),
    ]


def test_an_unmatched_probe(tmp_path):
    root = touch(write(tmp_path), "probe/0000_1_5_5.jpeg")
    assert str(root / "probe/0000_1_5_5.jpeg") in message_of("grid", root)
