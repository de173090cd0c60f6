"""A tenth of `make soak-silos`, and tests of its parts."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import support
from reliability.silo_federation import PARTS, missed
from reliability.silo_torment import PHASES, plan, runs
from silos import absent
from silos.tcp_proxy import DELAY, KINDS, Harm, accept
from silos.wire import free_port

from fedreid_pl.cli import main
from fedreid_pl.engines import sequential
from fedreid_pl.federation.storage import read_state


@pytest.mark.system
def test_a_tenth_of_the_soak_passes(tmp_path: Path) -> None:
    script, report = Path(__file__).with_name("silo_soak.py"), tmp_path / "report.json"
    words = ["kills=3", "partitions=1", "attacks=1000", f"json={report}"]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(report.read_text())
    incidents = [incident for case in found["cases"] for incident in case["incidents"]]
    assert Counter(incident["what"] for incident in incidents) == {"kill": 3, "partition": 1}
    assert {incident["part"] for incident in incidents if incident["what"] == "kill"} == set(PARTS)
    assert all(incident["spot"] for incident in incidents)
    assert all(case["wrong"] == [] for case in found["cases"])
    assert sum(row["refused"] + row["lie"] for row in found["attacks"]["counts"]) == 1000


def test_the_plan_contains_every_part_in_every_phase() -> None:
    found = plan(30, 10, 7)
    kills = Counter((item.part, item.phase) for item in found if item.what == "kill")
    assert set(kills) == {(part, phase) for part in PARTS for phase in PHASES} and kills.total() == 30
    assert Counter(item.part for item in found if item.what == "partition") == dict.fromkeys(KINDS, 2)
    assert {item.part for item in plan(3, 1, 0) if item.what == "kill"} == set(PARTS)
    dealt = list(runs(found))
    assert sorted(map(str, found)) == sorted(str(item) for part in dealt for item in part)
    for part in dealt:
        assert len(part) <= 3 and all(item.phase != "joining" for item in part[1:]), "silos join at the start"


def run(root: Path, folder: Path, *words: str) -> Path:
    own = ("exp=scaffold", "rounds=3", "evaluate_every=1", "min_clients=2", *words)
    assert main(["train", *support.quick(root, folder, "trainer.accelerator=cpu", *own)]) == 0
    return folder


def test_the_reference_repeats_the_missed_turns_of_the_ledger(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {support.TINY[1]: [("fit", 2), ("evaluate", 3)]}
    whole = run(tiny_root, tmp_path / "whole")
    monkeypatch.setattr(sequential, "SequentialEngine", sequential.SequentialEngine)  # restored after the test
    absent.install(away)
    folder = run(tiny_root, tmp_path / "away")
    assert missed(folder, 3, [0, 1, 2, 3]) == (away, [])
    assert missed(whole, 3, [0, 1, 2, 3]) == ({}, [])
    one, other = (read_state(path / "checkpoints" / "round-00003.ckpt")["models"] for path in (whole, folder))
    with pytest.raises(AssertionError):
        support.assert_equal(one, other)


@pytest.fixture()
def proxied(tmp_path: Path) -> Iterator[tuple[Path, int, socket.socket]]:
    """Returns the proxy's control file, its port for silo a, and a connection to an echo server behind the proxy."""
    server, control, port = socket.create_server(("127.0.0.1", 0)), tmp_path / "harm.json", free_port()
    control.write_text(json.dumps({"kind": "", "silos": []}))

    def echo() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=echo, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", port))
    words = (listener, server.getsockname()[1], "a", Harm(control))
    threading.Thread(target=accept, args=words, daemon=True).start()
    yield control, port, server
    server.close()


def answer(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def disturb(control: Path, kind: str, silo: str = "a") -> None:
    beside = control.with_suffix(".new")
    beside.write_text(json.dumps({"kind": kind, "silos": [silo]}))
    shutil.move(beside, control)


def received(end: socket.socket, size: int, seconds: float) -> bytes:
    data, limit = b"", time.monotonic() + seconds
    end.settimeout(0.05)
    while len(data) < size and time.monotonic() < limit:
        try:
            part = end.recv(65536)
        except TimeoutError:
            continue
        if not part:
            break
        data += part
    return data


def test_the_proxy_disturbs_connections_on_command(proxied: tuple[Path, int, socket.socket]) -> None:
    control, port, _ = proxied
    with socket.create_connection(("127.0.0.1", port)) as end:
        disturb(control, "drop", "b")
        end.sendall(b"one")
        assert received(end, 3, 5) == b"one", "only silo b's connection is disturbed"
        disturb(control, "drop")
        end.sendall(b"two")
        assert received(end, 3, 0.5) == b""
        disturb(control, "delay")
        assert received(end, 3, 5) == b"two", "the delayed bytes arrive"
        begun = time.monotonic()
        end.sendall(b"three")
        assert received(end, 5, 30) == b"three" and time.monotonic() - begun >= 2 * DELAY, "both directions are delayed"
        disturb(control, "duplicate")
        end.sendall(b"x")
        assert received(end, 4, 5) == b"xxxx", "twice in each direction"
        disturb(control, "cut")
        end.sendall(bytes(10**6))
        assert len(received(end, 10**6, 10)) < 10**6
        assert end.recv(1) == b"", "the connection is closed"
