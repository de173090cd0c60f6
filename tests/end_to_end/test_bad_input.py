"""Every mistake gives one clear line and exit code 2, and saved results stay intact."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.storage import read_state


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    """Runs a command that must fail and returns its single error line."""
    capsys.readouterr()
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, captured.err
    assert captured.err.splitlines()[-1] == lines[0], "the error is the last line"
    assert "Traceback" not in captured.err and captured.out == ""
    return lines[0]


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        (["train", "round=3"], ["'round'", "did you mean 'rounds'"]),
        (["train", "optim.lr_hed=1"], ["optim.lr_hed", "did you mean 'optim.lr_head'"]),
        (["train", "exp=fedpaw"], ["fedpaw", "did you mean 'fedpav'"]),
        (["train", "data=minired"], ["minired", "did you mean 'minireid'"]),
        (["train", "rounds=0"], ["rounds=0", "at least 1"]),
        (["train", "rounds=many"], ["rounds", "many"]),
        (["train", "rounds"], ["key=value"]),
        (["train", "callbacks.reweigthing={}"], ["reweigthing", "did you mean 'reweighting'"]),
        (["train", "callbacks.backbone_sync.batch_norm=median"], ["batch_norm=median", "average, first"]),
        (["train", "data=market_layout"], ["data.root="]),
        (["train", "data=market_layout", "data.root=/does/not/exist"], ["/does/not/exist"]),
        (["train", "exp=/does/not/exist.yaml"], ["/does/not/exist.yaml"]),
        (["trian", "exp=fedpav"], ["trian", "did you mean 'train'"]),
        (["evaluate"], ["run=FOLDER"]),
        (["evaluate", "run=/does/not/exist"], ["/does/not/exist"]),
    ],
)
def test_invalid_words_are_refused(words: list[str], hints: list[str], capsys: pytest.CaptureFixture) -> None:
    line = refused(capsys, *words)
    assert all(hint in line for hint in hints), line


@pytest.mark.parametrize(
    ("word", "hints"),
    [
        ("clients_per_round=4", ["clients_per_round=4", "3 clients"]),
        ("min_clients=4", ["min_clients=4", "3 clients"]),
        ("trainer.accelerator=gpu", ["trainer.devices=1", "0 GPUs"]),
        ("trainer.devices=4096", ["trainer.devices=4096"]),
        ("trainer.accelerator=quantum", ["quantum"]),
        ("trainer.strategy=telepathy", ["telepathy"]),
        ("trainer.strategy=ddp_spawn", ["ddp_spawn", "use ddp"]),
        ("model.name=resnet51", ["resnet51", "did you mean"]),
        ("model.weights=imagenet", ["model.weights=none"]),
        ("model.weights=/no/such/file.pth", ["/no/such/file.pth"]),
        ("data.datasets=[mini-market1501,mini-vipre]", ["mini-vipre"]),
        ("resume=/no/such/run", ["/no/such/run"]),
    ],
)
def test_words_that_do_not_fit_data_or_machine(
    word: str, hints: list[str], tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if word == "trainer.accelerator=gpu":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    line = refused(capsys, "train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "run", word))
    assert all(hint in line for hint in hints), line
    assert not (tmp_path / "run" / "config.yaml").exists(), "refused before any file is written"


def spoil_empty(folder: Path) -> None:
    for file in (folder / "query").iterdir():
        file.unlink()


def spoil_image(folder: Path) -> None:
    file = sorted((folder / "bounding_box_train").iterdir())[3]
    file.write_bytes(file.read_bytes()[:100])


def spoil_name(folder: Path) -> None:
    file = sorted((folder / "query").iterdir())[0]
    file.rename(file.with_name("somebody.jpg"))


def spoil_identities(folder: Path) -> None:
    files = sorted((folder / "bounding_box_train").iterdir())
    for file in files:
        if not file.name.startswith(files[0].name[:4]):
            file.unlink()


def spoil_folder(folder: Path) -> None:
    shutil.rmtree(folder / "bounding_box_test")


@pytest.mark.parametrize(
    ("spoil", "hints"),
    [
        (spoil_empty, ["mini-viper/query", "contains no image"]),
        (spoil_image, ["bounding_box_train/", ".jpg", "not a readable image"]),
        (spoil_name, ["somebody.jpg"]),
        (spoil_identities, ["client mini-viper", "1 training identity"]),
        (spoil_folder, ["mini-viper/bounding_box_test", "no such folder"]),
    ],
)
def test_spoiled_data(spoil, hints: list[str], tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_root, root)
    spoil(root / "mini-viper")
    line = refused(capsys, "train", "exp=fedpav", *support.quick(root, tmp_path / "run"))
    assert all(hint in line for hint in hints), line
    assert not Checkpoints(tmp_path / "run" / "checkpoints").rounds()


def test_empty_root(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = refused(capsys, "train", "data=market_layout", f"data.root={tmp_path}", "model.weights=none")
    assert str(tmp_path) in line


def test_output_folder_that_cannot_be_written(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused(capsys, "train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "file" / "run"))
    assert str(tmp_path / "file" / "run") in line


def test_folder_of_another_configuration(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path, "rounds=1")]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    line = refused(capsys, "train", "exp=fedpav", *support.quick(tiny_root, tmp_path, "seed=5"))
    assert "seed" in line and "resume=never" in line
    line = refused(capsys, "train", "exp=fedpav_rw", *support.quick(tiny_root, tmp_path))
    assert "callbacks.reweighting" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_disk_full_at_a_checkpoint_leaves_the_earlier_one_intact(tiny_root: Path, tmp_path: Path) -> None:
    """The second part of the run may write no file larger than 200 kB: the heads fit, the checkpoint does not."""
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path, "rounds=1")]) == 0
    before = (tmp_path / "checkpoints" / "round-00001.ckpt").read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = [sys.executable, "-m", "fedreid_pl", "train", "exp=fedpav", *support.quick(tiny_root, tmp_path)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, preexec_fn=limit, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "round-00002.ckpt" in last and "intact" in last
    assert "Traceback" not in done.stderr
    assert (tmp_path / "checkpoints" / "round-00001.ckpt").read_bytes() == before
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"attempt.json", "round-00001.ckpt"}
    assert read_state(tmp_path / "checkpoints" / "round-00001.ckpt")["round"] == 1
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path)]) == 0, "with free space the run resumes"


def test_errors_end_the_process_with_code_2() -> None:
    done = support.run_cli("train", "exp=fedpaw")
    assert done.returncode == 2
    assert done.stderr == "error: exp=fedpaw: no such configuration, did you mean 'fedpav'?\n"
    assert done.stdout == ""


def test_help_and_version(capsys: pytest.CaptureFixture) -> None:
    assert main([]) == main(["--help"]) == main(["train", "--help"]) == main(["--version"]) == 0
    printed = capsys.readouterr().out
    for word in ("exp", "rounds", "optim.lr_head", "trainer.strategy", "fedpav_rw", "minireid"):
        assert word in printed
