"""One round of FedPav over silos a, b and c without training, with the real engine, checks and average."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from silos.parties import make_parties

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import Config, compose
from fedreid_pl.engines.silos.coordinator import SilosEngine
from fedreid_pl.engines.silos.loopback import Loopback
from fedreid_pl.engines.silos.payload import Payload, open_payload, write_payload
from fedreid_pl.engines.silos.shared import shared_text
from fedreid_pl.federation.messages import State
from fedreid_pl.federation.server.attempts import Attempts
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.loop import FederationLoop

SESSION = "0123456789abcdef"
MODEL = {
    "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "norm.weight": torch.ones(3),
    "norm.num_batches_tracked": torch.tensor(7),
}


class Averaged(NamedTuple):
    """A global model, and the clients whose updates it averages."""

    model: State
    clients: tuple[str, ...]


class Rounds:
    """Silos a and b answer honestly with different numbers; silo c sends the given payload, or nothing."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.federation, self.silos = make_parties(home, ["a", "b", "c"])
        self.config: Config = compose(["exp=fedpav", "min_clients=2", "client_retries=0", "model.weights=none"])
        self.said: list[str] = []
        self._of_c: Payload | None = None
        self._asked: dict[str, Payload] = {}
        self._clock = itertools.count()
        transport = Loopback({name: self._answering(name) for name in self.silos}, home / "copies")
        place = (self.federation, transport, SESSION, shared_text(self.config), home / "payloads")
        self.engine = SilosEngine(*place, deadline=10.0, say=self.said.append)
        self._joining = True
        self.engine.join(MODEL, 1)
        self._joining = False

    def average(self, of_c: Payload | None = None) -> Averaged:
        """Runs the first round from the start; silo c answers with this payload."""
        self._of_c = of_c
        names = list(self.silos)
        context = RoundContext(self.config, dict.fromkeys(names, 9), {name: () for name in names}, MODEL, frozenset())
        callbacks = callback_factory(self.config.callbacks, "silos", ())()
        attempts = Attempts()
        attempts.session = SESSION
        loop = FederationLoop(context, self.engine, callbacks, Checkpoints(self.home / "unused"), attempts=attempts)
        context.round, context.selected = 1, names
        updates = loop._collect(evaluated=False)
        loop._aggregate(updates)
        return Averaged(context.models["global"], tuple(update.client for update in updates))

    def honest_answer(self, name: str) -> Payload:
        """Returns the honest answer of a silo to the job of the round."""
        self.average()
        return self._honest(name, self._asked[name], self.home / f"{name}.honest")

    def replayed(self, name: str, **changes: int | str) -> Payload:
        """Returns a silo's signed answer to a job whose header has these changed fields."""
        self.average()
        sent = self._asked[name]
        opened = open_payload(sent, self.federation.key.public)
        other = replace(opened.header, **changes)  # type: ignore[arg-type]
        job = write_payload(self.home / "old.job", other, self.federation.key, opened.backbone)
        return self._honest(name, job, self.home / "old.answer")

    def _answering(self, name: str):  # type: ignore[no-untyped-def]
        def answer(sent: Payload) -> Payload | None:
            kept = self.home / f"{name}.asked"
            kept.write_bytes(sent.path.read_bytes())
            self._asked[name] = Payload(kept, sent.envelope)
            if name == "c" and not self._joining:
                return self._of_c or self._failure(sent)
            return self._honest(name, sent, self.home / f"{name}.out")

        return answer

    def _failure(self, sent: Payload) -> Payload:
        header = open_payload(sent, self.federation.key.public).header
        header = replace(header, kind="failure", sender="c", addressee="coordinator", values={"reason": "x"})
        return write_payload(self.home / "c.out", replace(header, answers=sent.envelope.digest), self.silos["c"].key)

    def _honest(self, name: str, sent: Payload, path: Path) -> Payload:
        opened = open_payload(sent, self.federation.key.public)
        told: dict[str, int | float | bool | str] = {"num_samples": 9, "metric:train/loss": 0.5}
        kind = "update"
        if opened.header.kind == "experiment":
            kind = "joined"
            told = {"client": name, "images": 9, "tests": "", "synthetic": True, "version": "1", "torch": "2"}
        header = replace(opened.header, kind=kind, sender=name, addressee="coordinator", values=told)
        header = replace(header, answers=sent.envelope.digest)
        backbone = {key: value + "abc".index(name) for key, value in opened.backbone.items()}
        return write_payload(path, header, self.silos[name].key, backbone if kind == "update" else {})
