"""A SuperLink, two SuperNodes and `flwr run` as processes: a run gives the same bits as the sequential engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import support
from silos.parties import assert_same_run, make_parties, silo_words
from silos.wire import free_port

from fedreid_pl.cli import main
from fedreid_pl.engines.silos.flower.version import FLOWER


def installed() -> str:
    """Returns the installed version of Flower, or an empty string."""
    try:
        return version("flwr")
    except PackageNotFoundError:
        return ""


pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        installed() != FLOWER,
        reason=f"flwr {FLOWER} is not installed, because it needs another protobuf; make test-flower runs this file",
    ),
]
BIN = Path(sys.executable).parent
LIMIT = 900.0  # seconds; a run takes one or two minutes, and longer on a busy machine


class Flower:
    """Flower's processes, with a temporary home folder."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_HOME": str(home / "flwr"),
            "OMP_NUM_THREADS": "1",
        }
        (home / "flwr").mkdir(parents=True)
        connection = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\n'
        (home / "flwr" / "config.toml").write_text(f"{connection}insecure = true\n")

    def start(self, name: str, *command: str) -> subprocess.Popen:
        with open(self.home / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                [BIN / command[0], *command[1:]],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def wait(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT
        while not done():
            logs = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in self.logs())
            assert time.monotonic() < end, f"{what}\n{logs}"
            time.sleep(0.5)

    def logs(self) -> list[Path]:
        return sorted(self.home.glob("*.log"))


@contextmanager
def running(*processes: subprocess.Popen) -> Iterator[None]:
    """Kills processes and their children."""
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def supernode(flower: Flower, silo: Path, root: Path) -> subprocess.Popen:
    words = " ".join(silo_words(root, silo.name))
    node = ("--superlink", f"127.0.0.1:{flower.port}", "--insecure", "--port", str(free_port()))
    config = ("--node-config", f'silo-folder="{silo}" silo-words="{words}"')
    return flower.start(silo.name, "flower-supernode", *node, *config)


def test_flwr_run_ends_with_the_bits_of_the_sequential_engine(tiny_root: Path, tmp_path: Path) -> None:
    names = support.TINY[1:]
    common = ["exp=fedpav_rw", "rounds=2", "evaluate_every=2", "min_clients=2", "trainer.accelerator=cpu"]
    straight, apart = tmp_path / "straight", tmp_path / "apart"
    words = support.quick(tiny_root, straight, *common, f"data.datasets=[{','.join(names)}]")
    assert main(["train", *words]) == 0

    federation, silos = make_parties(tmp_path / "parties", names)
    flower, app = Flower(tmp_path / "flower"), tmp_path / "app"
    assert main(["flower", f"out={app}"]) == 0
    place = ("--host", "127.0.0.1", "--port", str(flower.port))
    link = flower.start(
        "superlink", "flower-superlink", "--insecure", *place, "--disable-runtime-dependency-installation"
    )
    nodes = [supernode(flower, silo.path, tiny_root) for silo in silos.values()]
    with running(link, *nodes):
        online = "Activated node_id"
        flower.wait(lambda: flower.log("superlink").count(online) == 2, "two nodes are online")
        told = [w for w in words if not w.startswith(("data.datasets=", "output_dir="))]
        config = f'federation="{federation.path}" output-dir="{apart}" words="{" ".join(told)}"'
        run = flower.start("run", "flwr", "run", str(app), "here", "--stream", "--run-config", config)
        with running(run):
            flower.wait(lambda: (apart / "summary.json").exists(), "the run has ended")
            flower.wait(lambda: "Finished task" in flower.log("superlink"), "Flower knows it")
    assert_same_run(straight, apart)
    assert not (apart / "clients").exists(), "the coordinator has no client state"
    assert "Rank-1 (R1) and mAP in percent" in flower.log("run")
    for silo in silos.values():
        events = [json.loads(line)["event"] for line in (silo.path / "audit.jsonl").read_text().splitlines()]
        assert events.count("joined") == 1 and events.count("update") >= 2 and "failed" not in events
        assert list((silo.path / "spool").iterdir()) == []
