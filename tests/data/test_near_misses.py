"""Error messages about a dataset of the catalogue that was not found."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_files import touch
from known_datasets import MARKET, MSMT, PRID, write

from fedreid_pl.config import DataConfig
from fedreid_pl.data.catalogue import CATALOGUE, find_folders
from fedreid_pl.data.locating import locate_dataset
from fedreid_pl.data.near_misses import near_misses
from fedreid_pl.errors import FedReIDError


def hints(dataset: str, root: Path) -> str:
    assert find_folders(CATALOGUE[dataset], root) == []
    found = near_misses(CATALOGUE[dataset], root)
    assert len(found) == 1, found
    return found[0]


def message(root: Path, name: str, key: str = "data.datasets", layout: str = "auto") -> str:
    with pytest.raises(FedReIDError) as caught:
        locate_dataset(DataConfig(root=str(root), layout=layout), root, name, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_error_lists_the_expected_names_and_the_existing_folders(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "veri/a.jpg")
    text = message(tmp_path, "Market-1501")
    assert text.startswith(f"data.datasets: Market-1501 is not in {tmp_path}; looked for")
    assert "Market-1501-v15.09.15" in text and "there is veri, notes.txt" in text
    assert "data.public=null" not in text and "data.public=null" in message(tmp_path, "CUHK02", "data.public")


def test_an_empty_or_crowded_root(tmp_path: Path) -> None:
    assert "there is nothing" in message(tmp_path, "VIPeR")
    touch(tmp_path, *(f"file{number:03d}" for number in range(30)))
    assert "file007 and 22 more" in message(tmp_path, "VIPeR")


@pytest.mark.parametrize(
    ("dataset", "folder", "files", "parts"),
    [
        ("VIPeR", ".", ["VIPeR.v1.0.zip"], ["the archive VIPeR.v1.0.zip is not unpacked"]),
        ("MSMT17", ".", ["MSMT17_V1.tar.gz"], ["the archive MSMT17_V1.tar.gz is not unpacked"]),
        ("PRID2011", "prid2011", ["prid_2011.rar"], ["prid2011 contains the archive prid_2011.rar: unpack it there"]),
        ("3DPeS", "3DPeS", ["masks/a/b.txt"], ["3DPeS contains masks: expected RGB"]),
        ("i-LIDS", "i-LIDS-VID", ["sequences/cam1/a.png"], ["300 persons", "counts QMUL i-LIDS"]),
        ("PRID2011", "prid_450s", ["cam_a/1.png"], ["PRID 450S is another dataset"]),
        ("MSMT17", "MSMT17", MSMT, ["MSMT17 has train, test but lacks list_train.txt, list_val.txt"]),
        ("Market-1501", "market", MARKET[3:], ["has query, bounding_box_test but lacks bounding_box_train"]),
        ("GRID", "GRID", ["gallery/0001_1_1.jpeg"], ["has gallery but lacks probe"]),
        ("VIPeR", "viper", PRID, ["viper has the layout of PRID2011", "expected cam_a and cam_b"]),
        ("Market-1501", "market/a/b", MARKET, ["nested too deep", "move the content of a/b up into market"]),
    ],
)
def test_a_folder_that_is_nearly_right(
    tmp_path: Path, dataset: str, folder: str, files: list[str], parts: list[str]
) -> None:
    touch(tmp_path / folder, *files)
    text = hints(dataset, tmp_path)
    assert all(part in text for part in parts), text


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "viper").mkdir()
    assert "viper is empty" in hints("VIPeR", tmp_path)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "viper/x")
    monkeypatch.setattr("fedreid_pl.data.near_misses.os.access", lambda path, mode: Path(path).name != "viper")
    assert "viper cannot be read: check its permissions" in hints("VIPeR", tmp_path)


def test_another_name(tmp_path: Path) -> None:
    write(tmp_path, "Market-1501", "my_market_copy")
    assert "rename my_market_copy to Market-1501" in hints("Market-1501", tmp_path)


def test_a_root_too_high_or_too_low(tmp_path: Path) -> None:
    place = write(tmp_path, "VIPeR", "reid/viper")
    assert f"data.root={tmp_path / 'reid'}" in hints("VIPeR", tmp_path)
    assert f"data.root={tmp_path / 'reid'}" in hints("VIPeR", place)


def test_a_layout_that_only_auto_reads(tmp_path: Path) -> None:
    write(tmp_path, "MSMT17", "MSMT17_V1")
    text = message(tmp_path, "MSMT17", layout="market1501")
    assert "MSMT17_V1 is not in the layout market1501: data.layout=auto reads it" in text


def test_labeled_boxes_alone_are_not_the_benchmark(tmp_path: Path) -> None:
    write(tmp_path, "CUHK03-NP", "cuhk03-np/labeled")
    text = hints("CUHK03-NP", tmp_path)
    assert "labeled but not detected" in text and "such as cuhk03-np/labeled" in text
