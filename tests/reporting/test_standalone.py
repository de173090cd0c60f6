"""The standalone run in the same parent folder is found, also while other processes change folders there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fedreid_pl.config import compose
from fedreid_pl.reporting.run_folder import find_standalone, setting


def test_a_folder_deleted_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["exp=fedpav"])
    for name in ("a/gone", "local/seed0"):
        (tmp_path / name).mkdir(parents=True)
    summary = {"name": "local", "setting": setting(config), "complete": True}
    (tmp_path / "local" / "seed0" / "summary.json").write_text(json.dumps(summary))
    scan = os.scandir

    def scandir(place: Any = ".") -> Any:
        if Path(str(place)).name == "a":
            raise FileNotFoundError(2, "No such file or directory", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert find_standalone(config, tmp_path / "fedpav" / "seed0") == summary


def test_the_standalone_run_is_found_with_any_optimizer_state(tmp_path: Path) -> None:
    federated = compose(["exp=fedpav"])
    for words in (["exp=local"], ["exp=local", "optimizer_state=reset"]):
        assert setting(compose(words)) == setting(federated), words
    assert setting(compose(["exp=local", "optim.lr_head=0.1"])) != setting(federated)
