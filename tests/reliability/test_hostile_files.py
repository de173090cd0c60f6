"""Hostile and misplaced files: their code is never executed, and every command prints one line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
import torch

from fedreid_pl.cli import main
from fedreid_pl.federation.messages import RejectedUpdate, from_bytes
from fedreid_pl.federation.storage import read_state, write_state


class Bomb:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def armed(content: Any, version: int = 2) -> bytes:
    """Writes a file with a valid header and checksum around the `torch.save` output of the content."""
    data = saved(content)
    header = {"format": "fedreid_pl", "version": version, "bytes": len(data), "written_by": "9.9"}
    return json.dumps({**header, "sha256": hashlib.sha256(data).hexdigest()}).encode() + b"\n" + data


@pytest.fixture(scope="module")
def finished(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a run of one round and returns its folder."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, folder, "rounds=1")]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Returns a copy that a test may damage."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and "Warning" not in captured.err and captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    return line


def checkpoint_of(run: Path) -> Path:
    return run / "checkpoints" / "round-00001.ckpt"


def test_the_bomb_works_without_protection(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("wrap", [armed, saved, pickle.dumps], ids=["right header", "torch.save", "pickle"])
def test_a_bomb_in_a_checkpoint(
    run: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, wrap: Callable[[Any], bytes]
) -> None:
    state, made = read_state(checkpoint_of(run)), tmp_path / "made"
    checkpoint_of(run).write_bytes(wrap({**state, "callbacks": Bomb(made)}))
    again = ["train", "exp=fedpav", *support.quick(tiny_root, run)]
    elsewhere = ["train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "new", f"resume={checkpoint_of(run)}")]
    named = ["evaluate", f"run={run}", f"checkpoint={checkpoint_of(run)}"]
    for words in (again, elsewhere, ["evaluate", f"run={run}"], named):
        assert "round-00001.ckpt" in refused(capsys, *words)
        assert not made.exists()


def deflated(state: Any, zeros: int = 1 << 28) -> bytes:
    """Returns the `torch.save` output of a state and an extra gigabyte of zeros, compressed into a small archive."""
    plain = zipfile.ZipFile(io.BytesIO(saved({**state, "zeros": torch.zeros(4)})))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in plain.namelist():
            if plain.read(name) != bytes(16):
                archive.writestr(name, plain.read(name))
                continue
            with archive.open(name, "w") as part:
                for _ in range(64):
                    part.write(bytes(zeros // 16))
    return packed.getvalue()


def test_a_gigabyte_in_a_small_archive(run: Path, tiny_root: Path, capsys: pytest.CaptureFixture) -> None:
    data = deflated(read_state(checkpoint_of(run)))
    assert len(data) < 20_000_000
    header = {"format": "fedreid_pl", "version": 2, "bytes": len(data), "written_by": "9.9"}
    text = json.dumps({**header, "sha256": hashlib.sha256(data).hexdigest()})
    checkpoint_of(run).write_bytes(text.encode() + b"\n" + data)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for words in (["train", "exp=fedpav", *support.quick(tiny_root, run)], ["evaluate", f"run={run}"]):
        line = refused(capsys, *words)
        assert "round-00001.ckpt" in line and "ValueError" in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 500_000, "kilobytes"


HOSTILE_SPLITS = {
    "text for a number": '{"mini-viper": {"train": "many"}}',
    "deep": '{"mini-viper": ' + "[" * 10_000 + "]" * 10_000 + "}",
    "a name with terminal control characters": '{"a\\u001b[2Jb": {"train": 1}}',
    "an invalid digest": '{"mini-viper": {"sha256": "<script>"}}',
    "not a number": '{"mini-viper": {"train": NaN}}',
    "a list": "[1]",
    "a hundred thousand datasets": json.dumps({f"d{n}": {"train": n} for n in range(100_000)}),
}


@pytest.mark.parametrize("kind", [*HOSTILE_SPLITS, "a gigabyte", "a pipe", "a link"])
def test_invalid_files_of_splits(run: Path, tiny_root: Path, capsys: pytest.CaptureFixture, kind: str) -> None:
    file = run / "splits.json"
    if kind in HOSTILE_SPLITS:
        file.write_text(HOSTILE_SPLITS[kind])
    elif kind == "a gigabyte":
        os.truncate(file, 1 << 30)
    else:
        file.rename(run.parent / "splits.json")
        os.mkfifo(file) if kind == "a pipe" else file.symlink_to(run.parent / "splits.json")
    metrics = (run / "metrics.csv").read_bytes()
    for words in (["train", "exp=fedpav", *support.quick(tiny_root, run)], ["evaluate", f"run={run}"]):
        line = refused(capsys, *words)
        assert "splits.json" in line and not set(line) & set("\x1b\x07")
    assert (run / "metrics.csv").read_bytes() == metrics


def test_a_bomb_in_a_clients_file(run: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = run / "clients" / support.TINY[1] / "round-00001.pt"
    file.write_bytes(armed({**read_state(file), "callbacks": Bomb(tmp_path / "made")}))
    before = file.read_bytes()
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, run)]) == 0
    said = capsys.readouterr().err
    assert f"client {support.TINY[1]} is left out: LostState" in said and str(file) in said
    assert not (tmp_path / "made").exists() and file.read_bytes() == before, "no new head replaces it"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["rejections"] == {support.TINY[1]: {"LostState": [2]}}
    assert not (file.parent / "round-00002.pt").exists()


def test_a_damaged_file_of_a_client_under_min_clients(
    run: Path, tiny_root: Path, capsys: pytest.CaptureFixture
) -> None:
    file = run / "clients" / support.TINY[1] / "round-00001.pt"
    file.write_bytes(file.read_bytes()[:-9])
    checkpoint = checkpoint_of(run).read_bytes()
    line = refused(capsys, "train", "exp=fedpav", *support.quick(tiny_root, run, "min_clients=3"))
    assert "2 of 3 clients" in line and "min_clients=3" in line
    assert checkpoint_of(run).read_bytes() == checkpoint


def test_an_earlier_client_file_replaces_a_damaged_one(
    run: Path, tiny_root: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, run)]) == 0
    file = run / "clients" / support.TINY[1] / "round-00002.pt"
    file.write_bytes(file.read_bytes()[:-9])
    capsys.readouterr()
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, run, "rounds=3")]) == 0
    said = capsys.readouterr().err
    assert f"warning: client {support.TINY[1]}: {file}: is damaged" in said.replace("\n", " ")
    assert "round 1 is used instead" in said.replace("\n", " ") and "left out" not in said
    assert "rejections" in json.loads((run / "summary.json").read_text())


@pytest.mark.parametrize("wrap", [saved, pickle.dumps])
def test_a_bomb_in_a_weights_file(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, wrap: Callable[[Any], bytes]
) -> None:
    (tmp_path / "weights.pth").write_bytes(wrap({"trunk.stem.0.weight": Bomb(tmp_path / "made")}))
    words = support.quick(tiny_root, tmp_path / "run", f"model.weights={tmp_path / 'weights.pth'}")
    assert "weights.pth" in refused(capsys, "train", "exp=fedpav", *words)
    assert not (tmp_path / "made").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrap", [saved, pickle.dumps])
def test_a_bomb_in_a_message(tmp_path: Path, wrap: Callable[[Any], bytes]) -> None:
    for kind in ("ClientJob", "ClientUpdate"):
        fields = {"kind": kind, "round": 1, "client": "a", "backbone": {"w": Bomb(tmp_path / "made")}}
        with pytest.raises(RejectedUpdate, match="not a message"):
            from_bytes(wrap(fields))
        assert not (tmp_path / "made").exists()


def test_a_checkpoint_of_another_run(run: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = tmp_path / "other"
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, other, "rounds=1", "seed=7")]) == 0
    before = checkpoint_of(run).read_bytes()
    wanted = "belongs to a run with another configuration"
    assert wanted in refused(capsys, "evaluate", f"run={run}", f"checkpoint={checkpoint_of(other)}")
    shutil.copyfile(checkpoint_of(other), run / "checkpoints" / "round-00002.ckpt")
    assert wanted in refused(capsys, "train", "exp=fedpav", *support.quick(tiny_root, run, "rounds=3"))
    assert checkpoint_of(run).read_bytes() == before
    (run / "checkpoints" / "round-00002.ckpt").unlink()
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, run)]) == 0, "the run is intact"


def test_a_checkpoint_of_a_newer_version(run: Path, tiny_root: Path, capsys: pytest.CaptureFixture) -> None:
    newer = armed(read_state(checkpoint_of(run)), version=3)
    whole = checkpoint_of(run).read_bytes()
    for path in (checkpoint_of(run), run / "clients" / support.TINY[0] / "round-00007.pt"):
        checkpoint_of(run).write_bytes(whole)
        path.write_bytes(newer)
        if path == checkpoint_of(run):
            assert "format 3 and was written by fedreid_pl 9.9" in refused(capsys, "evaluate", f"run={run}")
        before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
        line = refused(capsys, "train", "exp=fedpav", *support.quick(tiny_root, run))
        assert "format 3 and was written by fedreid_pl 9.9" in line and path.name in line
        elsewhere = support.quick(tiny_root, run.with_name("new"), f"resume={run}")
        assert "format 3" in refused(capsys, "train", "exp=fedpav", *elsewhere)
        assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before, "no file is changed"


def test_a_clients_file_in_place_of_a_checkpoint(run: Path, tiny_root: Path, capsys: pytest.CaptureFixture) -> None:
    file = run / "clients" / support.TINY[0] / "round-00001.pt"
    line = refused(capsys, "evaluate", f"run={run}", f"checkpoint={file}")
    assert str(file) in line and "is not a checkpoint of a server" in line
    words = support.quick(tiny_root, run.with_name("new"), f"resume={file}")
    assert "error: " in refused(capsys, "train", "exp=fedpav", *words)


def test_a_clients_file_of_another_client(run: Path, tiny_root: Path, capsys: pytest.CaptureFixture) -> None:
    one, other = (run / "clients" / name / "round-00001.pt" for name in support.TINY[:2])
    shutil.copyfile(other, one)
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, run)]) == 0
    said = capsys.readouterr().err
    assert f"client {support.TINY[0]} is left out: LostState" in said and "does not fit this client's data" in said


def test_models_of_another_network(run: Path, tiny_root: Path, capsys: pytest.CaptureFixture) -> None:
    state = read_state(checkpoint_of(run))
    state["models"]["global"].pop("trunk.stem.0.weight")
    write_state(checkpoint_of(run), state)
    assert "does not fit the network" in refused(capsys, "evaluate", f"run={run}")
    assert "does not fit the network" in refused(capsys, "train", "exp=fedpav", *support.quick(tiny_root, run))
