"""The table of samples compared with dictionaries and loops over plain rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, SPLITS, TRAIN, SampleTable, concatenate

ROW = st.tuples(st.integers(-2, 6), st.integers(0, 15), st.sampled_from((TRAIN, QUERY, GALLERY)))
ROWS = st.lists(ROW, max_size=12)


def make(rows, name="set", root="/data/set") -> SampleTable:
    """Returns a table of `(identity, camera, split)` rows with invented paths."""
    identities, cameras, splits = zip(*rows, strict=True) if rows else ((), (), ())
    return SampleTable(
        name,
        Path(root),
        tuple(f"folder/{number}.jpg" for number in range(len(rows))),
        np.array(identities, dtype=np.int64),
        np.array(cameras, dtype=np.int64),
        np.array(splits, dtype=np.uint8),
    )


def rows_of(table):
    return list(zip(table.paths, table.identities.tolist(), table.cameras.tolist(), table.splits.tolist(), strict=True))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"viper.*different lengths"):
        SampleTable("viper", Path("/"), ("a.jpg",), np.zeros(2, int), np.zeros(1, int), np.zeros(1, np.uint8))


@given(ROWS)
def test_splits_partition_the_rows_and_keep_their_order(rows):
    table = make(rows)
    everything = rows_of(table)
    for name, code in SPLITS.items():
        part = table.split(name)
        assert rows_of(part) == [row for row in everything if row[3] == code]
        assert (part.name, part.root, len(part)) == (table.name, table.root, len(part.paths))


@given(st.data())
def test_take_returns_the_rows_in_the_given_order(data):
    rows = data.draw(st.lists(ROW, min_size=1, max_size=12))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
    everything = rows_of(make(rows))
    assert rows_of(make(rows).take(chosen)) == [everything[number] for number in chosen]
    assert rows_of(make(rows).take(np.array(chosen, dtype=np.int32))) == [everything[number] for number in chosen]


def test_files_are_full_paths():
    assert make([(1, 1, TRAIN)], root="/data/market").files() == ["/data/market/folder/0.jpg"]


def test_labels_close_gaps_in_ascending_order():
    table = make([(40, 1, TRAIN), (2, 1, TRAIN), (0, 1, TRAIN), (40, 2, TRAIN), (1501, 1, TRAIN)])
    assert table.labels().tolist() == [2, 1, 0, 2, 3]
    assert table.labels().dtype == np.int64
    assert table.num_identities() == 4


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_labels_do_not_depend_on_the_order_of_rows(identities, random):
    known = {identity: label for label, identity in enumerate(sorted(set(identities)))}
    shuffled = random.sample(identities, len(identities))
    for order in (identities, shuffled):
        table = make([(identity, 0, TRAIN) for identity in order])
        assert table.labels().tolist() == [known[identity] for identity in order]


@given(ROWS)
def test_junk_and_distractors_are_not_persons(rows):
    assert make(rows).num_identities() == len({identity for identity, *_ in rows if identity >= 0})


@settings(max_examples=200)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_concatenated_tables_keep_persons_and_cameras_apart(parts):
    tables = [make(rows, f"set{number}", f"/data/set{number}") for number, rows in enumerate(parts)]
    union = concatenate(tables, "union")
    assert union.name == "union"
    assert union.files() == [file for table in tables for file in table.files()]
    assert union.splits.tolist() == [row[2] for rows in parts for row in rows]

    old = [(number, *row[:2]) for number, rows in enumerate(parts) for row in rows]
    new = list(zip(union.identities.tolist(), union.cameras.tolist(), strict=True))
    persons, cameras = {}, {}
    for (number, identity, camera), (new_identity, new_camera) in zip(old, new, strict=True):
        if identity < 0:
            assert new_identity == identity
        else:
            assert persons.setdefault((number, identity), new_identity) == new_identity >= 0
        assert cameras.setdefault((number, camera), new_camera) == new_camera >= 0
    assert len(set(persons.values())) == len(persons)
    assert len(set(cameras.values())) == len(cameras)
    assert union.num_identities() == sum(table.num_identities() for table in tables)


def test_concatenation_of_colliding_numbers_by_hand():
    first = make([(1, 1, TRAIN), (JUNK, 6, GALLERY), (751, 2, TRAIN)])
    second = make([(0, 1, TRAIN), (DISTRACTOR, 2, GALLERY), (1, 15, QUERY)])
    union = concatenate([first, second], "both")
    assert union.identities.tolist() == [1, JUNK, 751, 752, DISTRACTOR, 753]
    assert union.cameras.tolist() == [1, 6, 2, 8, 9, 22]
    assert (union.identities.dtype, union.cameras.dtype, union.splits.dtype) == (np.int64, np.int64, np.uint8)


def test_concatenation_does_not_change_its_parts():
    first, second = make([(3, 1, TRAIN)]), make([(3, 1, TRAIN)])
    concatenate([first, second], "both")
    assert rows_of(first) == rows_of(second) == [("folder/0.jpg", 3, 1, TRAIN)]


def test_concatenation_of_relative_roots_finds_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "data" / name / "folder").mkdir(parents=True)
        (tmp_path / "data" / name / "folder" / "0.jpg").write_text(name)
    union = concatenate([make([(1, 1, TRAIN)], name, f"data/{name}") for name in ("a", "b")], "both")
    assert all(os.path.isabs(file) for file in union.files())
    assert [Path(file).read_text() for file in union.files()] == ["a", "b"]


def test_an_empty_concatenation_is_refused():
    with pytest.raises(ValueError, match="nothing"):
        concatenate([], "empty")
