"""CAVIAR4REID's reader."""

from __future__ import annotations

import pytest
from dataset_files import counts_of, message_of, persons_of, read, rows_of, touch


def write(root, images):
    """Creates the dataset; `images` maps a person to the numbers of its images."""
    return touch(root, *(f"CAVIARa/{p:04d}{image:03d}.jpg" for p, own in images.items() for image in own))


def test_caviar_by_hand(tmp_path):
    root = write(tmp_path, {3: (10, 11), 5: (1, 20), 8: range(1, 11), 9: (12, 13)})
    table = read("caviar", root)
    (trained,) = persons_of(table, "train")
    names = {3: ("0003010", "0003011"), 5: ("0005001", "0005020")}
    first, second = names[trained]
    query, gallery = names[8 - trained]
    assert rows_of(table) == [
        (f"CAVIARa/{first}.jpg", trained, 1, "train"),
        (f"CAVIARa/{second}.jpg", trained, 2, "train"),
        (f"CAVIARa/{query}.jpg", 8 - trained, 1, "query"),
        (f"CAVIARa/{gallery}.jpg", 8 - trained, 2, "gallery"),
    ]


def test_full_size(tmp_path):
    """The dataset has 50 persons of both cameras and 22 of one camera."""
    one = {3 * k for k in range(1, 23)}
    root = write(tmp_path, {p: range(1, 11 if p in one else 21) for p in range(1, 73)})
    table = read("caviar", root)
    assert counts_of(table) == [25, 500, 25, 250, 25, 250]
    assert not one & {row[1] for row in rows_of(table)}


@pytest.mark.parametrize("name", ["0001000.jpg", "0001021.jpg", "0001999.jpg"])
def test_an_image_of_neither_camera(tmp_path, name):
    root = touch(write(tmp_path, {1: (1, 11), 2: (1, 11)}), f"CAVIARa/{name}")
    assert str(root / "CAVIARa" / name) in message_of("caviar", root)


def test_persons_of_one_camera_do_not_count(tmp_path):
    root = write(tmp_path, {1: (1, 11), 2: (1, 2), 3: (11, 12)})
    assert "1 person(s)" in message_of("caviar", root)
