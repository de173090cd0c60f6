"""CUHK01's reader."""

from __future__ import annotations

import pytest
from dataset_files import counts_of, message_of, persons_of, read, rows_of, touch


def test_cuhk01_by_hand(tmp_path):
    root = touch(tmp_path, *(f"campus/{stem}.png" for stem in ("0007003", "0007001", "0007004", "0007002")))
    touch(root, "campus/0971002.png", "campus/0971003.png", "campus/0971001.png", "campus/0971004.png")
    table = read("cuhk01", root)
    (trained,) = persons_of(table, "train")
    tested = 978 - trained
    assert rows_of(table) == [
        (f"campus/{trained:04d}001.png", trained, 1, "train"),
        (f"campus/{trained:04d}002.png", trained, 1, "train"),
        (f"campus/{trained:04d}003.png", trained, 2, "train"),
        (f"campus/{trained:04d}004.png", trained, 2, "train"),
        (f"campus/{tested:04d}001.png", tested, 1, "query"),
        (f"campus/{tested:04d}002.png", tested, 1, "query"),
        (f"campus/{tested:04d}003.png", tested, 2, "gallery"),
        (f"campus/{tested:04d}004.png", tested, 2, "gallery"),
    ]


def test_a_person_of_one_camera_is_a_query_without_match_or_a_distractor(tmp_path):
    root = touch(tmp_path, *(f"campus/{person:04d}{image:03d}.png" for person in (1, 2, 3, 4) for image in (1, 3)))
    touch(root, "campus/0005001.png", "campus/0005002.png", "campus/0006004.png")
    for split in range(8):
        table = read("cuhk01", root, split=split)
        assert len(table) == 11
        for person, side in ((5, "query"), (6, "gallery")):
            assert {row[3] for row in rows_of(table) if row[1] == person} <= {"train", side}


def test_full_size_has_the_counts_of_table_1(tmp_path):
    root = touch(
        tmp_path, *(f"campus/{person:04d}{image:03d}.png" for person in range(1, 972) for image in range(1, 5))
    )
    assert counts_of(read("cuhk01", root)) == [485, 1940, 486, 972, 486, 972]
    assert counts_of(read("cuhk01", root, split=9, seed=3)) == [485, 1940, 486, 972, 486, 972]


@pytest.mark.parametrize("name", ["0001000.png", "0001005.png", "0001014.png", "001001.png", "00010010.png", "1.png"])
def test_a_name_that_does_not_parse(tmp_path, name):
    root = touch(tmp_path, "campus/0001001.png", "campus/0002001.png", f"campus/{name}")
    assert str(root / "campus" / name) in message_of("cuhk01", root)
