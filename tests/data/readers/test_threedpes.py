"""3DPeS's reader: pseudo cameras by view, and the certain counts of Table 1."""

from __future__ import annotations

import numpy as np
from dataset_files import counts_of, message_of, persons_of, read, rows_of, touch

FRAMES = ("4", "17", "101")


def write(root, views, frames=FRAMES):
    """Creates the dataset; `views` maps a person to the names of its views, each with all frames."""
    return touch(
        root, *(f"RGB/{p}_{view}_FRAME_{frame}_RGB.bmp" for p in views for view in views[p] for frame in frames)
    )


def cameras_of(table):
    """Returns the cameras of the images by (person, view)."""
    cameras: dict[tuple[int, str], set[int]] = {}
    for path, person, camera, _ in rows_of(table):
        cameras.setdefault((person, path.split("_")[1]), set()).add(camera)
    return cameras


def test_a_view_has_one_camera_and_half_of_the_views_are_camera_1(tmp_path):
    views = {1: ["5"], 2: ["16", "3"], 7: ["1", "2", "10"], 100: ["1", "2", "3", "4", "5"]}
    table = read("3dpes", write(tmp_path, views))
    cameras = cameras_of(table)
    assert all(len(found) == 1 for found in cameras.values())
    first = {person: sum(cameras[person, view] == {1} for view in own) for person, own in views.items()}
    assert first == {1: 0, 2: 1, 7: 1, 100: 2}
    assert len(table) == 3 * 11
    assert {row[1] for row in rows_of(table)} == set(views)


def test_full_size_has_the_certain_counts_of_table_1(tmp_path):
    """The dataset has 193 persons, 29 of them with a single view; the numbers have gaps."""
    numbers = list(range(1, 205))
    del numbers[3:201:18]
    assert len(numbers) == 193
    single = set(numbers[::7]) | {numbers[1]}
    assert len(single) == 29
    root = write(tmp_path, {person: ["1"] if person in single else ["8", "21"] for person in numbers}, "5")
    table = read("3dpes", root, seed=3)
    tested = {numbers[place] for place in np.random.RandomState(9686).permutation(193)[:100].tolist()}
    assert persons_of(table, "gallery") == tested
    assert persons_of(table, "query") == tested - single
    assert persons_of(table, "train") == set(numbers) - tested
    assert counts_of(table)[0] == 93
    assert len(table) == 29 + 2 * 164
    other = read("3dpes", root, split=1)
    assert len(persons_of(other, "gallery")) == 100 and persons_of(other, "gallery") != tested


def test_fewer_persons_are_halved(tmp_path):
    for count, sizes in ((2, (1, 1)), (7, (3, 4)), (192, (96, 96))):
        root = write(tmp_path / str(count), {person: ["1", "2"] for person in range(count)}, frames="7")
        table = read("3dpes", root)
        assert (len(persons_of(table, "train")), len(persons_of(table, "query"))) == sizes


def test_pseudo_cameras_depend_only_on_the_person(tmp_path):
    few = {person: list("abcdef") for person in (1, 2, 30)}
    many = few | {person: list("xyz") for person in range(40, 50)}
    expected = cameras_of(read("3dpes", write(tmp_path / "few", few)))
    for options in ({}, {"split": 4}, {"split": 4, "seed": 9}):
        found = cameras_of(read("3dpes", write(tmp_path / "many", many), **options))
        assert {view: found[view] for view in expected} == expected
    assert len({tuple(expected[person, view] == {1} for view in "abcdef") for person in few}) > 1


def test_padded_numbers_and_short_names(tmp_path):
    root = touch(tmp_path, "RGB/001_2.bmp", "RGB/001_3_9.bmp", "RGB/1_2_x.bmp", "RGB/2_1.bmp")
    rows = rows_of(read("3dpes", root))
    assert sorted((path, person) for path, person, _, _ in rows) == [
        ("RGB/001_2.bmp", 1),
        ("RGB/001_3_9.bmp", 1),
        ("RGB/1_2_x.bmp", 1),
        ("RGB/2_1.bmp", 2),
    ]


def test_a_name_without_a_view(tmp_path):
    root = touch(write(tmp_path, {1: "1", 2: "1"}), "RGB/5.bmp")
    assert str(root / "RGB/5.bmp") in message_of("3dpes", root)
