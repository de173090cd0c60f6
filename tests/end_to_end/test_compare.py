"""`fedreid-pl compare` with real runs: trains missing runs, reuses existing ones, and reports failed ones."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import os
import re
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import support

from fedreid_pl.cli import main

pytestmark = pytest.mark.system

EXPERIMENTS = ("fedpav", "local")


class Said(NamedTuple):
    code: int
    out: str
    err: str


def compare(root: Path, folder: Path, *words: str) -> Said:
    """Compares two experiments over two seeds in `folder`."""
    common = [word for word in support.quick(root, folder) if not word.startswith("output_dir=")]
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["compare", f"exps={' '.join(EXPERIMENTS)}", "seeds=0 1", *common, *words])
    finally:
        os.chdir(before)
    return Said(code, out.getvalue(), err.getvalue())


def folders(folder: Path) -> Iterator[tuple[str, int, Path]]:
    with open(folder / "runs" / "minireid" / "compare" / "runs.csv", newline="") as file:
        for row in csv.DictReader(file):
            yield row["experiment"], int(row["seed"]), folder / row["folder"]


def times(folder: Path) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and "compare" not in path.parts
    }


@pytest.fixture(scope="module")
def trained(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """Returns a folder with a finished comparison that trained two runs at a time."""
    folder = tmp_path_factory.mktemp("comparison")
    return folder, compare(tiny_root, folder, "jobs=2")


def test_the_first_call_trains_everything(trained: tuple[Path, Said]) -> None:
    folder, said = trained
    assert said.code == 0, said.err
    assert sum(" starts, " in line for line in said.err.splitlines()) == 4
    assert sum(" is done after " in line for line in said.err.splitlines()) == 4
    last: dict[str, list[float]] = {name: [] for name in EXPERIMENTS}
    for experiment, _, place in folders(folder):
        summary = json.loads((place / "summary.json").read_text())
        assert summary["complete"] and summary["name"] == experiment
        assert "2 rounds" in (place / "train.log").read_text()
        last[experiment].append(100 * summary["local"]["mini-market1501"]["rank1"]["last"])
    with open(folder / "runs" / "minireid" / "compare" / "tables.csv", newline="") as file:
        rows = {(row["table"], row["row"], row["column"], row["metric"]): row for row in csv.DictReader(file)}
    for name, numbers in (("standalone (local)", last["local"]), ("fedpav, local models", last["fedpav"])):
        row = rows["table3", name, "mini-market1501", "rank1_last"]
        assert float(row["mean"]) == pytest.approx(statistics.mean(numbers))
        assert float(row["deviation"]) == pytest.approx(statistics.stdev(numbers))
    assert rows.keys() >= {("table4", "fedpav", "mean", "rank1_last_difference")}
    titles = [line for line in said.out.splitlines() if line.startswith(("Table", "Fluctuation", "Communication"))]
    assert len(titles) == 5 and all("synthetic data" in title for title in titles)
    assert (folder / "runs" / "minireid" / "compare" / "tables.md").read_text().count("\n## ") == 7


def test_the_second_call_trains_nothing_and_prints_the_same(trained: tuple[Path, Said], tiny_root: Path) -> None:
    folder, first = trained
    before = times(folder)
    assert compare(tiny_root, folder, "jobs=2") == Said(0, first.out, "")
    best = compare(tiny_root, folder, "statistic=best3", "out=elsewhere")
    assert best.code == 0 and "selected on test data" in best.out and (folder / "elsewhere" / "tables.md").exists()
    assert {path: time for path, time in times(folder).items() if "elsewhere" not in path.parts} == before


def test_a_failed_run_is_reported_and_the_others_continue(
    trained: tuple[Path, Said], tiny_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    places = {(experiment, seed): place for experiment, seed, place in folders(folder)}
    config = places["fedpav", 1] / "config.yaml"  # the folder now has another configuration
    config.write_text(config.read_text().replace("lr_head: 0.02", "lr_head: 0.5"))
    (places["local", 1] / "summary.json").unlink()  # as if killed; this run comes after the failing one
    said = compare(tiny_root, folder, "jobs=1")
    assert said.code == 2
    child = capfd.readouterr().err
    assert "optim.lr_head differ" in child and "Traceback" not in child
    assert said.err.splitlines()[-1].startswith("error: 1 of 4 runs are missing: fedpav seed 1 (runs/minireid/fedpav/")
    assert (places["local", 1] / "summary.json").exists()
    assert "WITHOUT fedpav seed 1" in said.out and "fedpav, global model" in said.out
    alone = [line for line in trained[1].out.splitlines() if line.startswith("standalone (local)")]
    assert alone and all(line.split() in [row.split() for row in said.out.splitlines()] for line in alone)


def test_the_report_shows_every_number_of_the_tables(trained: tuple[Path, Said], tmp_path: Path) -> None:
    folder, said = trained
    place = folder / "runs" / "minireid" / "compare"
    assert said.out.splitlines()[-1].endswith(str(Path("runs", "minireid", "compare", "report.html")))
    shown = [row for table in tables_of_page(place / "report.html") for row in table]
    with open(place / "tables.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) > 50
    for cell in cells:
        number, deviation = float(cell["mean"]), float(cell["deviation"] or 0)
        rows = [row for row in shown if ", ".join(row.names) == cell["row"] and cell["column"] in row.values]
        assert any(close(row.values[cell["column"]], number, deviation) for row in rows), cell
    for experiment in EXPERIMENTS:
        assert f"fedreid-pl train exp={experiment}" in (place / "report.html").read_text()
    before = Path.cwd()
    os.chdir(tmp_path)  # the folders in runs.csv are relative to the comparison's working directory
    try:
        assert main(["report", str(place), f"out={tmp_path / 'again.html'}"]) == 0
    finally:
        os.chdir(before)
    assert [row for table in tables_of_page(tmp_path / "again.html") for row in table][: len(shown)] == shown


class Row(NamedTuple):
    names: list[str]
    values: dict[str, str]


def tables_of_page(path: Path) -> list[list[Row]]:
    """Returns the rows of every expanded table of a page: the names of a row, and its cells by heading."""
    text = re.sub(r"<details.*?</details>", "", path.read_text())
    tables = []
    for table in re.findall(r"<table.*?</table>", text):
        head = [html.unescape(cell) for cell in re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)]
        rows = []
        for line in re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2]):
            names = [html.unescape(cell) for cell in re.findall(r'<th scope="row">(.*?)</th>', line)]
            values = re.findall(r"<td>(.*?)</td>", line)
            rows.append(Row(names, dict(zip(head[len(names) :], values, strict=True))))
        tables.append(rows)
    return tables


def close(shown: str, number: float, deviation: float) -> bool:
    """Returns whether a cell shows these numbers, rounded to the cell's decimals."""
    parts = [part.strip().replace(",", "") for part in shown.split("±")]
    if parts == ["-"]:
        return False
    half = 0.5000001 * 10.0 ** -len(parts[0].partition(".")[2])
    wanted = [number, deviation][: len(parts)]
    return all(abs(float(part) - value) <= half for part, value in zip(parts, wanted, strict=True))
