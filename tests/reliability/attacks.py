"""Sends thousands of altered messages, from a hostile silo and a hostile coordinator, to the real parties.

    python tests/reliability/attacks.py count=10000 seed=0 [json=FILE] [table=FILE]

Half of the messages are answers of a silo to the coordinator's engine, beside two honest silos. After each message
the round's average must equal, to the bit, that of a round without the hostile silo. The other half are jobs and
experiments for a silo's service. The silo must ignore each one or answer only the kind of the refusal, and its saved
states must not change. At the end an honest job must give the bits of a silo that was never attacked.

Memory is `RssAnon` of the process: its peak while messages are read, above the value before.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import support
import torch
from hostile.payloads import MAKERS, Maker, altered, flip
from reliability.reported import reported
from silos.parties import make_parties, make_service
from silos.rounds import Rounds
from silos.signing import Coordinator

from fedreid_pl.engines.silos.payload import Opened, Payload

SILO = "mini-viper"
BOUND = 64 * 2**20
"""Temporary memory that a refused message may use, in bytes; docs/silos.md documents this limit."""
MAKERS_AND_FLIP: dict[str, Maker] = {**MAKERS, "bytes of the header": flip}


@contextmanager
def peak() -> Iterator[list[int]]:
    """Measures the peak memory inside the block, above the memory before it, in bytes."""
    before, highest, over = resident(), [0], threading.Event()

    def look() -> None:
        while not over.wait(0.002):
            highest[0] = max(highest[0], resident() - before)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()


def resident() -> int:
    """Returns the resident memory of this process in bytes, without file pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])


class HostileSilo:
    """A federation of three silos, one of which sends altered versions of its honest answer."""

    def __init__(self, home: Path) -> None:
        self.rounds, self.home = Rounds(home), home
        self.honest = self.rounds.honest_answer("c")
        self.without = self.rounds.average()

    def send(self, maker: Maker, draws: random.Random) -> tuple[str, str]:
        """Returns the sent message, and `refused`, `lie` (well-formed, within the bounds) or the kind of failure."""
        what, payload = altered(self.honest, self.home / "altered", maker, draws, self.rounds.silos["c"].key)
        found = self.rounds.average(payload)
        if set(found.clients) == {"a", "b"}:
            support.assert_equal(found.model, self.without.model)
            return what, "refused"
        fits = all(torch.isfinite(value.double()).all() for value in found.model.values())
        return what, "lie" if maker is flip and fits else "accepted"


class HostileCoordinator:
    """A coordinator whose jobs and experiments are altered before the silo reads them."""

    def __init__(self, home: Path, root: Path) -> None:
        federation, silos = make_parties(home, [SILO, "other"])
        self.home, self.service = home, make_service(silos[SILO], root)
        self.coordinator = Coordinator(federation, silos[SILO], home)
        self.answer(self.coordinator.experiment())
        self.answer(self.coordinator.payload("fit", 1, self.coordinator.initial))
        self.base = {
            "job": self.coordinator.payload("fit", 2, self.coordinator.initial),
            "experiment": self.coordinator.experiment(2),
        }
        self.kept = self._kept()

    def answer(self, payload: Payload) -> Opened | None:
        """Returns the silo's answer to a copy of the payload, because the silo may move the file."""
        copy = self.home / "sent"
        copy.unlink(missing_ok=True)
        copy.write_bytes(payload.path.read_bytes())
        answer = self.service.answer(Payload(copy, payload.envelope))
        return None if answer is None else self.coordinator.opened(answer)

    def send(self, maker: Maker, draws: random.Random) -> tuple[str, str]:
        """Returns the same as `HostileSilo.send`."""
        kind = draws.choice(["job", "job", "experiment"]) if maker is not flip else "experiment"
        key = self.coordinator.federation.key
        what, payload = altered(self.base[kind], self.home / "altered", maker, draws, key)
        opened = self.answer(payload)
        if opened is None:
            return f"{kind}: {what}", "refused"
        refused = opened.header.kind in ("failure", "refused") and set(opened.header.values) <= {"reason", "final"}
        if refused and not opened.backbone and not opened.extras and self._kept() == self.kept:
            return f"{kind}: {what}", "refused"
        if maker is flip and opened.header.kind == "joined":
            self.base["experiment"] = self.coordinator.experiment(self.service.folder.newest_launch()[0] + 1)
            return f"{kind}: {what}", "lie"
        return f"{kind}: {what}", "accepted"

    def _kept(self) -> dict[Path, bytes]:
        folder = self.service.folder.path / "sessions"
        return {path: path.read_bytes() for path in folder.rglob("*.pt")}

    def honest(self) -> dict[str, torch.Tensor]:
        """Returns the silo's update of round 2 to an honest job."""
        self.coordinator.count += 1
        opened = self.answer(self.coordinator.experiment(self.service.folder.newest_launch()[0] + 1))
        assert opened is not None and opened.header.kind == "joined", opened
        opened = self.answer(self.coordinator.payload("fit", 2, self.coordinator.initial))
        assert opened is not None and opened.header.kind == "update", opened
        return {name: value.clone() for name, value in opened.backbone.items()}


