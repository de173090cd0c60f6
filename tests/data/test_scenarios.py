"""Clients, test sets and the public set from folders as in the distributed datasets."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import TINY

from fedreid_pl.config import DataConfig
from fedreid_pl.data import locating
from fedreid_pl.data.locating import dataset_folders, locate_root
from fedreid_pl.data.samples import DISTRACTOR, JUNK
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError

TRAIN = ["0001_c1.jpg", "0001_c2.jpg", "0002_c1.jpg", "0002_c2.jpg", "0007_c1.jpg"]
QUERY = ["0003_c1.jpg", "0004_c2.jpg"]
GALLERY = ["0003_c2.jpg", "0004_c1.jpg", "0000_c1.jpg", "-1_c2.jpg"]


def dataset(root: Path, name: str, train=TRAIN, query=QUERY, gallery=GALLERY) -> Path:
    """Creates a dataset whose images encode its name in their colour; `None` removes a folder."""
    stream = BytesIO()
    Image.new("RGB", (4, 8), (sum(name.encode()) % 256, 0, 0)).save(stream, "JPEG")
    for folder, names in (("bounding_box_train", train), ("query", query), ("bounding_box_test", gallery)):
        if names is not None:
            (root / name / folder).mkdir(parents=True)
            for file in names:
                (root / name / folder / file).write_bytes(
                    stream.getvalue() + f"{name}/{folder}/{file}".encode()
                )  # all different
    return root / name


def config(root, **options) -> DataConfig:
    return DataConfig(name="folder", root=str(root), **options)


def refused(*parts: str, **options) -> None:
    with pytest.raises(FedReIDError) as caught:
        load_federated_data(config(**options))
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("market", "duke", "viper"):
        dataset(tmp_path, name)
    dataset(tmp_path, "public", ["-1_c1.jpg", "-1_c2.jpg"], query=None, gallery=None)
    return tmp_path


# real folders


def test_tiny_benchmark_by_dataset(tiny_root):
    data = load_federated_data(config(tiny_root, datasets=list(TINY), public="mini-cuhk02"))
    assert tuple(data.clients) == tuple(data.tests) == TINY
    for name in TINY:
        client, test = data.clients[name], data.tests[name]
        assert client.tests == (name,)
        for table, folder in (
            (client.train, "bounding_box_train"),
            (test.query, "query"),
            (test.gallery, "bounding_box_test"),
        ):
            on_disk = {str(file) for file in (tiny_root / name / folder).iterdir()}
            assert sorted(table.files()) == sorted(on_disk)
        numbers = {Path(path).name.split("_")[0] for path in client.train.paths}
        assert client.train.num_identities() == len(numbers)
        assert data.tests_of(name) == {name: test}
    assert len(data.public) == len(list((tiny_root / "mini-cuhk02" / "bounding_box_train").iterdir()))
    market = data.tests["mini-market1501"].gallery
    names = [Path(path).name for path in market.paths]
    assert (market.identities == JUNK).sum() == sum(name.startswith("-1_") for name in names) > 0
    assert (market.identities == DISTRACTOR).sum() == sum(name.startswith("0000_") for name in names) > 0


def test_tiny_benchmark_merged(tiny_root):
    apart = load_federated_data(config(tiny_root, datasets=list(TINY)))
    data = load_federated_data(config(tiny_root, datasets=list(TINY), scenario="merged"))
    (client,) = data.clients.values()
    assert (client.name, client.tests, tuple(data.tests)) == ("merged", TINY, TINY)
    assert client.train.files() == [file for other in apart.clients.values() for file in other.train.files()]
    persons = {}
    for path, identity in zip(client.train.paths, client.train.identities.tolist(), strict=True):
        file = Path(path)
        key = (file.parent.parent.name, file.name.split("_")[0])
        assert persons.setdefault(key, identity) == identity
    assert len(set(persons.values())) == len(persons) == client.train.num_identities()
    assert client.train.labels().max() == len(persons) - 1
    assert list(data.tests_of("merged")) == list(TINY)


# order and names


def test_clients_have_the_order_of_the_configuration(root):
    data = load_federated_data(config(root, datasets=["viper", "market", "duke"]))
    assert list(data.clients) == list(data.tests) == ["viper", "market", "duke"]


def test_the_tables_contain_all_read_images(root):
    data = load_federated_data(config(root, datasets=["viper", "duke"]))
    found = sorted(file for table in data.tables() for file in table.files())
    assert found == sorted(str(file) for name in ("viper", "duke") for file in (root / name).glob("*/*.jpg"))


def test_folders_are_found_without_names(root):
    (root / "notes").mkdir()
    (root / "readme.txt").write_text("")
    data = load_federated_data(config(root, public="public"))
    assert list(data.clients) == ["duke", "market", "viper"]
    assert data.public.name == "public"


def test_a_folder_without_permission_is_not_a_dataset(root, monkeypatch):
    (root / "lost+found").mkdir()
    stat = os.stat

    def refuse(path, *args, **options):
        if "lost+found/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert list(dataset_folders(config(root, public="public"), root)) == ["duke", "market", "viper"]


def test_nested_folders_become_names_without_slashes(tmp_path):
    dataset(tmp_path, "cuhk03-np/detected")
    dataset(tmp_path, "cuhk03-np/labeled")
    data = load_federated_data(config(tmp_path, datasets=["cuhk03-np/detected/", "cuhk03-np/labeled"]))
    assert list(data.clients) == ["cuhk03-np-detected", "cuhk03-np-labeled"]
    assert data.clients["cuhk03-np-labeled"].train.root == tmp_path / "cuhk03-np" / "labeled"


def test_a_relative_root_merges_as_well(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    for scenario in ("by_dataset", "merged"):
        data = load_federated_data(config(root.name, datasets=["viper", "duke"], scenario=scenario))
        assert all(os.path.isfile(file) for table in data.tables() for file in table.files())


def test_home_is_expanded(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert locate_root(config(f"~/{root.name}")) == root


# mistakes


@pytest.mark.parametrize(
    "datasets", [["viper", "duke", "viper"], ["viper", "viper/"], ["./viper", "viper"], ["viper", "duke/../viper"]]
)
def test_a_dataset_named_twice(root, datasets):
    refused("data.datasets", "viper", "twice", root=root, datasets=datasets)


def test_two_folders_with_the_same_client_name(root):
    dataset(root, "a/viper")
    refused("data.datasets", "twice", root=root, datasets=["a/viper", "viper"])
    refused("data.datasets", "twice", root=root, datasets=["ward=viper", "ward=duke"])


def test_folder_names_are_not_used_as_client_names(root):
    """A client of an unknown folder is named by its position in the list, or by the user."""
    dataset(root, "canary-ward7")
    assert list(load_federated_data(config(root, public="public")).clients) == ["client1", "duke", "market", "viper"]
    data = load_federated_data(config(root, datasets=["viper", "canary-ward7"], public="public"))
    assert list(data.clients) == list(data.tests) == ["viper", "client2"]
    assert list(load_federated_data(config(root, datasets=["north=canary-ward7"])).tests) == ["north"]
    for name in ("-a", "=x", "me an", "mean", "a\nb", "x" * 65):
        refused("data.datasets", "the name before '='", root=root, datasets=[f"{name}=viper"])


@pytest.mark.parametrize("public", ["viper", "viper/", "./viper"])
def test_the_public_set_is_not_a_client(root, public):
    refused(f"data.public={public}", "is a client too", root=root, datasets=["duke", "viper"], public=public)


def test_unknown_folders(root):
    refused("data.datasets", str(root / "markt"), "check the path", root=root, datasets=["viper", "markt"])
    refused("data.public", str(root / "nowhere"), "check the path", root=root, datasets=["viper"], public="nowhere")
    refused("data.root", str(root / "nowhere"), "check the path", root=root / "nowhere")


def test_the_root_is_required():
    with pytest.raises(FedReIDError, match=r"data=market_layout: .*data\.root="):
        locate_root(DataConfig(name="market_layout"))


def test_a_root_without_datasets(tmp_path):
    (tmp_path / "notes").mkdir()
    refused(f"data.root={tmp_path}", "no dataset", "bounding_box_train", root=tmp_path)


def test_a_folder_that_may_not_be_read(root, monkeypatch):
    monkeypatch.setattr(locating.os, "access", lambda path, mode: Path(path).name != "viper")
    refused("data.datasets", str(root / "viper"), "permissions", root=root, datasets=["duke", "viper"])


@pytest.mark.parametrize("train", [["0001_c1.jpg", "0001_c2.jpg"], ["0001_c1.jpg", "-1_c2.jpg"], ["-1_c1.jpg"]])
def test_a_client_needs_two_persons(root, train):
    folder = dataset(root, "lonely", train)
    persons = len(set(train) & {"0001_c1.jpg"})
    refused("client client2", f"{persons} training identity", str(folder), root=root, datasets=["viper", "lonely"])


def test_one_person_is_enough_in_a_merged_set(root):
    dataset(root, "lonely", ["0001_c1.jpg", "0001_c2.jpg"])
    data = load_federated_data(config(root, datasets=["viper", "lonely"], scenario="merged"))
    assert data.clients["merged"].train.num_identities() == 4


@pytest.mark.parametrize("folder", ["query", "gallery"])
def test_an_empty_side_of_a_test_set(root, folder):
    place = dataset(root, "broken", **{folder: []})
    name = {"query": "query", "gallery": "bounding_box_test"}[folder]
    refused(str(place / name), "contains no image", root=root, datasets=["broken"])


@pytest.mark.parametrize(
    "gallery",
    [
        ["0003_c1.jpg", "0004_c2.jpg"],  # the same cameras
        ["0008_c1.jpg", "0009_c2.jpg"],  # other persons
        ["-1_c2.jpg", "0000_c2.jpg"],  # junk and distractors
    ],
)
def test_no_query_has_a_match_in_another_camera(root, gallery):
    dataset(root, "hopeless", gallery=gallery)
    refused("hopeless", "no query", "another camera", root=root, datasets=["viper", "hopeless"])


def test_one_query_with_a_match_is_enough(root):
    dataset(root, "sparse", gallery=["0003_c1.jpg", "0004_c1.jpg"])
    assert "client1" in load_federated_data(config(root, datasets=["sparse"])).tests


def test_a_query_without_a_person(root):
    place = dataset(root, "odd", query=[*QUERY, "-1_c1.jpg"])
    refused(str(place / "query" / "-1_c1.jpg"), "known person", root=root, datasets=["odd"])


# junk


@pytest.mark.parametrize("scenario", ["by_dataset", "merged"])
def test_junk_images_are_not_trained_on(root, scenario):
    dataset(root, "dirty", [*TRAIN, "-1_c1.jpg", "-1_c2.jpg", "0000_c1.jpg"])
    data = load_federated_data(config(root, datasets=["dirty", "viper"], scenario=scenario))
    for client in data.clients.values():
        assert not any("-1_" in path for path in client.train.paths)
        assert sorted(set(client.train.labels().tolist())) == list(range(client.train.num_identities()))
    total = sum(len(client.train) for client in data.clients.values())
    assert total == len(TRAIN) + 1 + len(TRAIN)  # person 0 of a training folder is a person


def test_the_public_set_keeps_its_unlabelled_images(root):
    public = load_federated_data(config(root, datasets=["viper"], public="public")).public
    assert [Path(path).name for path in public.paths] == ["-1_c1.jpg", "-1_c2.jpg"]


@pytest.mark.parametrize("scenario", ["by_camera", "by_identity"])
def test_a_dataset_split_over_several_clients_keeps_every_image_and_one_test_set(
    tiny_root: Path, scenario: str
) -> None:
    whole = load_federated_data(config(tiny_root, datasets=list(TINY[:2])))
    data = load_federated_data(config(tiny_root, datasets=list(TINY[:2]), scenario=scenario, parts=2))
    assert list(data.tests) == list(TINY[:2])
    for name in TINY[:2]:
        train = whole.clients[name].train
        parts = [client for client in data.clients.values() if client.tests == (name,)]
        assert len(parts) == (len(set(train.cameras.tolist())) if scenario == "by_camera" else 2)
        assert sorted(path for part in parts for path in part.train.paths) == sorted(train.paths)
        for part in parts:
            column = part.train.cameras if scenario == "by_camera" else part.train.identities
            others = [other for other in parts if other is not part]
            values = [other.train.cameras if scenario == "by_camera" else other.train.identities for other in others]
            assert not set(column.tolist()) & set(np.concatenate(values).tolist())


def test_more_groups_than_identities_are_refused(tiny_root: Path) -> None:
    with pytest.raises(FedReIDError, match=r"mini-viper: .* cannot be split over 500 clients"):
        load_federated_data(config(tiny_root, datasets=["mini-viper"], scenario="by_identity", parts=500))


def test_the_first_image_of_every_identity_is_held_out_on_request(tiny_root: Path) -> None:
    whole, less = (
        load_federated_data(config(tiny_root, datasets=[TINY[0]], hold_out=what)).clients[TINY[0]].train
        for what in ("none", "first")
    )
    counts = np.unique(whole.identities, return_counts=True)[1]
    assert len(less) == len(whole) - (counts > 1).sum()
    assert less.num_identities() == whole.num_identities()
