"""Measures the overhead of `engine=silos`: time relative to a bare copy over TLS, an empty round, memory, many silos.

    python benchmarks/silos.py [--mib 100] [--silos 3] [--repeats 3] [--many 20]

One process is the coordinator, with the real engine and gRPC server, and checks every update against its job. Each silo
is a process with the real service but without training: it returns the received model. All processes communicate over
the loopback address of one machine. The bare copy sends the same bytes both ways, to all silos at the same time, over
TLS sockets between the same processes, from memory to memory; rounds and copies alternate.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from figures import Report
from silos_demo import free_port

from fedreid_pl.config import Config, compose
from fedreid_pl.engines.silos import service as silo_service
from fedreid_pl.engines.silos.coordinator import SilosEngine
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.grpc_link import GrpcLink
from fedreid_pl.engines.silos.grpc_server import open_server
from fedreid_pl.engines.silos.payload import Opened
from fedreid_pl.engines.silos.policy import Policy
from fedreid_pl.engines.silos.runner import serve
from fedreid_pl.engines.silos.session import Session
from fedreid_pl.engines.silos.shared import shared_text
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, Plain
from fedreid_pl.federation.server.checks import check_update
from fedreid_pl.federation.server.inbox import UpdateInbox

SESSION, LAYERS = "0123456789abcdef", 50


class Echo(Session):
    """A session without training: it checks jobs as usual and returns the job's model."""

    def __init__(self, folder: Path, silo: str, own: Config, opened: Opened, policy: Policy, say: Any) -> None:
        self.folder, self.header, self.silos, self.config = folder, opened.header, 1000, own
        self.client = silo
        self.worker: Any = self
        self.backbone: Any = self
        self.initial: dict[str, torch.Tensor] = {}

    def named_parameters(self) -> list[tuple[str, None]]:
        """Returns a replacement of the network in which every entry of the model is a parameter."""
        return [(f"layer{number}", None) for number in range(LAYERS)]

    def registration(self) -> dict[str, Plain]:
        """Returns the silo's registration."""
        return {"client": self.client, "images": 10, "tests": "", "synthetic": True, "version": "", "torch": ""}

    def do(self, job: ClientJob, policy: Policy) -> ClientUpdate:
        """Checks the job and returns its model."""
        assert self._too_far(job, policy.largest_change) is None
        return ClientUpdate(job.round, job.client, job.backbone, 10, {"train/loss": 1.0})


