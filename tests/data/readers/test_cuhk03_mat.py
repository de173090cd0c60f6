"""CUHK03's MATLAB file is met with advice."""

from __future__ import annotations

import pytest

from fedreid_pl.data.readers.cuhk03_mat import LAYOUT
from fedreid_pl.data.readers.layout import ReadOptions
from fedreid_pl.errors import FedReIDError


@pytest.mark.parametrize("place", ["cuhk-03.mat", "cuhk03_release/cuhk-03.mat"])
def test_it_says_what_to_get_instead(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(b"MATLAB 7.3 MAT-file")
    assert LAYOUT.recognise(tmp_path)
    with pytest.raises(FedReIDError) as caught:
        LAYOUT.read(tmp_path, "cuhk03", ReadOptions())
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / place}: ") and "\n" not in text
    assert "CUHK03-NP" in text and "data.layout=market1501" in text
