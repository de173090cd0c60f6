"""The closing lines of a finished run: existing files only, and commands that can be copied."""

from __future__ import annotations

import shlex
from pathlib import Path

from fedreid_pl.config import Config
from fedreid_pl.reporting.where_next import where_next, where_next_text


def test_only_existing_files_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    assert list(dict(where_next(Config(logger="csv"), folder))) == ["curves", "all numbers"]
    (folder / "wandb" / "offline-run-20260101_000000-abc").mkdir(parents=True)
    (folder / "report.html").touch()
    (folder / "tensorboard").mkdir()
    rows = dict(where_next(Config(logger="wandb"), folder))
    assert rows["report"] == str(folder / "report.html") and "tensorboard" not in rows
    assert shlex.split(rows["upload"]) == ["wandb", "sync", str(folder / "wandb" / "offline-run-20260101_000000-abc")]
    assert shlex.split(rows["dashboard"]) == ["fedreid-pl", "dashboard", f"run={folder}"]
    rows = dict(where_next(Config(logger="wandb"), folder, "https://example.org/run"))
    assert rows["wandb"] == "https://example.org/run" and "upload" not in rows
    rows = dict(where_next(Config(logger="tensorboard"), folder))
    assert shlex.split(rows["tensorboard"]) == ["tensorboard", "--logdir", str(folder / "tensorboard")]
    assert "upload" not in rows and "dashboard" not in rows


def test_paths_are_whole_in_a_narrow_terminal() -> None:
    path = "runs/minireid/fedpav/seed0/report.html"
    assert where_next_text([("report", path), ("x", "y")], 60) == f"report  {path}\nx       y"
    assert where_next_text([("report", path), ("x", "y")], 20).splitlines() == ["report", f"  {path}", "x", "  y"]
