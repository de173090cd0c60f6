"""Leftover and active variables of launchers, and words in the syntax of other tools; no test starts a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedreid_pl.cli import main
from fedreid_pl.commands.habits import as_words
from fedreid_pl.commands.words import first_process
from fedreid_pl.config import compose
from fedreid_pl.config.launch import check_launch, clean_environment, find_launcher, ignore_leftovers
from fedreid_pl.errors import FedReIDError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
SRUN = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_JOB_NAME": "train"}
BY_HAND = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = clean_environment(os.environ)
    for name in list(os.environ):
        if name not in environment:
            monkeypatch.delenv(name)
    for name in (*TORCHRUN, *SRUN, *BY_HAND):  # restores the variables after the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def given(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1"},
        {"LOCAL_RANK": "1"},
        {"SLURM_PROCID": "3"},
        {"JSM_NAMESPACE_RANK": "2"},
        {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "3"},
        {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"},
        {"LOCAL_RANK": "1", "FEDREID_PL_STARTED_BY": "1"},
    ],
)
def test_a_leftover_is_ignored_with_one_warning(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    given(monkeypatch, variables)
    ignore_leftovers()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("warning: ") and next(iter(variables)) in said[0]
    assert first_process() and not {"RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"} & set(os.environ)
    check_launch(compose([]))
    ignore_leftovers()
    assert capsys.readouterr().err == ""


def test_an_error_is_printed_after_the_warning_about_a_leftover(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "rounds=x"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN, BY_HAND])
def test_variables_of_an_active_launcher_are_not_changed(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, variables)
    ignore_leftovers()
    assert find_launcher() is not None and not first_process()
    check_launch(compose(["trainer.devices=2"]))
    assert all(os.environ[name] == value for name, value in variables.items())


@pytest.mark.parametrize(
    ("variables", "words", "hint"),
    [
        (TORCHRUN, [], "torchrun started 2 processes, but trainer.devices=1"),
        (TORCHRUN, ["trainer.devices=4"], "set trainer.devices=2"),
        (SRUN, [], "SLURM_NTASKS=2, but trainer.devices=1"),
        ({"SLURM_NTASKS": "4"}, [], "SLURM_NTASKS=4, but trainer.devices=1"),
        ({"SLURM_NTASKS": "2"}, ["trainer.devices=2"], "put srun before"),
        (SRUN | {"SLURM_NNODES": "2"}, ["trainer.devices=2"], "set trainer.num_nodes=2"),
        (SRUN | {"SLURM_NTASKS_PER_NODE": "1"}, ["trainer.devices=2"], "make the two equal"),
        (BY_HAND, ["trainer.devices=4"], "another launcher started 2"),
        ({}, ["trainer.num_nodes=2"], "start the command on every machine with torchrun"),
        ({"MASTER_ADDR": "head"}, ["trainer.num_nodes=2"], "trainer.num_nodes=2: no launcher started this process"),
    ],
)
def test_numbers_that_differ_are_refused(
    variables: dict[str, str], words: list[str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, variables)
    with pytest.raises(FedReIDError) as caught:
        check_launch(compose(words))
    assert hint in str(caught.value)


def test_a_run_with_one_device_ignores_variables_set_by_hand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    given(monkeypatch, BY_HAND)
    check_launch(compose([]))
    assert "RANK=1" in capsys.readouterr().err and "RANK" not in os.environ


def test_compare_starts_once_and_its_runs_in_a_clean_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    cleaned = clean_environment({**TORCHRUN, **SRUN, **BY_HAND, "PATH": "/bin", "SLURM_JOB_ID": "7"})
    assert cleaned == {"PATH": "/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train"}
    given(monkeypatch, {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"})
    assert main(["compare", "exps=local"]) == 2
    assert "torchrun started it 2 times" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--rounds", "3"], ["rounds=3"]),
        (["--rounds=3"], ["rounds=3"]),
        (["--exp", "fedpav", "seed=1"], ["exp=fedpav", "seed=1"]),
        (["--batch-size", "8", "--optim.lr-head=-1"], ["batch_size=8", "optim.lr_head=-1"]),
        (["exp", "=", "fedpav"], ["exp=fedpav"]),
        (["exp", "=fedpav"], ["exp=fedpav"]),
        (["--exps", "local fedpav+seed=2"], ["exps=local fedpav+seed=2"]),
        (["runs/a", "out=b"], ["runs/a", "out=b"]),
        (["output_dir=a:b", "data.root=--x"], ["output_dir=a:b", "data.root=--x"]),
    ],
)
def test_words_in_other_syntax_are_accepted(typed: list[str], words: list[str]) -> None:
    assert as_words(typed) == words


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (["train", "rounds:3"], "write rounds=3"),
        (["train", "rounds:", "3"], "write rounds=3"),
        (["train", "exp=", "fedpav"], "write exp=fedpav"),
        (["train", "--rounds"], "write rounds=VALUE"),
        (["train", "--rounds", "seed=3"], "write rounds=VALUE"),
        (["train", "-r", "3"], "write key=value"),
        (["train", "fedpav"], "write exp=fedpav"),
        (["train", "data.root=" + "1" * 400], "is too long"),
        (["evaluate", "run=" + "1" * 400], "is too long"),
        (["figure", "1" * 400], "is too long"),
        (["train", "data.root=~nobody-of-this-name/x", "data=market_layout"], "no folder ~nobody-of-this-name/x"),
        (["evaluate", "run=~nobody-of-this-name/x"], "~nobody-of-this-name/x"),
        (["train", "rounds", "3"], "write rounds=VALUE"),
        (["--rounds", "3"], "write fedreid-pl train --rounds 3"),
        (["exp=fedpav"], "write fedreid-pl train exp=fedpav"),
        (["fedpav", "rounds=3"], "write fedreid-pl train exp=fedpav rounds=3"),
    ],
)
def test_other_syntax_is_refused_with_the_right_words(
    typed: list[str], hint: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(typed) == 2
    assert hint in capsys.readouterr().err


def test_every_version_option_prints_the_version(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--version"]) == 0 == main(["--version"])
    assert capsys.readouterr().out.count("fedreid_pl ") == 2


@pytest.mark.parametrize("redirect", ["", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_terminal_of_ascii_and_closed_streams(redirect: str, tmp_path: Path) -> None:
    """Uses a separate process without torch, because streams can be closed only for a new process."""
    code = "import sys; from fedreid_pl.cli import main; sys.exit(main(sys.argv[1:]))"
    command = f'"{sys.executable}" -c "{code}" train name=摄像头… rounds=0 {redirect}'
    environment = {**os.environ, "LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ended = subprocess.run(command, shell=True, env=environment, capture_output=True, cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert b"Traceback" not in ended.stderr + ended.stdout and list(tmp_path.iterdir()) == []
