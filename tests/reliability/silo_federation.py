"""A federation of processes behind a proxy, and the reference run in one process."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import time
from pathlib import Path

import support
from silos.absent import LATE, Missed
from silos.parties import coordinator_words, make_parties, silo_words
from silos.processes import Nursery, Service, watch
from silos.spots import Control
from silos.wire import free_port

from fedreid_pl.engines.silos.audit import check_log
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.federation.storage import read_state

LIMIT = 600.0  # longest wait for any event, in seconds
PARTS = ("silo", "coordinator", "proxy")


class Federation:
    """Three silos, a coordinator and a proxy in front of it, as processes that are restarted after a kill.

    Args:
        nursery: the process that forks the others.
        root: the data's folder.
        home: the parent of all folders; its content is deleted unless `keep` is set.
        words: the settings of the experiment.
        pace: minimum duration of each training, in seconds.
        keep: whether to resume from the folders of an earlier federation whose processes have all ended.
    """

    def __init__(
        self,
        nursery: Nursery,
        root: Path,
        home: Path,
        words: tuple[str, ...],
        pace: float = 0.0,
        keep: bool = False,
    ) -> None:
        self.nursery, self.root, self.home, self.words, self.run = nursery, root, home, words, home / "run"
        if keep:
            self.federation = FederationFolder(home / "federation")
            self.silos = {name: SiloFolder(home / name) for name in support.TINY}
        else:
            shutil.rmtree(home, ignore_errors=True)
            self.federation, self.silos = make_parties(home, support.TINY, port=free_port())
        self.control, self.harm = Control(home / "control"), home / "harm.json"
        self.set_harm("", [])
        self.pace, self.services = pace, dict[str, Service]()

    def start(self) -> None:
        """Starts all processes."""
        ports = {name: free_port() for name in self.silos}
        places = [str(self.harm), str(self.federation.port), *(f"{port}={name}" for name, port in ports.items())]
        self.services = {"proxy": Service(self.nursery, places, self.home / "proxy.log", proxy=True)}
        for name, silo in self.silos.items():
            own = [*silo_words(self.root, name), f"coordinator=https://localhost:{ports[name]}"]
            spots = (str(self.control.path), name, self.pace)
            words_of_silo = ["silo", "run", str(silo.path), *own]
            self.services[name] = Service(self.nursery, words_of_silo, self.home / f"{name}.log", spots=spots)
        own = ["train", *coordinator_words(self.root, self.run, self.federation, *self.words)]
        spots = (str(self.control.path), "coordinator", 0.0)
        self.services["coordinator"] = Service(self.nursery, own, self.home / "coordinator.log", spots=spots)

    @property
    def over(self) -> bool:
        """Returns whether the coordinator has ended with its final exit code."""
        return self.services["coordinator"].code is not None

    def set_harm(self, kind: str, silos: list[str]) -> None:
        """Sets the proxy's disturbance of some silos' connections."""
        beside = self.harm.with_suffix(".new")
        beside.write_text(json.dumps({"kind": kind, "silos": silos}))
        beside.replace(self.harm)

    def rounds(self) -> int:
        """Returns the number of saved rounds."""
        return max((int(path.stem[6:]) for path in (self.run / "checkpoints").glob("round-*.ckpt")), default=0)

    def wait(self, seconds: float) -> None:
        """Restarts killed processes for some seconds, or until the run is over."""
        end = time.monotonic() + seconds
        watch(self.all(), lambda: time.monotonic() >= end or self.over, LIMIT)

    def wait_for_hit(self, limit: float) -> str | None:
        """Waits until a party pauses at a spot and returns the spot, or `None` if the time or the run is over."""
        end = time.monotonic() + limit
        watch(self.all(), lambda: self.control.hit() is not None or self.over or time.monotonic() > end, LIMIT)
        return self.control.hit()

    def wait_for_round(self, round: int) -> None:
        """Waits until a round is saved, or the run is over."""
        watch(self.all(), lambda: self.rounds() >= round or self.over, LIMIT)

    def finish(self) -> int:
        """Waits for the end of the run and returns the coordinator's exit code."""
        watch(self.all(), lambda: self.over, LIMIT)
        code = self.services["coordinator"].code
        assert code is not None
        return code

    def all(self) -> list[Service]:
        return list(self.services.values())

    def stop(self) -> None:
        """Kills all processes."""
        for service in self.services.values():
            service.away = False
            service.stop()

    def said(self) -> str:
        """Returns the ends of all logs."""
        return "\n".join(f"{item.log.name}: {item.log.read_text()[-1500:]}" for item in self.all() if item.log.exists())


