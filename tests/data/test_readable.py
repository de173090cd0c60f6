"""Unreadable images can be skipped: each is found once, listed and counted, and used nowhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.data import readable
from fedreid_pl.data.readable import without_unreadable
from fedreid_pl.data.readers.market1501 import read_market1501
from fedreid_pl.data.samples import SampleTable

NAME = support.TINY[1]


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """Returns a copy of the tiny datasets that a test may damage."""
    return Path(shutil.copytree(tiny_root, tmp_path / "data"))


def damage(root: Path, *folders: str) -> list[Path]:
    """Replaces the last image of each folder with a web page, and truncates one image."""
    paths = [sorted((root / NAME / folder).iterdir())[-1] for folder in folders]
    for path in paths[1:]:
        path.write_bytes(path.read_bytes()[:100])
    paths[0].write_text("<html>404</html>")
    return paths


def test_rows_keep_their_order_and_unreadable_images_are_listed_once(root: Path, tmp_path: Path, monkeypatch) -> None:
    bad = damage(root, "bounding_box_train", "query")
    whole = read_market1501(root / NAME)
    looked = []
    real = readable.unreadable_files
    monkeypatch.setattr(readable, "unreadable_files", lambda files, say: looked.append(len(files)) or real(files, say))
    for _ in range(2):
        left, found = without_unreadable(whole, tmp_path / "cache")
        assert [Path(path) for path, _ in found] == sorted(bad, key=lambda path: path.parent.name)
        assert left.files() == [file for file in whole.files() if Path(file) not in bad]
        rows = [row for row, file in enumerate(whole.files()) if Path(file) not in bad]
        assert left.identities.tolist() == whole.identities[rows].tolist()
    assert looked == [len(whole)], "the result is cached"
    bad[0].write_bytes(sorted((root / NAME / "bounding_box_train").iterdir())[0].read_bytes())
    assert len(without_unreadable(whole, tmp_path / "cache")[1]) == 1 and len(looked) == 2, "until a file changes"


def test_a_missing_file_counts_as_unreadable(root: Path, tmp_path: Path) -> None:
    whole = read_market1501(root / NAME)
    Path(whole.files()[3]).unlink()
    left, found = without_unreadable(whole, tmp_path / "cache")
    assert found == [(whole.files()[3], "No such file or directory")] and len(left) == len(whole) - 1


def test_a_dataset_without_defects_does_not_change(root: Path, tmp_path: Path) -> None:
    whole: SampleTable = read_market1501(root / NAME)
    assert without_unreadable(whole, tmp_path / "cache") == (whole, [])


def test_a_run_that_skips_unreadable_images(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bad = damage(root, "bounding_box_train", "query", "bounding_box_test")
    words = [*support.quick(root, tmp_path / "run", "rounds=1"), f"data.cache_dir={tmp_path / 'cache'}"]
    assert main(["train", "exp=fedpav", *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert any(str(path) in said for path in bad) and "data.on_bad_image=skip" in said
    words = [*words, "data.on_bad_image=skip", f"output_dir={tmp_path / 'skipped'}"]
    for cache in ("memory", "disk", "none"):
        folder = tmp_path / cache
        assert main(["train", "exp=fedpav", *words, f"data.cache={cache}", f"output_dir={folder}"]) == 0
        said = capsys.readouterr().err
        assert f"{NAME}: 3 unreadable images are skipped, such as " in said
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["left_out_images"] == {NAME: 3}
        count = len(list((root / NAME / "bounding_box_train").iterdir()))
        assert summary["clients"][NAME] == count - 1
        splits = json.loads((folder / "splits.json").read_text())[NAME]
        assert splits["query"] == len(list((root / NAME / "query").iterdir())) - 1
    curves = {cache: (tmp_path / cache / "metrics.csv").read_bytes() for cache in ("memory", "disk", "none")}
    assert len(set(curves.values())) == 1, "the cache mode does not matter"


def test_data_check_agrees_with_a_run(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (bad,) = damage(root, "query")
    words = ["data", "check", "data=market_layout", f"data.root={root}", "data.public=mini-cuhk02"]
    assert main(words) == 2
    assert f"{bad}: not a readable image" in capsys.readouterr().out
    assert main([*words, "data.on_bad_image=skip"]) == 0
    out = capsys.readouterr().out
    assert "1 left out" in out and str(bad) in out
