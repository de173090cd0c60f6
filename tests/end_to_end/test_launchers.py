"""Real launchers and their leftover variables: exit code 0 means that the run is complete."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import support

from fedreid_pl.config.launch import clean_environment

pytestmark = pytest.mark.system


def start(command: list[str], words: list[str], **variables: str) -> subprocess.CompletedProcess:
    environment = {**clean_environment(os.environ), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([*command, "train", *words], env=environment, capture_output=True, text=True, timeout=300)


def test_leftovers_of_a_launcher_do_not_stop_a_run(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path / "run", "rounds=1", "trainer.accelerator=cpu")
    ended = start([sys.executable, "-m", "fedreid_pl"], words, RANK="1", LOCAL_RANK="1", SLURM_PROCID="3")
    assert ended.returncode == 0 and (tmp_path / "run" / "summary.json").is_file(), ended.stderr
    assert ended.stderr.count("warning: RANK=1") == 1


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_torchrun_trains_with_two_processes(tiny_root: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fedreid_pl"]
    words = support.quick(tiny_root, tmp_path / "run", "rounds=1", "trainer.accelerator=cpu", "trainer.devices=2")
    ended = start(torchrun, words)
    assert ended.returncode == 0 and (tmp_path / "run" / "summary.json").is_file(), ended.stderr


def free_port() -> int:
    """Returns a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def two_nodes(commands: list[list[str]], words: list[str], variables: list[dict[str, str]]) -> list[str]:
    """Starts the same run twice, as on two machines; returns the stderr of both."""
    environment = {**clean_environment(os.environ), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, "train", *words], env={**environment, **more}, stderr=subprocess.PIPE, text=True)
        for command, more in zip(commands, variables, strict=True)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return said


@pytest.mark.system
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_two_processes_as_two_nodes_write_one_run_folder(tiny_root: Path, tmp_path: Path) -> None:
    """torchrun and Slurm's variables give the same bits."""
    nodes = ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2", "rounds=1"]
    rendezvous = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *rendezvous, str(free_port())]
    commands = [[*torchrun, "--node-rank", str(rank), "-m", "fedreid_pl"] for rank in (0, 1)]
    two_nodes(commands, support.quick(tiny_root, tmp_path / "torchrun", *nodes), [{}, {}])

    slurm = {"SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_ID": "7"}
    slurm |= {"SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost", "SLURM_LOCALID": "0"}
    slurm |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [{**slurm, "SLURM_PROCID": rank, "SLURM_NODEID": rank} for rank in ("0", "1")]
    plain = [[sys.executable, "-m", "fedreid_pl"]] * 2
    said = two_nodes(plain, support.quick(tiny_root, tmp_path / "slurm", *nodes), ranks)

    assert not any("Traceback" in text for text in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slurm", "torchrun"]
    one, other = ((tmp_path / name / "metrics.csv").read_bytes() for name in ("torchrun", "slurm"))
    assert one == other and one.count(b"\n") > 10
