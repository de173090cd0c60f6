"""`data.layout`: one named layout, or automatic recognition of every folder."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from fedreid_pl.config import DataConfig
from fedreid_pl.data import layouts
from fedreid_pl.data.layouts import Layout, ReadOptions, find_layouts
from fedreid_pl.data.samples import TRAIN
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError

# two training persons and one test person each
FILES = {
    "market": [
        "bounding_box_train/0001_c1.jpg",
        "bounding_box_train/0002_c2.jpg",
        "query/0003_c1.jpg",
        "bounding_box_test/0003_c2.jpg",
    ],
    "msmt": [
        "train/0000/0000_000_01_a.jpg",
        "train/0001/0001_000_11_a.jpg",
        "test/0000/0000_000_02_a.jpg",
        "test/0000/0000_001_12_a.jpg",
    ],
    "processed": [f"pytorch/{place}" for place in ("train_all/1/1_c1.jpg", "train_all/2/2_c1.jpg")]
    + ["pytorch/query/3/3_c1.jpg", "pytorch/gallery/3/3_c2.jpg"],
    "dgd": ["cam_0/00000_00000.jpg", "cam_0/00001_00000.jpg", "cam_0/00002_00000.jpg", "cam_1/00002_00000.jpg"],
    "own": ["train/anna/1.jpg", "train/berta/1.jpg", "query/carl/1.jpg", "gallery/carl/2.jpg"],
    "table": ["1.jpg", "2.jpg", "3.jpg", "4.jpg"],
}
TEXTS = {
    "msmt/list_train.txt": "0000/0000_000_01_a.jpg 0\n",
    "msmt/list_val.txt": "0001/0001_000_11_a.jpg 1\n",
    "msmt/list_query.txt": "0000/0000_000_02_a.jpg 0\n",
    "msmt/list_gallery.txt": "0000/0000_001_12_a.jpg 0\n",
    "dgd/meta.json": json.dumps(
        {"identities": [[[FILES["dgd"][0]], []], [[FILES["dgd"][1]], []], [[FILES["dgd"][2]], [FILES["dgd"][3]]]]}
    ),
    "dgd/split.json": json.dumps({"trainval": [0, 1], "test_probe": [2], "test_gallery": [2]}),
    "table/samples.csv": (
        "path,identity,camera,split\n1.jpg,1,1,train\n2.jpg,2,1,train\n3.jpg,3,1,query\n4.jpg,3,2,gallery"
    ),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    stream = BytesIO()
    Image.new("RGB", (2, 4), (9, 30, 20)).save(stream, "JPEG")
    for name, files in FILES.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(stream.getvalue() + f"{name}/{file}".encode())  # all different
    for file, text in TEXTS.items():
        (tmp_path / file).write_text(text)
    (tmp_path / "notes").mkdir()
    return tmp_path


def load(root: Path, **options):
    return load_federated_data(DataConfig(name="folder", root=str(root), **options))


def refused(root: Path, **options) -> str:
    with pytest.raises(FedReIDError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_auto_recognises_the_layout_of_every_folder(root):
    data = load(root, layout="auto")
    found = {data.clients[client].train.root.name: client for client in data.clients}
    assert list(data.tests) == list(data.clients)
    assert sum(name.endswith("-no-cameras") for name in data.tests) == 1 and list(found) == sorted(FILES)
    for name, files in FILES.items():
        (test,) = data.tests_of(found[name]).values()
        train = data.clients[found[name]].train
        read = [*train.files(), *test.query.files(), *test.gallery.files()]
        assert sorted(read) == sorted(str(root / name / file) for file in files), name
        assert (len(train), len(test.query), len(test.gallery)) == (2, 1, 1)


def test_auto_with_names_and_a_public_set(root):
    data = load(root, layout="auto", datasets=["mine=table", "market"], public="processed")
    assert list(data.clients) == ["mine", "market"]
    assert data.public.name == "public" and set(data.public.splits.tolist()) == {TRAIN}


@pytest.mark.parametrize(
    ("layout", "names"), [("market1501", ["market"]), ("dgd", ["dgd"]), ("id_folders", ["own"]), ("msmt17", ["msmt"])]
)
def test_a_named_layout_reads_only_its_folders(root, layout, names):
    assert [client.train.root.name for client in load(root, layout=layout).clients.values()] == names


def test_a_named_layout_has_precedence_over_recognition(root):
    (root / "own" / "samples.csv").write_text("path,identity,camera,split\n")
    assert list(load(root, layout="id_folders", datasets=["own"]).clients) == ["client1-no-cameras"]
    assert "contains no image" in refused(root, layout="auto", datasets=["own"])


@pytest.mark.parametrize(
    ("layout", "hint"), [("msmt", "did you mean 'msmt17'?"), ("Auto", "did you mean 'auto'?"), ("", "; known: ")]
)
def test_an_unknown_layout(root, layout, hint):
    text = refused(root, layout=layout)
    assert text.startswith(f"data.layout={layout}: no such layout") and hint in text


def test_folders_in_no_known_layout_are_refused(root):
    assert f"{root / 'notes'}: has no layout" in refused(root, layout="auto", datasets=["market", "notes"])
    assert f"{root / 'notes'}: has no layout" in refused(root, layout="auto", datasets=["market"], public="notes")
    assert f"data.root={root / 'notes'}: contains no dataset in a known layout" in refused(
        root / "notes", layout="auto"
    )
    text = refused(root / "notes", layout="msmt17")
    assert "in the layout msmt17" in text and "list_train.txt" in text


def test_options_reach_the_reader(root, monkeypatch):
    asked: dict[str, ReadOptions] = {}
    market = find_layouts()["market1501"]

    def read(folder, name, options):
        asked[name] = options
        return market.read(folder, name, options)

    spy = Layout("market1501", market.title, market.expects, market.recognise, read)
    monkeypatch.setattr(layouts, "_collect", lambda: (("market1501", spy),))
    load(root, datasets=["market"], split=3, split_seed=7)
    assert asked == {"market": ReadOptions(train_only=False, split=3, seed=7)}
    (root / "public").mkdir()
    (root / "public" / "bounding_box_train").symlink_to(root / "market" / "bounding_box_train")
    load(root, datasets=["market"], public="public", split=2)
    assert asked["public"] == ReadOptions(train_only=True, split=2, seed=0)
