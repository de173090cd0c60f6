"""CUHK03 as distributed (Li et al., CVPR 2014): all images inside one MATLAB file.

    cuhk03_release/cuhk-03.mat

It is recognised, not read: samples are files, and these images are none. The usual protocol (Zhong et al., CVPR 2017)
is distributed as files: `cuhk03-np/detected` and `cuhk03-np/labeled`, each in Market-1501's layout.
"""

from __future__ import annotations

from pathlib import Path

from fedreid_pl.data.readers.dgd import is_dgd
from fedreid_pl.data.readers.fedreid_processed import is_fedreid_processed
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import has_files
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

EXPECTS = "cuhk-03.mat or cuhk03_release/cuhk-03.mat"
PLACES = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")


def is_cuhk03_mat(root: Path) -> bool:
    """Whether `root` holds CUHK03's MATLAB file and nothing converted beside it."""
    others = (is_market1501, is_msmt17, is_fedreid_processed, is_dgd)
    return any(has_files(root, place) for place in PLACES) and not any(recognise(root) for recognise in others)


def read_cuhk03_mat(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Always refuses, and says what to get instead.

    Raises:
        FedReIDError: always.
    """
    place = next((place for place in PLACES if has_files(root, place)), PLACES[0])
    raise FedReIDError(
        f"{root / place}: images inside a MATLAB file are not read; get CUHK03-NP (cuhk03-np.zip, linked from "
        "github.com/zhunzhong07/person-re-ranking, folder CUHK03-NP) and name its folder detected or labeled, "
        "such as data.layout=market1501 data.datasets=[cuhk03-np/detected]"
    )


LAYOUT = Layout("cuhk03_mat", "CUHK03, the original MATLAB file", EXPECTS, is_cuhk03_mat, read_cuhk03_mat)
