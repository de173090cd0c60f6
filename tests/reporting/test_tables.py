"""Tables in plain text: alignment, and the position of every number."""

from __future__ import annotations

from typing import Any

import pytest

from fedreid_pl.reporting.tables import TransferScores, percent, result_table, text_table, transfer_table


def scores(**curves: float) -> dict[str, dict[str, float]]:
    return {metric: {"last": value, "best": 0.99, "untrained": value / 10} for metric, value in curves.items()}


def summary(name: str = "fedpav", **sections: Any) -> dict[str, Any]:
    return {"name": name, "global": {}, "local": {}, **sections}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]


GLOBAL = {"viper": scores(rank1=0.5, mAP=0.25), "ilids": scores(rank1=0.125, mAP=1.0), "mean": scores(rank1=0.3125)}
LOCAL = {"viper": scores(rank1=0.6, mAP=0.3), "mean": scores(rank1=0.6, mAP=0.3)}


def test_columns_are_aligned() -> None:
    table = text_table(["client", "n", "Rank-1"], [["a long name", "1", "5.0"], ["b", "12345", "100.0"]])
    assert table.splitlines() == [
        "client           n  Rank-1",
        "--------------------------",
        "a long name      1     5.0",
        "b            12345   100.0",
    ]
    assert text_table(["only"], []).splitlines() == ["only", "----"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0, "0.0"), (1.0, "100.0"), (0.41549, "41.5"), (1 / 3, "33.3")]
)
def test_percent(value: float | None, text: str) -> None:
    assert percent(value) == text


def test_global_and_local_are_columns_and_the_mean_is_the_last_row() -> None:
    reordered = {"mean": GLOBAL["mean"], **{name: GLOBAL[name] for name in ("viper", "ilids")}}
    header, _, *rows = cells(result_table(summary(**{"global": reordered, "local": LOCAL})))
    assert header == ["test set", "untrained R1", "global R1", "global mAP", "local R1", "local mAP"]
    assert rows == [
        ["viper", "5.0", "50.0", "25.0", "60.0", "30.0"],
        ["ilids", "1.2", "12.5", "100.0", "-", "-"],
        ["mean", "3.1", "31.2", "-", "60.0", "30.0"],
    ]


def test_the_difference_to_standalone_training() -> None:
    alone = summary("local", local={"viper": scores(rank1=0.45), "ilids": scores(rank1=0.2)})
    header, _, *rows = cells(result_table(summary(**{"global": GLOBAL, "local": LOCAL}), alone))
    assert header[-2:] == ["alone R1", "local-alone"]
    assert [row[-2:] for row in rows] == [["45.0", "+15.0"], ["20.0", "-"], ["-", "-"]]
    worse = summary(local={"viper": scores(rank1=0.2)})
    assert cells(result_table(worse, alone))[2][-1] == "-25.0"


@pytest.mark.parametrize(("name", "label"), [("local", "alone"), ("centralized", "central"), ("fedpav", "local")])
def test_labels_of_runs_without_a_global_model(name: str, label: str) -> None:
    own = summary(name, local=LOCAL)
    header, _, *rows = cells(result_table(own, own))
    assert header == ["test set", f"{label} R1", f"{label} mAP"]
    assert rows == [["viper", "60.0", "30.0"], ["mean", "60.0", "30.0"]]


def test_single_shot_is_shown_where_measured_and_validation_is_not_shown() -> None:
    both = {"viper": {**GLOBAL["viper"], **scores(single_shot_rank1=0.75)}, "ilids": GLOBAL["ilids"]}
    content = summary(**{"global": both, "local": LOCAL, "val_global": GLOBAL})
    header, _, *rows = cells(result_table(content))
    assert header[1:] == ["untrained R1", "global R1", "global mAP", "global single-shot R1", "local R1", "local mAP"]
    assert [row[4] for row in rows] == ["75.0", "-", "-"]
    assert result_table(summary(**{"global": GLOBAL, "val_global": LOCAL})) == result_table(
        summary(**{"global": GLOBAL})
    )


def test_transfer_scores_of_one_split_and_of_several() -> None:
    one = TransferScores("global", "GRID", {"mAP": [0.25], "rank1": [0.125], "queries": [7.0]})
    assert cells(transfer_table([one])) == [
        ["model", "test set", "Rank-1", "mAP"],
        ["-" * 30],
        ["global", "GRID", "12.5", "25.0"],
    ]
    three = TransferScores("a", "GRID", {"mAP": [0.1, 0.2, 0.6], "single_shot_rank1": [0.5, 0.5, 0.5]})
    header, _, first, second = cells(transfer_table([one, three]))
    assert header == ["model", "test set", "Rank-1", "mAP", "single-shot R1"]
    assert first == ["global", "GRID", "12.5", "25.0", "-"]
    assert second == ["a", "GRID", "-", "30.0 ± 26.5", "50.0 ± 0.0"]


def test_a_run_without_scores_has_an_empty_table() -> None:
    assert result_table(summary()).splitlines() == ["test set", "--------"]


def test_a_table_too_wide_for_the_terminal_is_split() -> None:
    whole = result_table(summary(**{"global": GLOBAL, "local": LOCAL}))
    assert result_table(summary(**{"global": GLOBAL, "local": LOCAL}), width=200) == whole
    parts = result_table(summary(**{"global": GLOBAL, "local": LOCAL}), width=40).split("\n\n")
    assert len(parts) == 3 and all(len(line) <= 40 for part in parts for line in part.splitlines())
    first, *others = map(cells, parts)
    for other in others:
        assert set(other[1][0]) == {"-"} and [row[0] for row in other][2:] == [row[0] for row in first][2:]
        first = [[*row, *more[1:]] for row, more in zip(first, other, strict=True)]
    assert [first[0], *first[2:]] == [row for number, row in enumerate(cells(whole)) if number != 1]


def test_long_and_wide_names_in_a_narrow_terminal() -> None:
    text = text_table(
        ["test set", "global R1"], [["a-very-long-name-of-a-camera-network", "1.0"], ["b", "2.0"]], width=24
    )
    assert text.splitlines() == [
        "test set       global R1",
        "-" * 24,
        "a-very-long-…        1.0",
        "b                    2.0",
    ]
    header, _, *lines = text_table(["client", "R1"], [["摄像头", "1.0"], ["b", "2.0"]]).splitlines()
    assert lines == ["摄像头  1.0", "b       2.0"] and header == "client   R1", "a wide character takes two columns"
    assert all(len(line) <= 8 + 2 + 3 for line in text_table(["name", "R1"], [["x" * 30, "1.0"]], width=3).splitlines())