def attack(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Sends `count` altered messages in both directions with all makers in turn, and returns the outcomes."""
    root = support.write_tiny(folder / "data")
    unharmed = HostileCoordinator(folder / "unharmed", root).honest()
    sides = {"silo": HostileSilo(folder / "silo"), "coordinator": HostileCoordinator(folder / "coordinator", root)}
    outcomes: Counter[tuple[str, str, str]] = Counter()
    wrong: list[dict[str, str]] = []
    memory: dict[str, int] = {}
    for number, (who, side) in enumerate(sides.items()):
        with peak() as highest:
            for case in range(number, count, len(sides)):
                name = list(MAKERS_AND_FLIP)[case // len(sides) % len(MAKERS_AND_FLIP)]
                try:
                    what, outcome = side.send(MAKERS_AND_FLIP[name], random.Random(f"{seed}/{case}"))
                except Exception:
                    what, outcome = str(case), traceback.format_exc()
                outcomes[who, name, outcome if outcome in ("refused", "lie", "accepted") else "traceback"] += 1
                if outcome not in ("refused", "lie"):
                    wrong.append({"who": who, "maker": name, "case": what, "outcome": outcome})
        memory[who] = highest[0]
    last = sides["coordinator"]
    assert isinstance(last, HostileCoordinator)
    support.assert_equal(last.honest(), unharmed)
    counts = [
        {"who": who, "maker": name, **{kind: outcomes[who, name, kind] for kind in KINDS}}
        for who in sides
        for name in MAKERS_AND_FLIP
    ]
    return {"counts": counts, "wrong": wrong, "memory": memory}


KINDS = ("refused", "lie", "accepted", "traceback")


def table(report: dict[str, Any]) -> str:
    """Returns the outcomes as a Markdown table."""
    lines = ["| from | alteration | refused | well-formed | accepted | traceback |", "|---|---|---:|---:|---:|---:|"]
    for row in report["counts"]:
        who = "a silo" if row["who"] == "silo" else "the coordinator"
        lines.append(f"| {who} | {row['maker']} | " + " | ".join(f"{row[kind]:,}" for kind in KINDS) + " |")
    sums = [sum(row[kind] for row in report["counts"]) for kind in KINDS]
    return "\n".join([*lines, "| sum | | " + " | ".join(f"{number:,}" for number in sums) + " |"])


def memory(report: dict[str, Any]) -> str:
    """Returns the peaks of memory as one line."""
    parts = [f"{size / 2**20:.0f} MiB for messages of a hostile {who}" for who, size in report["memory"].items()]
    return f"Peak memory above the memory before: {', '.join(parts)}."


if __name__ == "__main__":
    report = reported(attack, table)
    print(memory(report))
    for case in report["wrong"][:30]:
        print(f"\n{case['who']}: {case['maker']}: {case['case']}\n{case['outcome']}")
    sys.exit(1 if report["wrong"] or max(report["memory"].values()) > BOUND else 0)
