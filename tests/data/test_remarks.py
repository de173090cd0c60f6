"""Unusual but usable files give one warning that names them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import support
from dataset_files import touch
from hypothesis import given
from hypothesis import strategies as st

from fedreid_pl.cli import main
from fedreid_pl.data.federated import TestSet
from fedreid_pl.data.layouts import ReadOptions, find_layouts
from fedreid_pl.data.samples import DISTRACTOR, JUNK, SampleTable
from fedreid_pl.errors import FedReIDError

SEEN = st.tuples(st.integers(0, 3), st.integers(0, 2))
GALLERY = st.tuples(st.sampled_from([JUNK, DISTRACTOR, 0, 1, 2, 3]), st.integers(0, 2))


def side(rows: list[tuple[int, int]]) -> SampleTable:
    persons, cameras = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    paths = tuple(f"{number}.jpg" for number in range(len(rows)))
    return SampleTable("set", Path("/data"), paths, persons, cameras, np.zeros(len(rows), np.uint8))


@given(st.lists(SEEN, min_size=1, max_size=12), st.lists(GALLERY, min_size=1, max_size=12))
def test_queries_without_a_match(query: list[tuple[int, int]], gallery: list[tuple[int, int]]) -> None:
    alone = [
        row
        for row, (person, camera) in enumerate(query)
        if not any(other == person and place != camera for other, place in gallery)
    ]
    if len(alone) == len(query):
        with pytest.raises(FedReIDError, match=r"no query in /data .* for example /data/0\.jpg"):
            TestSet("set", side(query), side(gallery))
    else:
        assert TestSet("set", side(query), side(gallery)).unmatched.tolist() == alone


@pytest.mark.parametrize("missing", ["train", "test"])
def test_person_numbers_missing_from_the_lists_of_msmt17(tmp_path: Path, missing: str) -> None:
    for folder, names in (("train", ("train", "val")), ("test", ("query", "gallery"))):
        persons = [0, 3, 4] if folder == missing else [0, 1, 2]
        for camera, name in enumerate(names, 1):
            paths = [f"{p:04d}/{p:04d}_{camera:03d}_{camera:02d}_a_b_0.jpg" for p in persons]
            touch(tmp_path / folder, *paths)
            lines = [f"{path} {person}\n" for path, person in zip(paths, persons, strict=True)]
            (tmp_path / f"list_{name}.txt").write_text("".join(lines))
    (remark,) = find_layouts()["msmt17"].read(tmp_path, "any", ReadOptions()).remarks
    lists = "list_train.txt and list_val.txt" if missing == "train" else "list_query.txt and list_gallery.txt"
    assert remark.startswith(f"{tmp_path}: no line of {lists} has person 1, though persons go up to 4 (2 are missing)")


def test_a_run_and_data_check_print_the_warning(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Deletes one person's gallery images, except those of the queries' cameras."""
    root = Path(shutil.copytree(tiny_root, tmp_path / "data"))
    name = support.TINY[1]
    query = sorted((root / name / "query").iterdir())[0]
    person, camera = query.name[:4], query.name.split("_c")[1][0]
    for path in (root / name / "bounding_box_test").glob(f"{person}_*"):
        if f"_c{camera}" not in path.name:
            path.unlink()
    count = len(list((root / name / "query").iterdir()))
    line = f"{name}: 1 of {count} queries have no gallery image of their person in another camera, such as {query}"
    words = support.quick(root, tmp_path / "run", "rounds=1")
    assert main(["train", "exp=local", *words]) == 0
    assert f"warning: {line}; they are left out" in capsys.readouterr().err.splitlines()
    assert main(["data", "check", *words, "data.keep_unmatched=true"]) == 0
    assert f"  - {line}; they count as failures" in capsys.readouterr().out.splitlines()
