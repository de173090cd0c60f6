"""Coordinator and silos as processes with separate folders give the bits of one process, also after kills."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import support
from silos.parties import coordinator_words, make_parties, silo_words
from silos.processes import Nursery, Service, listening, watch
from silos.wire import free_port

from fedreid_pl.cli import main
from fedreid_pl.engines.silos.audit import check_log
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.federation.storage import read_state

pytestmark = pytest.mark.system
KILLS = 5


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


class Deployment:
    """The processes of a run."""

    def __init__(self, nursery: Nursery, root: Path, home: Path, exp: str, rounds: int) -> None:
        self.home, self.run = home, home / "run"
        self.federation: FederationFolder
        self.silos: dict[str, SiloFolder]
        self.federation, self.silos = make_parties(home, support.TINY, port=free_port())
        self.common = (f"exp={exp}", f"rounds={rounds}", "evaluate_every=2", "min_clients=3")
        self.parties = {
            name: Service(nursery, ["silo", "run", str(silo.path), *silo_words(root, name)], home / f"{name}.log")
            for name, silo in self.silos.items()
        }
        words = ["train", *coordinator_words(root, self.run, self.federation, *self.common)]
        self.coordinator = Service(nursery, words, home / "coordinator.log")

    @property
    def services(self) -> list[Service]:
        return [*self.parties.values(), self.coordinator]

    def rounds(self) -> int:
        """Returns the number of saved rounds."""
        return max((int(path.stem[6:]) for path in (self.run / "checkpoints").glob("round-*.ckpt")), default=0)

    def finish(self, limit: float = 240.0) -> None:
        watch(self.services, lambda: self.coordinator.code is not None, limit)
        assert self.coordinator.code == 0, (self.home / "coordinator.log").read_text()[-2000:]

    def stop(self) -> None:
        for service in self.services:
            service.stop()


def assert_same(straight: Path, run: Path, rounds: int) -> None:
    assert (straight / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    one, other = (read_state(folder / "checkpoints" / f"round-{rounds:05d}.ckpt") for folder in (straight, run))
    for state in (one, other):
        state.pop("costs"), state.pop("lineage")
    support.assert_equal(one, other)


def straight(root: Path, folder: Path, common: tuple[str, ...]) -> Path:
    assert main(["train", *support.quick(root, folder, "trainer.accelerator=cpu", *common)]) == 0
    return folder


@pytest.mark.parametrize("exp", ["fedpav_rw", "scaffold", "fedpav_kd_rw"])
def test_separate_processes_and_folders_give_the_bits_of_one_process(
    exp: str, nursery: Nursery, tiny_root: Path, tmp_path: Path
) -> None:
    made = Deployment(nursery, tiny_root, tmp_path / "parties", exp, rounds=3)
    try:
        watch(made.services, lambda: made.rounds() >= 1, 120)
        ports = listening(made.coordinator.process)
        assert ports == [("127.0.0.1", made.federation.port)], "one port, on the loopback address of this host"
        assert all(listening(party.process) == [] for party in made.parties.values()), "silos open no port"
        made.finish()
        assert main(["federation", "status", str(made.federation.path)]) == 0
        status = json.loads((made.federation.path / "status.json").read_text())
        assert status["round"] == 3 and all(silo["up"] > 100_000 for silo in status["silos"].values())
    finally:
        made.stop()
    assert_same(straight(tiny_root, tmp_path / "straight", made.common), made.run, 3)
    for silo in made.silos.values():
        lines, _ = check_log(silo.path / "audit.jsonl")
        events = [json.loads(line)["event"] for line in (silo.path / "audit.jsonl").read_text().splitlines()]
        assert events[0] == "joined" and events.count("update") == lines - 1 >= 3


@pytest.mark.parametrize("victims", ["silo", "coordinator", "both"])
def test_five_kills_change_no_bit(victims: str, nursery: Nursery, tiny_root: Path, tmp_path: Path) -> None:
    made = Deployment(nursery, tiny_root, tmp_path / "parties", "scaffold", rounds=KILLS + 2)
    draws = random.Random(victims)
    names = list(made.parties)
    try:
        for number in range(1, KILLS + 1):
            watch(made.services, lambda number=number: made.rounds() >= number, 120)  # type: ignore[misc]
            # between rounds or within the next one: training and evaluation of the three take about half a second
            until = time.monotonic() + draws.uniform(0.0, 0.8) * (number > 1)
            watch(made.services, lambda until=until: time.monotonic() >= until, 10)  # type: ignore[misc]
            if made.coordinator.code is not None:
                break
            if victims != "coordinator":
                made.parties[names[number % len(names)]].kill()
            if victims != "silo":
                made.coordinator.kill()
        made.finish()
        starts = {name: party.starts for name, party in made.parties.items()}
        killed = sum(starts.values()) - len(starts) if victims == "silo" else made.coordinator.starts - 1
        assert killed == KILLS, (starts, made.coordinator.starts)
    finally:
        made.stop()
    assert_same(straight(tiny_root, tmp_path / "straight", made.common), made.run, KILLS + 2)
    for silo in made.silos.values():
        check_log(silo.path / "audit.jsonl")