def missed(run: Path, rounds: int, evaluated: list[int]) -> tuple[Missed, list[str]]:
    """Returns the missed turns of a run, according to its ledger and its scores, and all other rejections.

    Args:
        run: the run's folder.
        rounds: the run's number of rounds.
        evaluated: rounds in which models were evaluated.
    """
    state = read_state(run / "checkpoints" / f"round-{rounds:05d}.ckpt")
    found: Missed = {}
    odd = []
    for client, reasons in state["rejections"].items():
        for reason, numbers in reasons.items():
            odd += [f"{client} in {numbers}: {reason}"] if reason != LATE else []
            found.setdefault(client, []).extend(("fit", number) for number in numbers)
    with open(run / "metrics.csv", newline="") as file:
        scored = {(int(row["round"]), row["name"]) for row in csv.DictReader(file) if row["section"] == "global"}
    for number in evaluated:
        for client in support.TINY:
            if (number, client) not in scored:
                found.setdefault(client, []).append(("evaluate", number))
    return found, odd


def differences(made: Federation, reference: Path, rounds: int) -> list[str]:
    """Returns the files whose bits differ from the reference: table, last checkpoint and clients' states."""
    found = []
    if (made.run / "metrics.csv").read_bytes() != (reference / "metrics.csv").read_bytes():
        found.append("metrics.csv")
    name = f"round-{rounds:05d}.ckpt"
    states = [read_state(folder / "checkpoints" / name) for folder in (made.run, reference)]
    for state in states:
        state.pop("costs"), state.pop("lineage")
    found += [] if equal(*states) else [f"checkpoints/{name}"]
    for client, silo in made.silos.items():
        check_log(silo.path / "audit.jsonl")
        (session,) = (path for path in (silo.path / "sessions").iterdir() if path.is_dir())  # of all starts
        theirs, ours = ((folder / "clients" / client) for folder in (session, reference))
        newest = [max(folder.glob("round-*.pt"), default=None) for folder in (theirs, ours)]
        if newest[0] is None or newest[1] is None or newest[0].name != newest[1].name:
            found.append(f"clients/{client}: {newest}")
            continue
        kept = [read_state(path) for path in newest if path is not None]
        rounds_of = [state.pop("turn")["round"] for state in kept]
        found += [] if rounds_of[0] == rounds_of[1] and equal(*kept) else [f"clients/{client}/{newest[1].name}"]
    return found


def equal(one: object, other: object) -> bool:
    """Returns whether two states are equal to the last bit."""
    try:
        support.assert_equal(one, other)
    except AssertionError:
        return False
    return True


class References:
    """Undisturbed runs in one process, computed once for each set of missed turns."""

    def __init__(self, nursery: Nursery, root: Path, home: Path) -> None:
        self.nursery, self.root, self.home = nursery, root, home

    def of(self, words: tuple[str, ...], turns: Missed) -> Path:
        """Returns the folder of the run with these words and these missed turns."""
        text = json.dumps([words, {name: sorted(set(turns[name])) for name in sorted(turns)}])
        folder = self.home / hashlib.sha256(text.encode()).hexdigest()[:16]
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            self.home.mkdir(parents=True, exist_ok=True)
            log = self.home / f"{folder.name}.log"
            own = [word for word in words if not word.startswith("engine.")]
            command = ["train", *support.quick(self.root, folder, "trainer.accelerator=cpu", *own)]
            service = Service(self.nursery, command, log, missed=turns)
            watch([service], lambda: service.code is not None, LIMIT)
            if service.code != 0:
                raise RuntimeError(log.read_text()[-3000:])
            (folder / "done").touch()
        return folder
