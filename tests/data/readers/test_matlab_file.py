"""A file that crashes its reader process is refused with one line."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from fedreid_pl.data.readers.matlab_file import load_matlab
from fedreid_pl.errors import FedReIDError

scipy_io = pytest.importorskip("scipy.io")


def test_a_good_file_is_read_and_a_damaged_one_raises(tmp_path: Path) -> None:
    scipy_io.savemat(tmp_path / "good.mat", {"one": np.arange(3), "two": np.eye(2)})
    assert load_matlab(tmp_path / "good.mat", "one")["one"].tolist() == [[0, 1, 2]]
    assert "two" in load_matlab(tmp_path / "good.mat")
    (tmp_path / "bad.mat").write_bytes(b"nothing of MATLAB" * 20)
    with pytest.raises(Exception, match=r".+"):
        load_matlab(tmp_path / "bad.mat")


def test_a_file_that_crashes_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scipy_io, "loadmat", lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(FedReIDError, match="damaged"):
        load_matlab(tmp_path / "x.mat")
