"""`fedreid-pl data check` on small real files with all kinds of defects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedreid_pl import cli
from fedreid_pl.config import DataConfig
from fedreid_pl.data import decoding
from fedreid_pl.data.catalogue import CATALOGUE
from fedreid_pl.data.check import (
    DataCheck,
    DatasetCheck,
    SplitCounts,
    check_data,
    count_splits,
    differences,
)
from fedreid_pl.data.decoding import unreadable_files
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN, SampleTable
from fedreid_pl.reporting.data_check import check_text

FILES = (
    *("bounding_box_train/0001_c1_1.jpg", "bounding_box_train/0001_c2_1.jpg", "bounding_box_train/0002_c3_1.jpg"),
    *("query/0003_c1_1.jpg", "bounding_box_test/0003_c2_1.jpg"),
    *("bounding_box_test/0000_c2_1.jpg", "bounding_box_test/0000_c3_1.jpg", "bounding_box_test/-1_c2_1.jpg"),
)


def dataset(root: Path, folder: str, files=FILES) -> Path:
    """Writes different noise images, so that a truncated file is detected."""
    for file in files:
        path = root / folder / file
        pixels = np.random.default_rng([*str(path).encode()]).integers(0, 256, (24, 12, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, "JPEG")
    return root / folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dataset(tmp_path, "data/Market-1501-v15.09.15")
    dataset(tmp_path, "data/mine")
    dataset(tmp_path, "data/cuhk02", FILES[:3])
    return tmp_path / "data"


def config(root: Path, *names: str, **options) -> DataConfig:
    return DataConfig(name="some", root=str(root), layout="auto", datasets=list(names), **options)


def run(capsys: pytest.CaptureFixture, root: Path, *words: str) -> tuple[int, str, str]:
    code = cli.main(["data", "check", "data=market_layout", "data.layout=auto", f"data.root={root}", *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err and err.count("\n") <= 1
    return code, out, err


def row(out: str, name: str, which: int = 0) -> list[str]:
    """Returns the cells of a dataset's line in the first or second table."""
    return [line for line in out.splitlines() if line.split(" ")[0] == name][which].split()


# counts


def test_counts_are_those_of_table_1() -> None:
    identities = np.array([4, 4, 9, 1, 2, 1, 2, DISTRACTOR, DISTRACTOR, JUNK])
    splits = np.array([TRAIN] * 3 + [QUERY] * 2 + [GALLERY] * 5, dtype=np.uint8)
    cameras = np.array([1, 2, 1, 3, 3, 1, 2, 1, 1, 5])
    table = SampleTable("any", Path("/"), tuple("abcdefghij"), identities, cameras, splits)
    counts = {name: (part.identities, part.images, part.cameras) for name, part in count_splits(table).items()}
    # persons 1 and 2, and all distractors as one person; the junk image counts as an image
    assert counts == {"train": (2, 3, 2), "query": (2, 2, 1), "gallery": (3, 5, 3)}


@pytest.mark.parametrize(
    ("name", "layout", "changed", "expected"),
    [
        ("MSMT17", "msmt17", {}, []),
        (
            "Market-1501",
            "market1501",
            {"gallery_images": 15_913},
            ["gallery images 15,913, Table 1 has 19,732 (the ga"],
        ),
        ("DukeMTMC-reID", "market1501", {"gallery_images": 17_611}, ["gallery images 17,611, Table 1 has 17,661"]),
        ("CUHK03-NP", "market1501", {"train_images": 7_368}, ["train images 7,368, Table 1 has 7,365 (the labeled"]),
        ("PRID2011", "prid2011", {"train_images": 3_760}, []),
        ("PRID2011", "prid2011", {"train_images": 3_000}, ["train images 3,000, Table 1 has 3,744"]),
        ("PRID2011", "dgd", {"train_images": 3_760}, ["train images 3,760, Table 1 has 3,744"]),
        ("3DPeS", "3dpes", {"query_images": 240, "gallery_images": 322, "query_identities": 88}, []),
        ("3DPeS", "3dpes", {"query_images": 240}, ["query images 240, Table 1 has 246"]),
        ("i-LIDS", "ilids", {"train_identities": 58}, ["train identities 58, Table 1 has 59"]),
        ("CUHK02", "cuhk02", {}, []),
    ],
)
def test_differences_from_table_1(name: str, layout: str, changed: dict, expected: list[str]) -> None:
    known = CATALOGUE[name]
    found = (known.table1 or CATALOGUE["VIPeR"].table1)._replace(**changed)
    lines = differences(known, found, layout)
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines


def test_a_complete_dataset_agrees_with_table_1(tmp_path: Path) -> None:
    picture = dataset(tmp_path, "one", ["a.jpg"]) / "a.jpg"
    for camera in "ab":
        (tmp_path / "data" / "viper" / f"cam_{camera}").mkdir(parents=True)
        for person in range(632):
            os.link(picture, tmp_path / "data" / "viper" / f"cam_{camera}" / f"{person:03d}_90.bmp")
    (found,) = check_data(config(tmp_path / "data", "VIPeR")).datasets
    assert found.counts() == found.table1 == (2, 316, 632, 316, 316, 316, 316)
    assert found.ok and found.differences == [] and found.images == 1_264


