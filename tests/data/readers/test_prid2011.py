"""PRID2011's reader: shared person numbers, and the number of training frames."""

from __future__ import annotations

import pytest
from dataset_files import counts_of, message_of, persons_of, read, rows_of, touch


def write(root, cam_a, cam_b):
    """Creates the dataset; `cam_a` and `cam_b` map a person's number to its number of multi_shot frames."""
    for camera, persons in (("cam_a", cam_a), ("cam_b", cam_b)):
        touch(root, *(f"single_shot/{camera}/person_{person:04d}.png" for person in persons))
        touch(
            root,
            f"multi_shot/{camera}/readme.txt",
            *(
                f"multi_shot/{camera}/person_{person:04d}/{frame:04d}.png"
                for person, count in persons.items()
                for frame in range(1, count + 1)
            ),
        )
    return root


def test_numbers_above_200_are_other_persons_in_camera_b(tmp_path):
    root = write(tmp_path, {200: 1, 7: 1, 201: 1, 385: 1, 9: 1}, {7: 1, 200: 1, 201: 1, 385: 1, 749: 1, 11: 1})
    table = read("prid2011", root)
    (trained,) = persons_of(table, "train") & {7, 200}
    tested = 207 - trained
    assert sorted(rows_of(table)) == sorted(
        [
            (f"multi_shot/cam_a/person_{trained:04d}/0001.png", trained, 1, "train"),
            (f"multi_shot/cam_b/person_{trained:04d}/0001.png", trained, 2, "train"),
            ("multi_shot/cam_a/person_0009/0001.png", 9, 1, "train"),
            ("multi_shot/cam_a/person_0201/0001.png", 201, 1, "train"),
            ("multi_shot/cam_a/person_0385/0001.png", 385, 1, "train"),
            (f"single_shot/cam_a/person_{tested:04d}.png", tested, 1, "query"),
            (f"single_shot/cam_b/person_{tested:04d}.png", tested, 2, "gallery"),
            ("single_shot/cam_b/person_0011.png", 11, 2, "gallery"),
            ("single_shot/cam_b/person_0201.png", 10201, 2, "gallery"),
            ("single_shot/cam_b/person_0385.png", 10385, 2, "gallery"),
            ("single_shot/cam_b/person_0749.png", 10749, 2, "gallery"),
        ]
    )


def test_up_to_ten_frames_are_drawn_for_each_person_and_camera(tmp_path):
    root = write(tmp_path, {1: 40, 2: 40, 201: 40, 202: 40, 203: 9}, {1: 40, 2: 40})
    draws = []
    for split in (0, 1, 0):
        drawn: dict[tuple[int, int], set[str]] = {}
        for path, person, camera, _ in rows_of(read("prid2011", root, split=split).split("train")):
            drawn.setdefault((person, camera), set()).add(path[-8:])
        sizes = {key: len(frames) for key, frames in drawn.items() if key[0] > 200}
        assert sizes == {(201, 1): 10, (202, 1): 10, (203, 1): 9}
        assert all(len(frames) == 10 for key, frames in drawn.items() if key[0] <= 200) and len(drawn) == 5
        assert drawn[201, 1] != drawn[202, 1]
        assert any(int(frame[:4]) > 10 for frame in drawn[201, 1])
        draws.append(drawn)
    assert draws[0] == draws[2]
    assert draws[0][201, 1] != draws[1][201, 1]


def test_full_size_has_the_counts_of_table_1(tmp_path):
    """For ten frames per training person, camera a lacks 102 frames (285 persons) and camera b 4 (100 persons)."""
    for frames in (8, 9, 12):
        touch(tmp_path, *(f"frames/{frames}/{frame:04d}.png" for frame in range(1, frames + 1)))

    def give(camera, person, frames):
        """Links persons with the same number of frames to one shared folder."""
        link = tmp_path / f"set/multi_shot/{camera}/person_{person:04d}"
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / f"frames/{frames}")

    root = write(tmp_path / "set", dict.fromkeys(range(1, 386), 0), dict.fromkeys(range(1, 750), 0))
    for person in range(1, 386):
        give("cam_a", person, 8 if 201 <= person < 252 else 12)
    for person in range(1, 201):
        give("cam_b", person, 12)
    table = read("prid2011", root)
    assert counts_of(table) == [285, 3748, 100, 100, 649, 649]
    shared = sorted(persons_of(table, "train") & set(range(1, 201)))
    assert len(shared) == 100
    for person in shared[::25]:
        give("cam_b", person, 9)
    assert counts_of(read("prid2011", root)) == [285, 3744, 100, 100, 649, 649]


def test_persons_without_frames(tmp_path):
    root = write(tmp_path, {1: 2, 2: 2, 201: 0}, {1: 2, 2: 0, 3: 1})
    for split in range(4):
        table = read("prid2011", root, split=split)
        train = persons_of(table, "train")
        assert len(train) == 1 and train < {1, 2}
        assert len(table.split("train")) == (4 if 1 in train else 2)


def test_only_shared_persons_are_split(tmp_path):
    root = write(tmp_path, {5: 1, 201: 1, 202: 1}, {5: 1, 201: 1, 202: 1})
    assert "1 person(s)" in message_of("prid2011", root)


@pytest.mark.parametrize("camera", ["cam_a", "cam_b"])
def test_two_images_of_one_person(tmp_path, camera):
    root = touch(write(tmp_path, {1: 1, 2: 1}, {1: 1, 2: 1}), f"single_shot/{camera}/person_2.png")
    text = message_of("prid2011", root)
    assert str(root / "single_shot" / camera) in text and "person_0002.png" in text


def test_an_empty_folder_of_frames(tmp_path):
    root = touch(write(tmp_path, {1: 1, 2: 1, 201: 0}, {1: 1, 2: 1}), "multi_shot/cam_a/person_0201/Thumbs.db")
    assert str(root / "multi_shot/cam_a/person_0201") in message_of("prid2011", root)
