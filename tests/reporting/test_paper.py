"""The paper's numbers: folders are matched to the paper's datasets, and the tables agree with each other."""

from __future__ import annotations

import pytest

from fedreid_pl.reporting.paper import NINE, TABLE2, TABLE3, TABLE4, TABLE5, paper_name


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("MSMT17_V1", "MSMT17"),
        ("DukeMTMC-reID", "Duke"),
        ("Market-1501-v15.09.15", "Market"),
        ("market1501", "Market"),
        ("cuhk03-np-detected", "CUHK03"),
        ("prid_2011", "PRID"),
        ("CUHK01", "CUHK01"),
        ("VIPeR.v1.0", "VIPeR"),
        ("3DPeS", "3DPeS"),
        ("QMUL-iLIDS", "iLIDS"),
        ("DukeMTMC-VideoReID", None),
        ("Occluded_Duke", None),
        ("cuhk03-np-labeled", None),
        ("prid450s", None),
        ("iLIDS-VID", None),
        ("mini-viper", None),
    ],
)
def test_folders_are_matched_to_the_papers_nine(folder: str, name: str | None) -> None:
    assert paper_name(folder) == name


def test_the_papers_tables_agree_with_each_other() -> None:
    assert all(paper_name(name) == name for name in NINE) and len(NINE) == 9
    assert all(len(row) == 9 for row in (*TABLE3.values(), *TABLE4.values()))
    for index in range(9):  # the printed numbers are rounded
        difference = TABLE3["FedPav, local models"][index] - TABLE3["standalone"][index]
        assert difference == pytest.approx(TABLE4["FedPav"][index], abs=0.11)
    assert all(rank1 < rank5 < rank10 for rank1, rank5, rank10, _ in TABLE2.values())
    assert all(row["GRID"] < row["CAVIAR4REID"] for row in TABLE5.values())
