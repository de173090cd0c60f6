"""Feature files, read by the libraries of their formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedreid_pl.errors import FedReIDError
from fedreid_pl.retrieval.features import SUFFIXES, Features

NAMES = ["a/1.jpg", "b/ü.png", 'c/"x".jpg']
HEADER = {"model": {"sha256": "abc"}, "flip": True, "dim": 4}


def made() -> Features:
    return Features(NAMES, torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), HEADER)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    features = made()
    again = Features.load(features.save(tmp_path / f"deep/er/f{suffix}"))
    assert again.names == NAMES and torch.equal(again.values, features.values)
    assert again.header == {"format": 1, **HEADER}


def test_other_programs_read_them(tmp_path: Path) -> None:
    features = made()
    from safetensors.numpy import load_file

    assert np.array_equal(load_file(features.save(tmp_path / "f.safetensors"))["features"], features.values.numpy())
    with np.load(features.save(tmp_path / "f.npz")) as file:
        assert file["names"].tolist() == NAMES and json.loads(str(file["header"]))["flip"] is True
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(features.save(tmp_path / "f.parquet")).to_pylist()
    assert [row["name"] for row in rows] == NAMES
    assert rows[1]["feature"] == features.values[1].tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    file = made().save(tmp_path / f"f{suffix}")
    data = file.read_bytes()
    for cut in (0, 5, len(data) // 2):
        file.write_bytes(data[:cut])
        with pytest.raises(FedReIDError, match=f"f{suffix}"):
            Features.load(file)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedReIDError, match=r"must end with \.safetensors"):
        made().save(tmp_path / "f.pkl")
    with pytest.raises(FedReIDError, match="cannot be read"):
        Features.load(tmp_path / "f.npz")
