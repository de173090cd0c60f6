"""The workspace of comparisons, tested as the object that wandb's library builds and as its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.federation.server.history import UNSEEN, VALIDATIONS
from fedreid_pl.reporting.dashboard import build_workspace, names_of_data, names_of_run
from fedreid_pl.reporting.wandb_run import SECTIONS

ws = pytest.importorskip("wandb_workspaces.workspaces")


@pytest.fixture(scope="module")
def run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", *support.quick(tiny_root, folder, "exp=fedpav_rw", "logger=csv", "rounds=1")]) == 0
    return folder


def plots(workspace: Any) -> dict[str, Any]:
    """Returns the line plots by title."""
    return {panel.title: panel for part in workspace.sections for panel in part.panels if hasattr(panel, "y")}


def test_panels_show_only_logged_values(run: Path) -> None:
    from fedreid_pl.federation.server.history import History, Record
    from fedreid_pl.reporting.numbers import round_numbers

    names = names_of_run(run)
    assert names.tests == names.local == names.clients == list(support.TINY)
    workspace = build_workspace(names, "project", "me", "title")
    assert (workspace.project, workspace.entity, workspace.settings.x_axis) == ("project", "me", "round")
    shown = {key for plot in plots(workspace).values() for key in [*plot.y, plot.x]} - {"round"}
    logged: set[str] = set()
    for name in ("metrics.csv", "timings.csv"):
        rows = [line.split(",") for line in (run / name).read_text().splitlines()[1:]]
        records = [Record(int(row[0]), row[1], row[2], row[3], float(row[4])) for row in rows]
        logged |= round_numbers(History(records), History(), 1).keys()
    other = {f"weights/{name}/cluster" for name in support.TINY}  # of other algorithms, and of other machines
    other |= {"train/server/distillation_loss", "system/gpu/peak_memory_bytes"}
    assert shown <= logged | other, shown - logged
    assert {key.partition("/")[0] for key in shown} == set(SECTIONS) - {*VALIDATIONS, *UNSEEN}


def test_algorithms_are_compared_and_weights_are_stacked(run: Path) -> None:
    model = build_workspace(names_of_run(run), "project", "me", "title")._to_model()
    content = json.loads(model.model_dump_json(by_alias=True))["spec"]["section"]
    (runs,) = content["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    panels = [panel for part in content["panelBankConfig"]["sections"] for panel in part["panels"]]
    lines = {panel["config"]["chartTitle"]: panel["config"] for panel in panels if "Line" in panel["viewType"]}
    rank1 = lines["Rank-1: mini-viper"]
    assert (rank1["xAxis"], rank1["groupBy"], rank1["groupAgg"], rank1["groupArea"]) == (
        "round",
        "group",
        "mean",
        "stddev",
    )
    stacked = lines["weights (first run shown)"]
    assert stacked["plotType"] == "stacked-area" and stacked["limit"] == 1
    assert stacked["metrics"] == [f"weights/{name}/weight" for name in support.TINY]
    assert lines["Rank-1 by bytes sent"]["xAxis"] == "cost/total/bytes"


def test_the_command_writes_a_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["dashboard", f"run={run}", "wandb.entity=team", f"out={tmp_path / 'a' / 'view.json'}"]) == 0
    content = json.loads((tmp_path / "a" / "view.json").read_text())
    assert (content["entity"], content["project"]) == ("team", "fedreid_pl-minireid")
    assert "synthetic" in content["displayName"] and "team/fedreid_pl-minireid" in capsys.readouterr().out
    assert main(["dashboard", "data=minireid", "wandb.project=mine", f"out={tmp_path / 'view.json'}"]) == 0
    content = json.loads((tmp_path / "view.json").read_text())
    assert content["project"] == "mine" and "global/mini-msmt17/rank1" in json.dumps(content)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "run=FOLDER"),
        (["data=market_layout"], "run=FOLDER"),
        (["data=minireid", "data.scenario=by_camera"], "run=FOLDER"),
        (["run=/does/not/exist"], "is not a run folder"),
        (["data=minireid", "out="], "out=FILE.json"),
        (["data=minireid", "out=/proc/none/view.json"], "cannot be written"),
        (["data=minireid"], "not logged in to wandb"),
        (["data=minireid", "wandb.projekt=a"], "did you mean 'wandb.project'"),
    ],
)
def test_a_mistake_prints_one_line(
    words: list[str], hint: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", "/dev/null")
    assert main(["dashboard", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ") and hint in captured.err


def test_the_error_names_a_missing_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces", None)
    assert main(["dashboard", "data=minireid", "out=x.json"]) == 2
    assert "fedreid-pl[dashboard]" in capsys.readouterr().err


def test_names_of_nested_folders() -> None:
    config = compose(["data=minireid", "data.datasets=[a/b,mini-viper/]"])
    assert names_of_data(config).tests == ["client1", "mini-viper"]
