"""Common properties of the small datasets in their authors' layouts, on miniatures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_files import message_of, persons_of, read, rows_of, shuffle_listings, touch

from fedreid_pl.data.federated import TestSet
from fedreid_pl.data.layouts import find_layouts
from fedreid_pl.data.readers.original import is_original, two_camera_rows
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN

MINIATURES: dict[str, list[str]] = {
    "3dpes": [f"RGB/{p}_{view}_FRAME_{frame}_RGB.bmp" for p in range(1, 9) for view in (3, 11) for frame in (4, 17)],
    "caviar": [f"CAVIARa/{p:04d}{i:03d}.jpg" for p in range(1, 8) for i in range(1, 21 if p < 7 else 11)],
    "cuhk01": [f"campus/{p:04d}{i:03d}.png" for p in range(1, 8) for i in range(1, 5)],
    "cuhk02": [
        f"Dataset/P{k}/cam{c}/{p:03d}_{i}.png" for k in range(1, 6) for c in (1, 2) for p in (1, 7) for i in "12"
    ],
    "grid": [f"{side}/{p:04d}_{c}_25004_1.jpeg" for side, c in (("probe", 1), ("gallery", 5)) for p in range(1, 9)]
    + [f"gallery/0000_{c}_{c}_2.jpeg" for c in range(1, 9)],
    "ilids": [f"Persons/{p:04d}{i:03d}.jpg" for p in range(1, 10) for i in range(1, 4)],
    "prid2011": [f"single_shot/cam_a/person_{p:04d}.png" for p in (*range(1, 9), 201, 202)]
    + [f"single_shot/cam_b/person_{p:04d}.png" for p in (*range(1, 9), 201, 203)]
    + [
        f"multi_shot/cam_{c}/person_{p:04d}/{i:04d}.png"
        for c in "ab"
        for p in (*range(1, 9), 201)
        for i in range(1, 13)
    ],
    "viper": [f"cam_{c}/{p:03d}_{angle}.bmp" for c, angle in (("a", 0), ("b", 90)) for p in (0, 1, 2, 5, 873, 44)],
}
FIXED = {"cuhk02"}  # one split
RECORDED = {"3dpes", "ilids"}  # split 0 does not depend on the seed
EACH = pytest.mark.parametrize("layout", sorted(MINIATURES))


def write(layout: str, root: Path) -> Path:
    return touch(root, *MINIATURES[layout])


@EACH
def test_only_its_own_reader_recognises_a_dataset(layout, tmp_path):
    root = write(layout, tmp_path / "set")
    assert [key for key, one in find_layouts().items() if one.recognise(root)] == [layout]


@pytest.mark.parametrize("layout", ["3dpes", "caviar", "cuhk01", "ilids"])
def test_the_folder_of_images_may_be_the_root(layout, tmp_path):
    root = write(layout, tmp_path)
    inner = root / os.path.dirname(MINIATURES[layout][0])
    assert [key for key, one in find_layouts().items() if one.recognise(inner)] == [layout]
    shortened = [(os.path.basename(path), *rest) for path, *rest in rows_of(read(layout, root))]
    assert rows_of(read(layout, inner)) == shortened


@EACH
def test_another_folder_is_not_recognised(layout, tmp_path, monkeypatch):
    root = write(layout, tmp_path / "set")
    recognise = find_layouts()[layout].recognise
    assert not recognise(tmp_path)
    assert not recognise(tmp_path / "nowhere")
    assert not recognise(root / MINIATURES[layout][0])

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert not recognise(root)
    monkeypatch.setattr(os, "stat", refuse)
    assert not recognise(root)


@EACH
def test_the_right_folders_with_other_images_are_not_recognised(layout, tmp_path):
    folders = {os.path.dirname(path) for path in MINIATURES[layout]}
    root = touch(tmp_path, *(f"{folder}/{name}" for folder in folders for name in ("holiday.jpg", "0001_c1s1.png")))
    assert not find_layouts()[layout].recognise(root)


@EACH
@pytest.mark.parametrize(
    "made", ["bounding_box_train/0001_c1.jpg", "pytorch/train_all/1/cam_0_00001_00000.png", "train_all/1/0001_c1.jpg"]
)
def test_converted_in_place_is_the_converted_layout(layout, made, tmp_path):
    root = touch(write(layout, tmp_path), made)
    found = [key for key, one in find_layouts().items() if one.recognise(root)]
    assert len(found) == 1 and found != [layout]


def test_archives_extracted_side_by_side_are_not_a_dataset(tmp_path):
    write("cuhk01", write("ilids", tmp_path))
    assert not is_original(tmp_path, "cuhk01") and not is_original(tmp_path, "ilids")


@EACH
def test_order_of_files_and_global_random_state_do_not_matter(layout, tmp_path, monkeypatch):
    root = write(layout, tmp_path)
    expected = rows_of(read(layout, root, split=3, seed=5))
    for seed in range(3):
        with monkeypatch.context() as patch:
            shuffle_listings(patch, seed)
            np.random.seed(seed)
            before = np.random.get_state()[1].tolist()
            assert rows_of(read(layout, root, split=3, seed=5)) == expected
            assert np.random.get_state()[1].tolist() == before


@EACH
def test_hidden_and_other_files_do_not_matter(layout, tmp_path):
    root = write(layout, tmp_path)
    expected = rows_of(read(layout, root))
    for path in MINIATURES[layout]:
        folder, name = os.path.split(path)
        touch(root, f"{folder}/._{name}", f"{folder}/Thumbs.db", f"{folder}/Label.txt", "readme.txt")
    assert rows_of(read(layout, root)) == expected


@EACH
def test_splits_are_drawn_from_seed_and_split(layout, tmp_path):
    root = write(layout, tmp_path)

    def trained(**options):
        return frozenset(persons_of(read(layout, root, **options), "train"))

    splits = {trained(split=split) for split in range(6)}
    seeds = {trained(seed=seed) for seed in range(6)}
    assert (len(splits) == 1) == (layout in FIXED)
    assert (len(seeds) == 1) == (layout in FIXED | RECORDED)
    assert len({trained(split=1, seed=seed) for seed in range(6)}) > 1 or layout in FIXED
    sizes = {len(persons) for persons in splits | seeds}
    assert len(sizes) == 1


@EACH
def test_tables_are_complete_and_queries_have_matches(layout, tmp_path):
    root = write(layout, tmp_path)
    for split in range(3):
        table = read(layout, root, split=split)
        assert table.name == "name" and table.root == root
        assert all(os.path.isfile(file) for file in table.files())
        assert len(set(table.paths)) == len(table)
        assert {row[0] for row in rows_of(table)} <= set(MINIATURES[layout])
        train, query, gallery = (persons_of(table, part) for part in ("train", "query", "gallery"))
        assert not train & (query | gallery)
        assert len(train) > 1 and query <= gallery
        cameras = {(person, camera) for _, person, camera, part in rows_of(table) if part == "gallery"}
        assert not {(person, camera) for _, person, camera, part in rows_of(table) if part == "query"} & cameras
        TestSet("name", table.split("query"), table.split("gallery"))  # raises an error without any match
        assert (table.identities.dtype, table.cameras.dtype, table.splits.dtype) == (np.int64, np.int64, np.uint8)


@EACH
def test_train_only_is_the_training_part(layout, tmp_path):
    root = write(layout, tmp_path)
    rows = rows_of(read(layout, root, train_only=True, split=2))
    assert {row[3] for row in rows} == {"train"}
    if layout == "cuhk02":
        assert [row[0] for row in rows] == sorted(MINIATURES[layout])
    else:
        assert rows == rows_of(read(layout, root, split=2).split("train"))


def listed_folders(layout: str) -> list[str]:
    """Returns the required folders: those with images, without PRID2011's folders of single persons."""
    folders = {os.path.dirname(path) for path in MINIATURES[layout]}
    return sorted({os.path.dirname(folder) if "/person_" in folder else folder for folder in folders})


