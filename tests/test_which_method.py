"""docs/which_method.md contains the tables of results/leave_one_out.csv, which use only complete seeds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
tables = pytest.importorskip("leave_one_out_tables")


def row(target: str, method: str, seed: int, score: float) -> object:
    values = dict.fromkeys(tables.ROWS, score) | {"target": target, "method": method, "seed": seed, "rounds": 6}
    return tables.Row(**values)


def test_the_page_shows_the_saved_results() -> None:
    page = (ROOT / "docs" / "which_method.md").read_text(encoding="utf-8")
    rows = tables.read_rows(ROOT / "results" / "leave_one_out.csv")
    assert len(rows) > 100
    assert tables.with_tables(page, rows) == page


def test_an_incomplete_seed_is_skipped() -> None:
    rows = [row(target, "fedpav", seed, 10.0 + seed) for seed in (0, 1) for target in ("a", "b")]
    rows += [row("a", "mixstyle", 0, 13.0), row("b", "mixstyle", 0, 15.0), row("a", "mixstyle", 1, 99.0)]
    kept = tables.whole(rows)
    assert [(one.method, one.seed) for one in kept] == [("fedpav", 0)] * 2 + [("fedpav", 1)] * 2 + [("mixstyle", 0)] * 2
    assert tables.differences(kept, "mAP_last")["mixstyle"].mean == pytest.approx(4.0)
    assert "99" not in tables.tables(rows)
