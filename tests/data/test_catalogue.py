"""The paper's datasets by name: the search for their folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_files import touch
from known_datasets import FILES, PROCESSED, write

from fedreid_pl.config import DataConfig, compose
from fedreid_pl.data.catalogue import CATALOGUE, find_folders, identify
from fedreid_pl.data.layouts import find_layouts, recognise_layout
from fedreid_pl.data.locating import dataset_folders
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError
from fedreid_pl.reporting.paper import NINE, paper_name

BENCH = list(FILES)[:9]


def only(dataset: str, root: Path, **options) -> Path:
    (found,) = find_folders(CATALOGUE[dataset], root, **options)
    return found


# the table


def test_the_counts_add_up_to_the_totals_that_the_paper_prints() -> None:
    rows = [CATALOGUE[name].table1 for name in BENCH]
    assert sum(row.images for row in rows) - 17_661 + 17_611 == 224_064
    assert sum(row.train_identities + row.query_identities + row.gallery_identities for row in rows) == 17_991


def test_the_nine_come_first_and_have_the_names_that_the_paper_tables_know() -> None:
    assert list(CATALOGUE) == list(FILES)
    assert tuple(paper_name(name) for name in BENCH) == NINE
    assert [name for name, dataset in CATALOGUE.items() if dataset.table1] == BENCH


def test_layouts_exist_and_no_spelling_belongs_to_two_datasets() -> None:
    for name, dataset in CATALOGUE.items():
        assert set(dataset.layouts) <= set(find_layouts())
        for spelling in (name, *dataset.spellings):
            assert [other.name for other in CATALOGUE.values() if other.is_spelled(spelling)] == [name]


@pytest.mark.parametrize(
    "name", ["iLIDS-VID", "prid_450s", "DukeMTMC-VideoReID", "cuhk03-np/labeled", "mini-viper", ""]
)
def test_other_datasets_have_other_names(name: str) -> None:
    assert identify(name) is None


# search


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("MSMT17", "MSMT17_V1"),
        ("MSMT17", "MSMT17_V2"),
        ("MSMT17", "msmt17/MSMT17_V1"),
        ("DukeMTMC-reID", "dukemtmc-reid/DukeMTMC-reID"),
        ("DukeMTMC-reID", "Duke"),
        ("Market-1501", "Market-1501-v15.09.15"),
        ("Market-1501", "market1501"),
        ("Market-1501", "market1501/Market-1501-v15.09.15"),
        ("CUHK03-NP", "cuhk03-np/detected"),
        ("CUHK03-NP", "cuhk03-np-detected"),
        ("CUHK03-NP", "CUHK03-NP/cuhk03-np/detected"),
        ("PRID2011", "prid_2011"),
        ("PRID2011", "prid2011/prid_2011"),
        ("CUHK01", "cuhk01"),
        ("VIPeR", "viper/VIPeR"),
        ("3DPeS", "3dpes"),
        ("i-LIDS", "iLIDS"),
        ("i-LIDS", "ilids/i-LIDS_Pedestrian"),
        ("CUHK02", "cuhk02/Dataset"),
        ("GRID", "grid/underground_reid"),
        ("CAVIAR4REID", "caviar4reid"),
        *((name, name) for name in FILES),
    ],
)
def test_usual_folders_are_found(tmp_path: Path, dataset: str, folder: str) -> None:
    write(tmp_path, dataset, folder)
    # "Dataset" is a part of the layout, one folder above it is the dataset's
    assert only(dataset, tmp_path) == tmp_path / folder.removesuffix("/Dataset")


def test_a_folder_with_only_the_images_is_found(tmp_path: Path) -> None:
    write(tmp_path, "CUHK01", ".")
    write(tmp_path, "CAVIAR4REID", ".")
    assert only("CUHK01", tmp_path) == tmp_path / "campus"
    assert only("CAVIAR4REID", tmp_path) == tmp_path / "CAVIARa"


@pytest.mark.parametrize("dataset", ["VIPeR", "CUHK03-NP", "CUHK02"])
def test_folders_of_the_published_scripts_are_found(tmp_path: Path, dataset: str) -> None:
    folder = {"CUHK03-NP": "cuhk03"}.get(dataset, dataset.lower())
    touch(tmp_path / folder, *PROCESSED)
    assert recognise_layout(only(dataset, tmp_path)).key == "fedreid_processed"


def test_the_exact_name_has_precedence_over_other_spellings(tmp_path: Path) -> None:
    write(tmp_path, "Market-1501")
    write(tmp_path, "Market-1501", "market")
    assert only("Market-1501", tmp_path) == tmp_path / "Market-1501"


def test_the_exact_name_has_no_precedence_if_the_folder_is_not_a_dataset(tmp_path: Path) -> None:
    touch(tmp_path / "DukeMTMC-reID", "readme.txt")
    write(tmp_path, "DukeMTMC-reID", "duke")
    assert only("DukeMTMC-reID", tmp_path) == tmp_path / "duke"


def test_the_original_file_of_cuhk03_is_used_unless_converted_folders_exist(tmp_path: Path) -> None:
    touch(tmp_path / "cuhk03", "cuhk03_release/cuhk-03.mat")
    assert only("CUHK03-NP", tmp_path) == tmp_path / "cuhk03"
    write(tmp_path, "CUHK03-NP", "cuhk03/detected")
    assert only("CUHK03-NP", tmp_path) == tmp_path / "cuhk03" / "detected"


def test_detected_boxes_are_used_by_default(tmp_path: Path) -> None:
    write(tmp_path, "CUHK03-NP", "cuhk03-np/labeled")
    assert find_folders(CATALOGUE["CUHK03-NP"], tmp_path) == []
    write(tmp_path, "CUHK03-NP", "cuhk03-np/detected")
    assert only("CUHK03-NP", tmp_path) == tmp_path / "cuhk03-np" / "detected"


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    write(tmp_path, "VIPeR", "VIPeR.v1.0")
    (tmp_path / "viper").symlink_to(tmp_path / "VIPeR.v1.0")
    assert only("VIPeR", tmp_path) in (tmp_path / "viper", tmp_path / "VIPeR.v1.0")


def test_leftovers_of_archives_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, "Market-1501", "market/Market-1501-v15.09.15")
    write(tmp_path, "Market-1501", "market/__MACOSX")
    write(tmp_path, "Market-1501", "market/.trash")
    assert only("Market-1501", tmp_path).name == "Market-1501-v15.09.15"


def test_a_named_layout_restricts_the_choice(tmp_path: Path) -> None:
    write(tmp_path, "MSMT17", "MSMT17_V1")
    write(tmp_path, "Market-1501", "MSMT17_converted/MSMT17")  # not a spelling
    write(tmp_path, "Market-1501", "msmt")
    layouts = find_layouts()
    assert only("MSMT17", tmp_path, layout=layouts["msmt17"]) == tmp_path / "MSMT17_V1"
    assert only("MSMT17", tmp_path, layout=layouts["market1501"]) == tmp_path / "msmt"
    assert len(find_folders(CATALOGUE["MSMT17"], tmp_path)) == 2


# the configuration


def test_the_shipped_configuration_reads_nine_datasets_under_their_usual_names(tmp_path: Path) -> None:
    usual = {"Market-1501": "Market-1501-v15.09.15", "MSMT17": "MSMT17_V2", "PRID2011": "prid_2011"}
    usual |= {"CUHK03-NP": "cuhk03-np/detected", "DukeMTMC-reID": "dukemtmc-reid/DukeMTMC-reID"}
    for name in [*BENCH, "CUHK02"]:
        write(tmp_path, name, usual.get(name))
    config = compose(["data=fedreidbench", f"data.root={tmp_path}"]).data
    data = load_federated_data(config)
    assert list(data.clients) == list(data.tests) == BENCH
    kept = [file for file in FILES["CUHK02"] if not file.startswith("P1/")]  # P1 shows CUHK01's persons
    assert data.public.name == "CUHK02" and len(data.public) == len(kept) < len(FILES["CUHK02"])
    for name in BENCH:
        folder = tmp_path / usual.get(name, name)
        tables = [data.clients[name].train, data.tests[name].query, data.tests[name].gallery]
        assert {table.root for table in tables} == {folder}
        assert len(tables[0]) and set(table.name for table in tables) == {name}


def test_without_names_the_public_set_is_not_a_client_in_any_spelling(tmp_path: Path) -> None:
    write(tmp_path, "VIPeR", "viper")
    write(tmp_path, "CUHK02", "cuhk02")
    config = DataConfig(root=str(tmp_path), layout="auto", public="CUHK02")
    assert list(dataset_folders(config, tmp_path)) == ["viper"]


def test_two_entries_for_one_folder(tmp_path: Path) -> None:
    write(tmp_path, "VIPeR", "viper")
    config = DataConfig(root=str(tmp_path), layout="auto", datasets=["VIPeR", "viper"])
    with pytest.raises(FedReIDError, match="given twice"):
        load_federated_data(config)


def test_two_matching_folders_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "MSMT17", "MSMT17_V1")
    write(tmp_path, "MSMT17", "MSMT17_V2")
    config = DataConfig(root=str(tmp_path), layout="auto", datasets=["MSMT17"])
    with pytest.raises(FedReIDError, match=r"MSMT17 may be MSMT17_V1 or MSMT17_V2 .* give one of these folders"):
        load_federated_data(config)
    config.datasets = ["MSMT17_V2"]
    assert list(load_federated_data(config).clients) == ["MSMT17_V2"]


def test_a_named_layout_is_read_even_if_it_is_not_recognised(tmp_path: Path) -> None:
    touch(tmp_path / "VIPeR", "query/0001_c1.jpg")
    config = DataConfig(root=str(tmp_path), layout="market1501", datasets=["VIPeR"])
    with pytest.raises(FedReIDError, match="bounding_box_train: no such folder"):
        load_federated_data(config)
    config.layout = "auto"
    with pytest.raises(FedReIDError, match="VIPeR has query but lacks bounding_box_train, bounding_box_test"):
        load_federated_data(config)