@EACH
def test_the_error_names_a_missing_or_empty_folder(layout, tmp_path):
    root = write(layout, tmp_path / "set")
    for folder in listed_folders(layout):
        (root / folder).rename(tmp_path / "away")
        text = message_of(layout, root)
        assert str(root / folder) in text and "no such folder" in text
        touch(root, f"{folder}/readme.txt")
        if "multi_shot" not in folder:  # folders of single persons may be missing
            text = message_of(layout, root)
            assert str(root / folder) in text and "contains no image" in text
        shutil.rmtree(root / folder)
        (tmp_path / "away").rename(root / folder)


@EACH
def test_the_error_names_a_misnamed_image(layout, tmp_path):
    root = write(layout, tmp_path / "set")
    for folder in listed_folders(layout):
        if "multi_shot" in folder:  # names of frames are not parsed
            continue
        for name in ("holiday.png", "12.jpg", "person 1_2.bmp"):
            touch(root, f"{folder}/{name}")
            text = message_of(layout, root)
            assert str(root / folder / name) in text and "expected" in text
            (root / folder / name).unlink()


@pytest.mark.parametrize("layout", sorted(MINIATURES.keys() - FIXED))
def test_one_person_cannot_be_split(layout, tmp_path):
    names = ("0001", "_0001", "/001", "RGB/1_")
    ones = [path for path in MINIATURES[layout] if any(name in path for name in names) and "/0000" not in path]
    root = touch(tmp_path, *ones)
    assert str(root) in message_of(layout, root) and "1 person(s)" in message_of(layout, root)


def test_two_camera_rows_by_hand():
    images = [("a", 7, 1), ("b", 7, 2), ("c", 9, 1), ("d", 9, 2), ("e", 3, 2)]
    train = [("a", 7, 1, TRAIN), ("b", 7, 2, TRAIN)]
    assert two_camera_rows(images, {7}, train_only=True) == train
    tested = [("c", 9, 1, QUERY), ("d", 9, 2, GALLERY), ("e", 3, 2, GALLERY)]
    assert two_camera_rows(images, {7}, train_only=False) == train + tested
