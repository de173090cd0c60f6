"""i-LIDS's reader: pseudo cameras, and the counts of Table 1."""

from __future__ import annotations

from collections import Counter

import numpy as np
from dataset_files import counts_of, persons_of, read, rows_of, touch

# numbers of images of persons 1 to 119, counted in FedReID's meta.json
IMAGES = (
    "4433442244553377226633668866538855776666366655333445544333333445533333333554444664422223322222222"
    "6622222444334335523344"
)


def write(root, images):
    """Creates the dataset; `images` lists the number of images of each person, from person 1."""
    count = [int(number) for number in images]
    return touch(
        root, *(f"Persons/{p:04d}{i:03d}.jpg" for p, number in enumerate(count, 1) for i in range(1, number + 1))
    )


def test_full_size_has_the_counts_of_table_1(tmp_path):
    assert len(IMAGES) == 119 and sum(map(int, IMAGES)) == 476
    root = write(tmp_path, IMAGES)
    assert counts_of(read("ilids", root)) == [59, 248, 60, 98, 60, 130]
    assert counts_of(read("ilids", root, seed=7)) == [59, 248, 60, 98, 60, 130]
    other = counts_of(read("ilids", root, split=1))
    assert [other[0], other[2], other[4]] == [59, 60, 60] and sum(other[1::2]) == 476


def test_the_persons_of_the_recorded_split(tmp_path):
    table = read("ilids", write(tmp_path, IMAGES))
    places = np.random.RandomState(411).permutation(119)
    assert persons_of(table, "query") == {place + 1 for place in places[59:].tolist()}


def test_the_first_half_of_the_images_is_camera_1(tmp_path):
    table = read("ilids", write(tmp_path, "1234567"))
    cameras = Counter((person, camera) for _, person, camera, _ in rows_of(table))
    expected = {1: (0, 1), 2: (1, 1), 3: (1, 2), 4: (2, 2), 5: (2, 3), 6: (3, 3), 7: (3, 4)}
    assert {person: (cameras[person, 1], cameras[person, 2]) for person in range(1, 8)} == expected


def test_pseudo_cameras_depend_only_on_the_person(tmp_path):
    few, many = write(tmp_path / "few", "888"), write(tmp_path / "many", "88845678")
    expected = {path: camera for path, _, camera, _ in rows_of(read("ilids", few))}
    for options in ({}, {"split": 4}, {"split": 4, "seed": 9}):
        cameras = {path: camera for path, _, camera, _ in rows_of(read("ilids", many, **options))}
        assert {path: cameras[path] for path in expected} == expected
    by_person = {
        tuple(expected[f"Persons/{person:04d}{image:03d}.jpg"] for image in range(1, 9)) for person in (1, 2, 3)
    }
    assert len(by_person) == 3  # drawn separately for each person
