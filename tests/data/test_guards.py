"""Images shared by two clients, and public images of a client's test persons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedreid_pl.config import DataConfig
from fedreid_pl.data.guards import check_no_shared_images, guarded_public
from fedreid_pl.data.samples import TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError


def table_of(name: str, root: Path, *paths: str, layout: str = "") -> SampleTable:
    rows = np.arange(len(paths))
    return SampleTable(name, root, paths, rows, rows, np.full(len(paths), TRAIN, dtype=np.uint8), layout)


def test_equal_file_names_in_different_folders_are_not_shared_images(tmp_path: Path) -> None:
    check_no_shared_images([table_of(name, tmp_path / name, "1.jpg", "2.jpg") for name in "ab"])


def test_a_link_and_a_folder_within_another_are_found(tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    whole = table_of("whole", tmp_path / "a", "0.jpg", "sub/1.jpg")
    for other in (table_of("b", tmp_path / "link", "0.jpg"), table_of("b", tmp_path / "a" / "sub", "1.jpg")):
        with pytest.raises(FedReIDError, match=r"is an image of whole and of b; two clients may not share images"):
            check_no_shared_images([whole, other])


PUBLIC = ("P1/cam1/001_1.png", "P1/cam2/001_2.png", "P2/cam1/001_1.png", "P10/cam1/001_1.png")


@pytest.mark.parametrize("prefix", ["", "Dataset/"])
def test_the_persons_of_cuhk01_in_cuhk02_are_refused_dropped_or_kept(tmp_path: Path, prefix: str) -> None:
    public = table_of("shared", tmp_path, *(prefix + path for path in PUBLIC), layout="cuhk02")
    client = table_of("campus", tmp_path / "campus", "0001001.png", layout="cuhk01")
    with pytest.raises(
        FedReIDError, match=r"its part P1 shows the test persons of campus.*data\.public_overlap=drop removes its 2"
    ):
        guarded_public(DataConfig(), public, [client])
    left = guarded_public(DataConfig(public_overlap="drop"), public, [client])
    assert left.paths == tuple(prefix + path for path in PUBLIC[2:])
    assert guarded_public(DataConfig(public_overlap="keep"), public, [client]) is public


def test_other_datasets_are_accepted_and_unidentifiable_ones_are_refused(tmp_path: Path) -> None:
    public = table_of("CUHK02", tmp_path, "train_all/1/1.png", layout="fedreid_processed")
    assert guarded_public(DataConfig(), public, [table_of("viper", tmp_path / "v", "1.png")]) is public
    mini = table_of("mini-cuhk02", tmp_path, "1.png", layout="market1501")
    assert guarded_public(DataConfig(), mini, [table_of("mini-cuhk01", tmp_path / "v", "1.png")]) is mini
    with pytest.raises(FedReIDError, match="cannot be identified"):
        guarded_public(DataConfig(public_overlap="drop"), public, [table_of("cuhk01", tmp_path / "c", "1.png")])