def run_silos(folders: list[Path], bare: int) -> None:
    """Runs a process with one or more silos: serves each in a thread, and answers bare copies."""
    torch.set_num_threads(1)
    silo_service.Session = Echo  # type: ignore[misc]
    for path in folders:
        folder = SiloFolder(path)
        service = silo_service.SiloService(folder, compose(["exp=fedpav", "min_clients=2"]), lambda line: None)
        link = GrpcLink(folder.invitation.address, folder.credentials, path / "spool", lambda line: None)
        threading.Thread(target=serve, args=(service, link), daemon=True).start()
    if bare:
        own = SiloFolder(folders[0])
        context = ssl.create_default_context(cadata=own.invitation.authority)
        with (
            socket.create_connection(("localhost", bare)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            while (size := int.from_bytes(secured.recv(8), "big")) > 0:
                secured.sendall(received(secured, size))
    threading.Event().wait()


def received(source: ssl.SSLSocket, size: int) -> bytearray:
    """Reads exactly `size` bytes."""
    data, place = bytearray(size), 0
    while place < size:
        place += source.recv_into(memoryview(data)[place:])
    return data


class BareCopy:
    """The coordinator's end of bare copies: one TLS connection to every silo's process."""

    def __init__(self, federation: FederationFolder, home: Path) -> None:
        own = federation.credentials()
        (home / "bare.pem").write_bytes(own.key + own.certificate)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(home / "bare.pem")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._ends: list[ssl.SSLSocket] = []

    def accept(self, count: int) -> None:
        """Accepts the connections of the silos' processes."""
        self._ends = [self._context.wrap_socket(self._socket.accept()[0], server_side=True) for _ in range(count)]

    def seconds(self, size: int) -> float:
        """Sends this number of bytes to each silo and reads them back."""
        data = bytes(size)

        def copy(end: ssl.SSLSocket) -> None:
            end.sendall(size.to_bytes(8, "big"))
            end.sendall(data)
            received(end, size)

        threads = [threading.Thread(target=copy, args=(end,)) for end in self._ends]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun


def coordinate(silos: int, processes: int, mib: float, repeats: int, empty: int) -> dict[str, Any]:
    """Runs one federation; returns seconds of rounds, bare copies and empty rounds, and peak memory in models."""
    torch.set_num_threads(1)
    home = Path(tempfile.mkdtemp(prefix="silos-benchmark-"))
    names = [f"silo-{number}" for number in range(silos)]
    folders = {name: SiloFolder.new(home / name, name) for name in names}
    federation = FederationFolder.new(home / "federation", "localhost", free_port(), [f.card for f in folders.values()])
    for name in names:
        shutil.copyfile(federation.path / "invitations" / f"{name}.json", home / name / "invitation.json")
    bare = BareCopy(federation, home)
    dealt = [[home / name for name in names[number::processes]] for number in range(processes)]
    spawn = multiprocessing.get_context("spawn")
    children = [spawn.Process(target=run_silos, args=(part, bare.port), daemon=True) for part in dealt]
    try:
        for child in children:
            child.start()
        bare.accept(processes)
        return measured(federation, home, bare, mib, repeats, empty)
    finally:
        for child in children:
            child.kill()
        shutil.rmtree(home, ignore_errors=True)


def measured(
    federation: FederationFolder, home: Path, bare: BareCopy, mib: float, repeats: int, empty: int
) -> dict[str, Any]:
    """Runs the rounds of `coordinate`."""
    text = shared_text(compose(["exp=fedpav", "min_clients=2"]))
    engine = SilosEngine(federation, open_server(federation), SESSION, text, home / "payloads", deadline=120)
    engine.join({}, 1)
    clients = list(federation.members)
    small = [timed_round(engine, clients, {}, number, home) for number in range(1, empty + 1)]
    before = resident()
    size = int(mib * 2**20 / 4 / LAYERS)
    model = {f"layer{number}": torch.randn(size) for number in range(LAYERS)}
    bytes_ = 4 * size * LAYERS
    rounds, copies, work = [], [], []
    with peak() as highest:
        for number in range(repeats + 1):
            rounds.append(timed_round(engine, clients, model, empty + 1 + number, home))
    for number in range(repeats + 1):
        copies.append(bare.seconds(bytes_))
        work.append(timed_round(None, clients, model, number + 1, home))
    engine.close()
    return {
        "rounds": rounds[1:],  # the first round opens connections and files
        "copies": copies[1:],
        "work": work[1:],
        "empty": small[1:],
        "models": (highest[0] - before) / bytes_,
    }


def echo(job: ClientJob) -> ClientUpdate:
    """Returns a silo's answer, computed without a silo."""
    return ClientUpdate(job.round, job.client, dict(job.backbone), 10, {"train/loss": 1.0})


def timed_round(
    engine: SilosEngine | None, clients: list[str], model: dict[str, torch.Tensor], round: int, home: Path
) -> float:
    """Returns the seconds from the first job to the last checked, stored and summed update."""
    inbox, total = UpdateInbox(home / "inbox", in_memory=0), {name: torch.zeros_like(model[name]) for name in model}
    jobs = {name: ClientJob("fit", SESSION, round, 1, name, model, tuple(model)) for name in clients}
    begun = time.perf_counter()
    for outcome in engine.fit(jobs.values()) if engine is not None else map(echo, jobs.values()):
        assert isinstance(outcome, ClientUpdate), outcome
        check_update(outcome, jobs[outcome.client])
        update = inbox.keep(outcome)
        for name in model:  # the mean, one tensor of one update at a time
            total[name] += update.backbone[name]
    seconds = time.perf_counter() - begun
    assert all(torch.allclose(total[name], len(clients) * model[name]) for name in model)
    return seconds


def resident() -> int:
    """Returns the resident memory of this process in bytes, without file pages that the system may drop."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])


@contextmanager
def peak() -> Iterator[list[int]]:
    """Samples `resident` fifty times a second inside the block and records the maximum."""
    highest, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            highest[0] = max(highest[0], resident())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()


def child(words: list[str]) -> dict[str, Any]:
    """Runs `coordinate` in a separate process."""
    done = subprocess.run([sys.executable, __file__, "--child", *words], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=float, default=100, help="size of the model")
    parser.add_argument("--silos", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--many", type=int, default=20, help="silos of the second federation, in two processes")
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        silos, processes, mib, repeats, empty = args.child
        print(json.dumps(coordinate(int(silos), int(processes), float(mib), int(repeats), int(empty))))
        return
    report = Report("silos")
    report.note(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    found = child([str(args.silos), str(args.silos), str(args.mib), str(args.repeats), "11"])
    what = f"{args.mib:g} MiB each way, {args.silos} silos"
    report.add(f"round, {what}", found["rounds"], unit="s")
    report.add(f"bare copy over TLS, {what}", found["copies"], unit="s")
    report.add("the same checks and sums without silos", found["work"], unit="s")
    added = statistics.median(found["rounds"]) - statistics.median(found["work"])
    report.add("what silos add to a round", [added], "at most 4 s", "s")
    report.add("what silos add / bare copy", [added / statistics.median(found["copies"])], "at most 2")
    report.add(f"empty round, {args.silos} silos", found["empty"], "at most 0.1 s", "s")
    report.add(f"memory of the coordinator, {args.silos} silos, in models", [found["models"]], "at most 3")
    many = child([str(args.many), "2", str(args.mib / 4), "1", "3"])
    report.add(f"round, {args.mib / 4:g} MiB each way, {args.many} silos in two processes", many["rounds"], unit="s")
    report.add(f"memory of the coordinator, {args.many} silos, in models", [many["models"]], "at most 3")
    report.note(f"load of the machine after: {os.getloadavg()[0]:.1f}")
    report.finish(args.json)


if __name__ == "__main__":
    main()