def test_a_difference_with_a_known_reason_is_explained() -> None:
    known = CATALOGUE["CUHK03-NP"]
    found = known.table1._replace(train_images=7_368, query_images=1_399)
    splits = {"train": SplitCounts(*found[1:3], 2), "query": SplitCounts(*found[3:5], 2)}
    item = DatasetCheck("CUHK03-NP", "client", Path("/data/x"), "market1501", cameras=2, table1=known.table1)
    item.splits = {**splits, "gallery": SplitCounts(*found[5:], 2)}
    item.differences = differences(known, found, "market1501")
    text = check_text(DataCheck("some", Path("/data"), False, [item]))
    assert item.counts() == found
    assert "CUHK03-NP: train images 7,368, Table 1 has 7,365 (the labeled boxes" in text
    assert "7,368 (7,365)" in text and "1,399 (1,400)" in text and "query images 1,399" not in text


# the command


def test_valid_datasets(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["data.datasets=[Market-1501,mine=mine]", "data.public=CUHK02", f"json={tmp_path / 'new' / 'check.json'}"]
    code, out, err = run(capsys, root, *words)
    assert (code, err) == (0, "")
    # 2 persons / 3 images; 1 / 1; person 3 and the distractors / 4 with the junk image
    cells = ["3", "(6)", "2", "(751)", "3", "(12,936)", "1", "(750)", "1", "(3,368)", "2", "(751)", "4", "(19,732)"]
    assert row(out, "Market-1501") == ["Market-1501", "differs", "from", "Table", "1", *cells]
    assert row(out, "mine") == ["mine", "ok", "3", "2", "3", "1", "1", "2", "4"]
    assert row(out, "CUHK02") == ["CUHK02", "ok", "3", "2", "3", "0", "0", "0", "0"]
    assert row(out, "Market-1501", 1)[:5] == ["Market-1501", "client", "Market-1501-v15.09.15", "market1501", "8"]
    assert row(out, "CUHK02", 1)[:6] == ["CUHK02", "public", "set", "cuhk02", "market1501", "3"]
    assert out.splitlines()[0] == str(root) and "In brackets: the number in the paper's Table 1" in out
    assert out.splitlines()[-1] == "data=market_layout: all 3 datasets are present and readable, 19 images"

    saved = json.loads((tmp_path / "new" / "check.json").read_text())
    assert saved["ok"] is True and saved["problem"] is None and saved["root"] == str(root)
    market, mine, _ = saved["datasets"]
    assert market["splits"]["gallery"] == {"identities": 2, "images": 4, "cameras": 2}
    assert market["table1"]["gallery_images"] == 19_732 and market["folder"] == str(root / "Market-1501-v15.09.15")
    assert len(market["differences"]) == 7 and mine["table1"] is None and mine["differences"] == []
    assert [item["use"] for item in saved["datasets"]] == ["client", "client", "public"]
    assert os.listdir(tmp_path / "new") == ["check.json"]


def test_a_known_note_is_printed(root: Path, capsys: pytest.CaptureFixture) -> None:
    dataset(root, "dukemtmc-reid/DukeMTMC-reID")
    _, out, _ = run(capsys, root, "data.datasets=[DukeMTMC-reID]")
    assert "DukeMTMC-reID: the gallery has 17,661 images, Table 1 prints 17,611" in out
    assert "dukemtmc-reid/DukeMTMC-reID" in row(out, "DukeMTMC-reID", 1)


def test_the_configurations_claim_of_synthetic_data_is_not_trusted(root: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = run(capsys, root, "data.datasets=[Market-1501]", "data.synthetic=true")
    assert code == 0 and out.splitlines()[0] == f"{root}"


def test_folders_that_are_not_named(root: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = run(capsys, root, "data.public=CUHK02")
    assert code == 0 and [row(out, name, 1)[1] for name in ("Market-1501-v15.09.15", "client2", "CUHK02")] == [
        *("client", "client", "public")
    ]
    assert "(12,936)" in row(out, "Market-1501-v15.09.15")  # the folder's name identifies the dataset


def test_other_known_datasets_are_listed_but_not_required(root: Path, capsys: pytest.CaptureFixture) -> None:
    place = dataset(root, "VIPeR", [f"cam_{camera}/00{person}_9.bmp" for camera in "ab" for person in range(4)])
    (place / "cam_a" / "000_9.bmp").write_bytes(b"")
    code, out, _ = run(capsys, root, "data.datasets=[mine=mine]")
    assert code == 0
    assert row(out, "VIPeR", 1)[1:5] == ["not", "used", "VIPeR", "viper"]
    assert str(place / "cam_a" / "000_9.bmp") in out and "1 unreadable" in out
    assert row(out, "Market-1501", 1)[1:3] == ["not", "used"]
    assert "the dataset is present and readable, 8 images" in out


# defects


def test_unreadable_images_are_listed(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = root / "mine" / FILES[0]
    whole.write_bytes(whole.read_bytes()[:-200])  # the header is intact
    (root / "mine" / FILES[3]).write_bytes(b"")
    (root / "cuhk02" / FILES[2]).write_text("<html>not found</html>")
    words = ["data.datasets=[mine=mine]", "data.public=CUHK02", f"json={tmp_path / 'check.json'}"]
    code, out, err = run(capsys, root, *words)
    assert code == 2
    assert err == "error: data=market_layout: of 2 datasets, 2 cannot be used: mine, CUHK02\n"
    assert row(out, "mine")[1:3] == ["2", "unreadable"] and row(out, "CUHK02")[1:3] == ["1", "unreadable"]
    for path in (whole, root / "mine" / FILES[3], root / "cuhk02" / FILES[2]):
        assert f"{path}: not a readable image" in out
    saved = json.loads((tmp_path / "check.json").read_text())
    assert saved["ok"] is False and [item["ok"] for item in saved["datasets"]] == [False, False, True]
    assert [item["path"] for item in saved["datasets"][0]["unreadable"]] == [str(whole), str(root / "mine" / FILES[3])]


def test_many_unreadable_images_are_summarised(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = [f"bounding_box_train/{person:04d}_c1.jpg" for person in range(1, 201)]
    for path in dataset(root, "mine", names).glob("bounding_box_train/0*_c1.jpg"):
        path.write_bytes(b"no")
    code, out, _ = run(capsys, root, "data.datasets=[mine=mine]", f"json={tmp_path / 'check.json'}")
    assert code == 2 and out.count("not a readable image") == 10
    assert "mine: 200 images are unreadable, 10 of them are listed here; json=FILE lists all" in out
    unreadable = json.loads((tmp_path / "check.json").read_text())["datasets"][0]["unreadable"]
    assert [item["path"] for item in unreadable] == [str(root / "mine" / name) for name in names]


def test_one_missing_dataset_does_not_hide_the_others(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "MSMT17_V1.zip").write_bytes(b"")
    (root / "mine" / FILES[3]).rename(root / "mine" / "query" / "somebody.jpg")
    code, out, err = run(capsys, root, "data.datasets=[MSMT17,mine=mine,Market-1501]")
    assert code == 2 and err.endswith("of 3 datasets, 2 cannot be used: MSMT17, mine\n")
    assert row(out, "MSMT17")[1:3] == ["missing", "-"] and "MSMT17_V1.zip is not unpacked" in out
    assert (
        row(out, "mine")[1:4] == ["not", "readable", "-"]
        and "somebody.jpg: the name does not begin with a person" in out
    )
    assert row(out, "Market-1501", 1)[4] == "8"


def test_datasets_that_cannot_be_used_together(root: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, err = run(capsys, root, "data.datasets=[mine=mine,Market-1501]", "data.public=mine")
    assert code == 2 and "cannot be used together: data.public=mine: this dataset is a client too" in err
    (root / "mine" / FILES[4]).unlink()  # the query has no match now
    code, out, err = run(capsys, root, "data.datasets=[mine=mine]")
    assert code == 2 and "mine: no query" in err and row(out, "mine")[1] == "ok"


def test_invalid_words(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for words, part in (
        (["data.datasets=[mine=mine]", "json="], "json= names no file"),
        (["data.datasets=[mine=mine]", f"json={tmp_path}"], f"{tmp_path}: is a folder; give the name of a file"),
        (["data.layuot=auto"], "data.layuot"),
        (["data.layout=markt1501"], "did you mean 'market1501'"),
    ):
        code, _, err = run(capsys, root, *words)
        assert code == 2 and part in err
    assert cli.main(["data", "check", "data=fedreidbench"]) == 2
    assert "give the folder of the datasets" in capsys.readouterr().err


# implementation


def test_faults_are_listed_in_the_order_of_the_files(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{number:03d}.png") for number in range(300)]
    for number, file in enumerate(files):
        if number % 7:
            Image.new("L", (3, 2)).save(file)
    said: list[str] = []
    found = unreadable_files(files, said.append)
    assert found == [(file, "No such file or directory") for file in files[::7]]
    assert said[0] == "64 of 300 images" and said[-1] == "300 of 300 images"


def test_an_interruption_stops_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def slow(path: str) -> Image.Image:
        begun.append(path)
        time.sleep(0.0003)
        return Image.new("RGB", (1, 1))

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "open_rgb", slow)
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        unreadable_files(["x"] * 64 * 100, interrupt)
    assert len(begun) < 6400


def test_torch_is_not_imported(root: Path) -> None:
    words = ["data", "check", "data=market_layout", "data.layout=auto", f"data.root={root}"]
    words.append("data.datasets=[mine=mine]")
    script = (
        f"import sys; from fedreid_pl.cli import main; code = main({words!r})\n"
        "print(code, sorted({'torch', 'pytorch_lightning', 'torchvision', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
