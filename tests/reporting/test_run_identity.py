"""The wandb run of a folder: a copied folder gets a new run, a moved folder keeps its run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.reporting.run_identity import run_identity


def test_a_copy_gets_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first = run_identity(tmp_path / "run")
    assert not first.copied and run_identity(tmp_path / "run") == first
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    copy = run_identity(tmp_path / "copy")
    assert copy.copied and copy.id != first.id
    assert run_identity(tmp_path / "copy") == (copy.id, False), "reported once, then unchanged"
    assert run_identity(tmp_path / "run") == first


def test_a_folder_that_is_moved_or_restored_keeps_its_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first = run_identity(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert run_identity(tmp_path / "moved") == first
    shutil.copytree(tmp_path / "moved", tmp_path / "backup")
    shutil.rmtree(tmp_path / "moved")
    (tmp_path / "holds-the-number").mkdir()
    shutil.copytree(tmp_path / "backup", tmp_path / "moved")
    assert run_identity(tmp_path / "moved") == first


def test_an_id_of_an_earlier_version_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "canary-folder"
    (folder / "wandb").mkdir(parents=True)
    (folder / "wandb" / "run_id").write_text("ab12cd34\n")
    assert run_identity(folder) == ("ab12cd34", False)
    assert "canary" not in (folder / "wandb" / "run_id").read_text()


@pytest.mark.parametrize("text", ["", "../../x", "a b c", "a" * 99, "\x1b[2J"])
def test_an_invalid_id_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "run_id").write_text(text)
    assert run_identity(tmp_path).id.isalnum() and len(run_identity(tmp_path).id) == 8


def test_resuming_a_copied_run_prints_a_message(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["exp=fedpav", *support.quick(tiny_root, tmp_path / "run", "logger=wandb", "rounds=1", "report.queries=2")]
    assert main(["train", *words]) == 0
    first = run_identity(tmp_path / "run").id
    shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=True)
    capsys.readouterr()
    assert main(["train", *words, "rounds=2", f"output_dir={tmp_path / 'copy'}"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    own = run_identity(tmp_path / "copy").id
    assert "this run folder is a copy of another one" in said and own in said and own != first
    runs = {path.name.rpartition("-")[2] for path in (tmp_path / "copy" / "wandb").glob("offline-run-*")}
    assert runs == {own}
    assert {path.name.rpartition("-")[2] for path in (tmp_path / "run" / "wandb").glob("offline-run-*")} == {first}
