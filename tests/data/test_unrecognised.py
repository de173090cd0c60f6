"""Folders of `data.root` without a dataset are listed with the most similar layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_files import touch
from known_datasets import FILES, write

from fedreid_pl.config import DataConfig
from fedreid_pl.data.check import check_data
from fedreid_pl.data.layouts import find_layouts
from fedreid_pl.data.locating import unread_folders
from fedreid_pl.data.unrecognised import MARKS, closest_layouts, why_not
from fedreid_pl.errors import FedReIDError


def lines(root: Path, **options) -> dict[str, str]:
    """Returns the remarks by the folder at the start of each line."""
    config = DataConfig(root=str(root), **{"layout": "auto", **options})
    return {Path(line.partition(":")[0]).name: line for line in unread_folders(config, root)}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["bounding_box_test/a.jpg", "query/a.jpg"], "market1501 (has query, bounding_box_test; lacks bounding_box_tr"),
        (["Bounding_Box_Train/a.jpg"], "market1501 (has Bounding_Box_Train for bounding_box_train; lacks query, bound"),
        (["train/1/a.jpg", "gallery/1/a.jpg"], "id_folders (has train, gallery; lacks query)"),
        (["meta.json"], "dgd (has meta.json; lacks split.json)"),
        (
            ["cam_a/odd.png", "cam_b/odd.png"],
            "viper (has cam_a, cam_b, but does not contain cam_a and cam_b with images",
        ),
        (["single_shot/cam_a/x.png"], "prid2011 (has single_shot/cam_a; lacks single_shot/cam_b)"),
        (
            ["queries/1/a.jpg"],
            "no layout is similar; it contains queries; for a folder of person crops, set data=crops data.root=",
        ),
        ([], "no layout is similar; it contains no files"),
    ],
)
def test_a_folder_is_listed_with_the_closest_layouts(tmp_path, paths, expected):
    write(tmp_path, "VIPeR", "good")
    (tmp_path / "odd").mkdir()
    touch(tmp_path / "odd", *paths)
    found = lines(tmp_path)
    assert list(found) == ["odd"] and expected in found["odd"]


def test_a_folder_in_another_layout_or_one_deeper(tmp_path):
    write(tmp_path, "Market-1501", "good")
    write(tmp_path, "VIPeR", "other")
    write(tmp_path / "deeper", "VIPeR", "inner")
    found = lines(tmp_path, layout="market1501")
    assert "has the layout viper, not market1501; data.layout=auto reads it" in found["other"]
    assert "data.datasets=[deeper/inner]" in found["deeper"]
    assert "other" not in lines(tmp_path)


def test_pictures_in_the_root_and_folders_of_systems(tmp_path):
    write(tmp_path, "VIPeR", "good")
    touch(tmp_path, "b.jpg", "a.jpg", "notes.txt", "__MACOSX/x", ".git/x")
    found = lines(tmp_path)
    assert len(found) == 1
    assert f"{tmp_path}: 2 pictures directly in this folder are not read, such as a.jpg" in found[tmp_path.name]


def test_with_named_datasets_other_folders_are_ignored(tmp_path):
    write(tmp_path, "VIPeR", "good")
    (tmp_path / "odd").mkdir()
    assert lines(tmp_path, datasets=["good"]) == {}


def test_a_root_without_any_dataset(tmp_path):
    touch(tmp_path / "odd", "query/1.jpg")
    with pytest.raises(FedReIDError, match=r"contains no dataset in a known layout.*market1501 \(has query; lacks"):
        check_data(DataConfig(root=str(tmp_path), layout="auto"))


@pytest.mark.parametrize("dataset", list(FILES))
def test_every_layout_comes_closest_to_its_own_dataset(tmp_path, dataset):
    root = write(tmp_path, dataset)
    assert any(line.startswith(f"{key} (") for line in closest_layouts(root) for key in MARKS)
    assert "has the layout" in why_not(root)


def test_every_layout_that_can_be_recognised_has_marks():
    assert MARKS.keys() == find_layouts().keys() - {"cuhk03_mat_labeled", "crops"}
