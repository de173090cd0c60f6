"""VIPeR's reader."""

from __future__ import annotations

from dataset_files import counts_of, message_of, persons_of, read, rows_of, touch

PERSONS = [0, 1, 5, 44, 700, 873]
ANGLES = [0, 45, 90, 135, 180]


def write(root, persons=PERSONS):
    """Creates the dataset; angles differ between the cameras, and thus the order of the file names."""
    return touch(
        root,
        *(f"cam_a/{person:03d}_{ANGLES[person % 5]}.bmp" for person in persons),
        *(f"cam_b/{person:03d}_{ANGLES[-person % 5]}.bmp" for person in persons),
    )


def test_viper_by_name(tmp_path):
    table = read("viper", write(tmp_path))
    train = persons_of(table, "train")
    expected = []
    for person in PERSONS:
        a = f"cam_a/{person:03d}_{(person % 5) * 45}.bmp"
        b = f"cam_b/{person:03d}_{((5 - person % 5) % 5) * 45}.bmp"
        if person in train:
            expected += [(a, person, 1, "train"), (b, person, 2, "train")]
        else:
            expected += [(a, person, 1, "query"), (b, person, 2, "gallery")]
    assert len(train) == 3
    assert sorted(rows_of(table)) == sorted(expected)


def test_person_zero_is_a_person(tmp_path):
    table = read("viper", write(tmp_path))
    assert 0 in persons_of(table, "train") | persons_of(table, "query")
    assert (table.identities >= 0).all()


def test_a_missing_image_does_not_shift_the_others(tmp_path):
    root = write(tmp_path)
    (root / "cam_b/005_0.bmp").unlink()
    table = read("viper", root)
    for path, person, camera, _ in rows_of(table):
        assert path.startswith(f"cam_{' ab'[camera]}/{person:03d}_")
    assert len(table) == 2 * len(PERSONS) - 1


def test_full_size_has_the_counts_of_table_1(tmp_path):
    # 632 persons whose numbers have gaps, up to 873
    persons = sorted({*range(0, 874, 2), *range(1, 874, 4)} - {2 * k for k in range(24)} | {873})[:632]
    assert len(persons) == 632
    root = write(tmp_path, persons)
    table = read("viper", root)
    assert counts_of(table) == [316, 632, 316, 316, 316, 316]
    assert len({frozenset(persons_of(read("viper", root, split=split), "train")) for split in range(10)}) == 10


def test_a_name_without_a_person(tmp_path):
    for name in ("_45.bmp", "000.bmp", "000_.bmp", "a00_45.bmp", "000_45_1.bmp"):
        root = touch(write(tmp_path / name), f"cam_b/{name}")
        assert str(root / "cam_b" / name) in message_of("viper", root)
