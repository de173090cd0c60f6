"""CUHK02's reader."""

from __future__ import annotations

import pytest
from dataset_files import counts_of, message_of, read, rows_of, touch

PERSONS = {1: 97, 2: 30, 3: 10, 4: 19, 5: 23}
"""A tenth of the persons of each pair of cameras."""


def names(persons, pairs="12345"):
    return [f"P{pair}/cam{view}/{person:03d}_{view}.png" for pair in pairs for view in "12" for person in persons]


@pytest.mark.parametrize("top", ["", "Dataset/"])
def test_cuhk02_by_hand(tmp_path, top):
    """Equal numbers in different pairs are different persons, and each pair has two separate cameras."""
    root = touch(tmp_path, *(top + name for name in names([12])))
    assert rows_of(read("cuhk02", root)) == [
        (f"{top}P1/cam1/012_1.png", 10012, 1, "train"),
        (f"{top}P1/cam2/012_2.png", 10012, 2, "train"),
        (f"{top}P2/cam1/012_1.png", 20012, 3, "train"),
        (f"{top}P2/cam2/012_2.png", 20012, 4, "train"),
        (f"{top}P3/cam1/012_1.png", 30012, 5, "train"),
        (f"{top}P3/cam2/012_2.png", 30012, 6, "train"),
        (f"{top}P4/cam1/012_1.png", 40012, 7, "train"),
        (f"{top}P4/cam2/012_2.png", 40012, 8, "train"),
        (f"{top}P5/cam1/012_1.png", 50012, 9, "query"),
        (f"{top}P5/cam2/012_2.png", 50012, 10, "gallery"),
    ]


def test_a_person_of_one_camera(tmp_path):
    root = touch(tmp_path, *names([1, 2]), "P3/cam2/009_1.png", "P5/cam2/077_1.png")
    rows = rows_of(read("cuhk02", root))
    assert ("P3/cam2/009_1.png", 30009, 6, "train") in rows
    assert ("P5/cam2/077_1.png", 50077, 10, "gallery") in rows


def test_counts(tmp_path):
    """The dataset has two images per person and camera: 156 persons in four pairs and 23 in the last."""
    root = touch(
        tmp_path,
        *(
            f"P{pair}/cam{view}/{person}_{image}.png"
            for pair, count in PERSONS.items()
            for view in (1, 2)
            for person in range(1, count + 1)
            for image in (1, 2)
        ),
    )
    assert counts_of(read("cuhk02", root)) == [156, 624, 23, 46, 23, 46]
    assert counts_of(read("cuhk02", root, train_only=True)) == [179, 716, 0, 0, 0, 0]


def test_a_public_set_needs_all_pairs_too(tmp_path):
    root = touch(tmp_path, *names([1, 2], pairs="1234"))
    assert f"{root / 'P5' / 'cam1'}: no such folder" in message_of("cuhk02", root, train_only=True)


def test_a_name_without_a_person(tmp_path):
    root = touch(tmp_path, *names([1]), "P2/cam2/person.png")
    assert str(root / "P2/cam2/person.png") in message_of("cuhk02", root)
