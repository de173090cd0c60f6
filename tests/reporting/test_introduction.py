"""The introduction of a run: a drawn split is described, everything else about the files is a warning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dataset_files import read, touch

from fedreid_pl.config import compose
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.reporting.introduction import introduce


def test_a_drawn_split_gives_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = [f"{person:04d}/cam{camera}/0.jpg" for person in range(1, 9) for camera in (1, 2)]
    crops = replace(read("crops", touch(tmp_path / "mine", *names)), layout="crops")
    (split,) = crops.remarks
    odd = "no line of the lists has person 1"
    listed = replace(crops, name="other", layout="msmt17", remarks=(odd,))
    data = FederatedData({}, {}, datasets=(crops, listed), remarks=(f"mine: {split}", f"other: {odd}"))
    introduce(compose(["exp=fedpav"]), data, tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert f"mine: {split}" in lines and f"warning: other: {odd}" in lines


def test_without_a_drawn_split_every_remark_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    introduce(compose(["exp=fedpav"]), FederatedData({}, {}, remarks=("3 files are odd",)), tmp_path / "run")
    assert "warning: 3 files are odd" in capsys.readouterr().err.splitlines()
