"""The incidents that disturb a federation of processes, their order, and their execution."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import support
from reliability.silo_federation import PARTS, Federation
from silos.spots import PHASES
from silos.tcp_proxy import KINDS

SILOS = support.TINY
HOSTS = {
    "joining": ("silo", "coordinator"),
    "download": ("silo", "coordinator"),
    "training": ("silo",),
    "upload": ("silo", "coordinator"),
    "aggregation": ("coordinator",),
    "checkpoint": ("silo", "coordinator"),
    "evaluation": ("silo",),
}
"""Maps a phase to the parties that have spots in it."""


@dataclass(frozen=True)
class Incident:
    """One kill or network partition.

    Args:
        what: `kill` or `partition`.
        part: the killed party, or the kind of the partition.
        phase: the phase in which the incident happens.
        spot: the exact place, known after the incident.
        away: whether the killed silo deliberately missed a round.
    """

    what: str
    part: str
    phase: str
    spot: str = ""
    away: bool = False


def plan(kills: int, partitions: int, seed: int) -> list[Incident]:
    """Returns incidents that go through all parts, phases and kinds of partition in turn."""
    draws = random.Random(seed)
    orders, kinds = {part: draws.sample(PHASES, len(PHASES)) for part in PARTS}, list(KINDS)
    pairs = [(part, orders[part][number]) for number in range(len(PHASES)) for part in PARTS]
    draws.shuffle(kinds)
    found = [Incident("kill", *pair) for pair, _ in zip(itertools.cycle(pairs), range(kills), strict=False)]
    phases = ("download", "training", "upload", "evaluation")
    lines = zip(itertools.cycle(kinds), range(partitions), strict=False)
    found += [Incident("partition", kind, draws.choice(phases)) for kind, _ in lines]
    draws.shuffle(found)
    return sorted(found, key=lambda incident: incident.phase == "joining")  # a run joins once


def runs(todo: list[Incident]) -> Iterator[list[Incident]]:
    """Yields up to three incidents for each run; at most one happens during joining, and it comes first."""
    joining = [incident for incident in todo if incident.phase == "joining"]
    others = [incident for incident in todo if incident.phase != "joining"]
    while joining or others:
        first = joining[:1]
        joining = joining[1:]
        rest, others = others[: 3 - len(first)], others[3 - len(first) :]
        yield [*first, *rest]


class Torment:
    """Disturbs one federation.

    Args:
        made: the federation, not started yet.
        draws: random numbers for places and durations.
        away: whether a killed silo misses a round.
    """

    def __init__(self, made: Federation, draws: random.Random, away: bool) -> None:
        self.made, self.draws, self.away = made, draws, away
        self.struck: list[Incident] = []

    def strike(self, incident: Incident, started: bool = True, limit: float = 120.0) -> bool:
        """Waits for the incident's phase and executes the incident; returns `False` if the run ended before."""
        made, draws = self.made, self.draws
        hosts = HOSTS[incident.phase]
        kind = incident.part if incident.part in hosts else draws.choice(hosts)
        silo = draws.choice(SILOS)
        host = silo if kind == "silo" else "coordinator"
        made.control.arm(host, incident.phase, draws.choice([0, 0, 1, 2] if incident.phase != "joining" else [0]))
        if not started:
            made.start()
        elif incident.phase == "joining":  # silos join again when the coordinator starts again
            made.services["coordinator"].kill()
        spot = made.wait_for_hit(limit)
        if spot is None:
            made.control.release()
            return False
        if incident.what == "kill":
            away = self._kill(silo if incident.part == "silo" else incident.part, incident.phase)
        else:
            away = self._cut(incident.part, silo)
        self.struck.append(Incident(incident.what, incident.part, incident.phase, spot, away))
        return True

    def _kill(self, name: str, phase: str) -> bool:
        made = self.made
        service = made.services[name]
        # a starting coordinator waits for all silos
        away = service.away = self.away and name in SILOS and made.rounds() > 0 and phase != "joining"
        service.kill()
        made.control.release()
        if away:
            made.wait_for_round(made.rounds() + 1)
            service.away = False
        return away

    def _cut(self, kind: str, silo: str) -> bool:
        made = self.made
        away = self.away and kind == "drop" and made.rounds() > 0
        made.set_harm(kind, [silo] if away or self.draws.random() < 0.7 else list(SILOS))
        made.control.release()
        if away:
            made.wait_for_round(made.rounds() + 1)
        else:
            made.wait(self.draws.choice([2.0, 4.0, 8.0, 25.0] if kind == "drop" else [3.0, 6.0]))
        made.set_harm("", [])
        return away
