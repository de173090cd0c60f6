"""A run logged to a local wandb server: every round arrives once, also after a resume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import support
from wandb_records import from_csv
from wandb_server import Server, wandb_server

pytestmark = pytest.mark.system


def train(server: Server, root: Path, folder: Path, *words: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("WANDB_SERVICE", "WANDB_MODE")}
    account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_FINISH_TIMEOUT": "30"}
    command = [sys.executable, "-m", "fedreid_pl", "train", *support.quick(root, folder, "logger=wandb", *words)]
    done = subprocess.run(command, env={**kept, **account}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_resumed_run_has_every_round_once(tiny_root: Path, tmp_path: Path) -> None:
    with wandb_server() as server:
        shown = train(server, tiny_root, tmp_path, "exp=fedpav", "rounds=1")
        assert f"{server.url}/me/fedreid_pl-minireid/runs/" in shown and "wandb sync" not in shown
        train(server, tiny_root, tmp_path, "exp=fedpav", "rounds=3")
        ((run, rows),) = server.histories.items()
        assert server.groups == {run: "fedpav"} and run == (tmp_path / "wandb" / "run_id").read_text().split()[0]
    written = from_csv(tmp_path)
    assert [row["round"] for row in rows] == [row["_step"] for row in rows] == sorted(written) == [0, 1, 2, 3]
    for row in rows:
        assert {key: row[key] for key in written[row["round"]]} == written[row["round"]]
