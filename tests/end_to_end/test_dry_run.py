"""`train dry_run=true` makes the same checks, prints the training plan, and writes no file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.data.minireid import DOMAINS, PUBLIC, store


def contents(folder: Path) -> dict[str, str]:
    """Returns every file below a folder with a digest, and every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def test_a_dry_run_prints_clients_sizes_and_rates_and_writes_nothing(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDREID_PL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = contents(tmp_path), contents(tiny_root)
    words = support.quick(tiny_root, tmp_path / "run", "rounds=300", "optim.schedule=step", "optim.lr_head=0.4")
    assert main(["train", "dry_run=true", "exp=fedpav", *words]) == 0
    assert (contents(tmp_path), contents(tiny_root)) == before
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    for client in support.TINY:
        images = len(os.listdir(tiny_root / client / "bounding_box_train"))
        persons = len({name.split("_")[0] for name in os.listdir(tiny_root / client / "bounding_box_train")})
        (row,) = [row for row in rows if row[:1] == [client]]
        assert row[1:3] == [str(persons), str(images)]
    assert ["head", "0.4", "4e-08"] in rows, "0.4 and 0.4 * 0.1 ** 7"
    assert "nothing was trained or written" in shown.out
    assert "in 47% of the rounds the learning rates are below a thousandth" in shown.err


def test_a_dry_run_refuses_the_same_input_as_the_run(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = support.quick(tiny_root, tmp_path / "run", "trainer.accelerator=cpu", "data.datasets=[mini-viper]")
    assert main(["train", "exp=fedpav", *words]) == 0
    before = contents(tmp_path)
    for more, hint in (
        (["seed=1"], "seed differ"),
        (["rounds=1"], "already has 2 rounds"),
        (["min_clients=5"], "min_clients=5"),
        ([f"output_dir={tmp_path}/run/config.yaml/run"], "config.yaml cannot be written to"),
        (["callbacks.clustering={}", "data.public=null"], "data.public"),
        (["resume=/no/such/run"], "/no/such/run"),
    ):
        capsys.readouterr()
        assert main(["train", "dry_run=true", "exp=fedpav", *words, *more]) == 2, more
        assert hint in capsys.readouterr().err
    assert main(["train", "dry_run=yes", "exp=fedpav"]) == 2
    assert "dry_run=yes: must be true or false" in capsys.readouterr().err
    assert main(["train", "dry_run=true", "exp=fedpav", *words]) == 0
    assert "would resume after round 2" in capsys.readouterr().out
    assert contents(tmp_path) == before


def test_a_dry_run_draws_a_missing_minireid_in_a_temporary_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDREID_PL_CACHE", str(tmp_path / "cache"))
    small = {name: DOMAINS[name].scaled(0.12) for name in ("mini-viper", "mini-ilids")}
    small[PUBLIC.name] = PUBLIC.scaled(0.05)
    monkeypatch.setattr(store, "domains_of", lambda version: small)
    words = ["data.datasets=[mini-viper,mini-ilids]", "logger=none"]
    assert main(["train", "dry_run=true", "exp=fedpav", *words]) == 0
    assert "mini-ilids" in capsys.readouterr().out
    assert contents(tmp_path) == {}
