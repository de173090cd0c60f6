"""Only images drawn by this program count as synthetic, and the program draws no images into a user's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedreid_pl.config import compose
from fedreid_pl.data.check import check_data
from fedreid_pl.data.locating import locate_root
from fedreid_pl.data.minireid import DOMAINS, write_benchmark
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError

NAME = "mini-viper"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    write_benchmark(root, [DOMAINS[NAME].scaled(0.03)], processes=1)
    return root


def load(root: Path, *words: str):
    return load_federated_data(compose([f"data.root={root}", "data.public=null", *words]).data)


def test_drawn_images_are_synthetic_under_any_folder_name(drawn, tmp_path):
    assert load(drawn, f"data.datasets=[{NAME}]").synthetic
    root = shutil.copytree(drawn, tmp_path / "copy")
    (root / NAME).rename(root / "people")
    assert load(root, "data=market_layout", "data.datasets=[people]").synthetic


def test_other_images_are_not_synthetic_whatever_the_configuration_is(drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / "copy")
    image = next((root / NAME / "query").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")  # one additional byte; the manifest exists
    for words in (["data=minireid", "data.source=folder"], ["data=market_layout", "data.synthetic=true"]):
        data = load(root, *words, f"data.datasets=[{NAME}]")
        assert not data.synthetic and any("not the ones that this program drew" in line for line in data.remarks)
    (root / "manifest.json").unlink()
    assert not load(root, "data=market_layout", f"data.datasets=[{NAME}]").synthetic


def test_an_additional_image_in_the_folder(drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / "copy")
    first = next((root / NAME / "bounding_box_train").iterdir())
    shutil.copy(first, first.with_name("0001_c1s1_999999_00.jpg"))
    assert not load(root, "data=market_layout", f"data.datasets=[{NAME}]").synthetic


def test_no_image_is_drawn_into_a_users_folder(tmp_path):
    for words in ([], ["data=minireid"]):
        with pytest.raises(FedReIDError, match="the folder is empty"):
            check_data(compose([f"data.root={tmp_path}", *words]).data)
    assert not list(tmp_path.iterdir())


def test_a_root_selects_the_data_configuration(drawn, tmp_path):
    assert compose([f"data.root={drawn}"]).data.name == "minireid"
    assert compose(["data.root=null"]).data.name == compose([]).data.name == "minireid"
    root = tmp_path / "sets"
    shutil.copytree(drawn / NAME, root / "VIPeR")
    config = compose([f"data.root={root}", "data.public=null"]).data
    assert config.name == "auto" and list(load_federated_data(config).clients) == ["VIPeR"]
    assert list(load_federated_data(compose([f"data.root={root / 'VIPeR'}"]).data).clients) == ["VIPeR"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["anna/1.jpg", "bo/1.jpg"], "there are 2 folders, such as anna with images in it: set data=crops"),
        (["0001_c1_1.jpg"], "the folder contains 1 image, such as 0001_c1_1.jpg: set data=crops"),
        (["notes.txt"], "there is notes.txt"),
    ],
)
def test_the_error_for_other_folders_suggests_a_data_setting(tmp_path, files, said):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FedReIDError) as caught:
        check_data(compose([f"data.root={tmp_path}"]).data)
    assert said in str(caught.value) and "delete" not in str(caught.value)
    with pytest.raises(FedReIDError, match="no MiniReID"):
        locate_root(compose(["data=minireid", f"data.root={tmp_path}"]).data)
