"""A slot: a process of Ray that does one client's turn after the other, with everything loaded once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedreid_pl.callbacks import callbacks_of
from fedreid_pl.clients import Parts, build_client_parts
from fedreid_pl.config.trusted import trust
from fedreid_pl.engines.ray.wire import Packed, Reply, SlotFacts, SlotJob, SlotParts, from_bytes, pack, unpack
from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import ClientStore, LostState
from fedreid_pl.federation.forward import ForwardPass, features_of
from fedreid_pl.federation.memory import peak_memory
from fedreid_pl.federation.messages import ClientUpdate
from fedreid_pl.federation.storage import decode, encode

PATIENCE = 10.0  # seconds that a file on a shared disk may take until another machine sees it


class Unseen(Exception):
    """The client's state is not in the run's folder as this machine sees it."""


class SlotStore:
    """The client's state that a job starts from, sent beside the job or read from the run's folder; writes nothing.

    What a turn keeps is handed back with the answer: the driver is the only one who writes, also while a slot whose
    machine was lost may still be at work.

    Args:
        folder: the run's `clients` folder.
        tell: takes a line for the screen.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._files = ClientStore(folder, writable=False, tell=tell)
        self._round: int | None = None
        self._state: dict[str, Any] | None = None
        self.saved: bytes | None = None

    def begin(self, client: str, round: int | None, state: bytes | None) -> None:
        """The next job's client starts from its state of `round`, which is `state` or a file.

        Raises:
            Unseen: if the file is not there after some seconds.
        """
        self._round, self.saved = round, None
        self._state = decode(state) if state is not None else None
        if round is not None and state is None:
            end = time.monotonic() + PATIENCE
            while self._files.newest_up_to(client, round) != round:
                if time.monotonic() > end:
                    raise Unseen
                time.sleep(0.1)

    def load(
        self, client: str, before: int, fits: Callable[[dict[str, Any]], object] | None = None
    ) -> dict[str, Any] | None:
        """The state that the job starts from."""
        if self._round is None:
            return None
        if self._state is None:
            return self._files.load(client, before, fits)
        try:
            if fits is not None:
                fits(self._state)
        except ValueError as error:
            raise LostState(f"client {client}: the state that the driver sent does not fit: {error}") from error
        return self._state

    def newest(self, client: str) -> int | None:
        """The round of the state that the job starts from."""
        return self._round

    def save(self, client: str, round: int, state: dict[str, Any]) -> None:
        """Encodes the state, to be handed back."""
        self.saved = encode(state)

    def drop(self, client: str, after: int, keeps: Iterable[int]) -> None:
        """Does nothing: the driver has deleted what is to be deleted."""

    def place(self, client: str) -> str:
        """The client's folder."""
        return self._files.place(client)


class Slot:
    """The actor. Its methods run in the main thread of its process, so that `client_timeout` can ring there.

    Args:
        threads: that a client computes with; they decide the bits.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._said: list[str] = []

    def ready(self) -> str:
        """Returns the machine's name once the process has imported everything."""
        return socket.gethostname()

    def receive(self, state: Packed) -> int:
        """Returns how many tensors have arrived; measures the way of a model."""
        return len(unpack(state, copy=False))

    def prepare(self, parts: SlotParts, initial: Packed) -> SlotFacts:
        """Reads the data and builds the network, whose first weights are `initial`."""
        machine, sees = socket.gethostname(), _sees_folder(parts)
        self._store = SlotStore(Path(parts.folder) / "clients", self._said.append)
        try:
            made = _parts_of(parts, initial, self._store)
        except FedReIDError as error:
            return SlotFacts(machine, os.getpid(), sees, str(error))
        self._worker, self._device = made.worker, "cuda" if torch.cuda.is_available() else "cpu"
        self._engine = SequentialEngine(made.worker, deliver=lambda look: self._looks.append(look))
        found = {name: entry["sha256"] for name, entry in made.data.digests.items()}
        other = [name for name, digest in parts.digests.items() if found.get(name) != digest]
        problem = f"its pictures of {', '.join(other[:3])} are others than the driver's" if other else ""
        return SlotFacts(machine, os.getpid(), sees, problem)

    def do(self, task: SlotJob, backbone: Packed, extras: Packed) -> Reply:
        """Does one job. What goes wrong in it is part of the answer."""
        start = time.perf_counter()
        self._looks: list[Any] = []
        reply = Reply()
        job = replace(task.job, extras=unpack(extras, copy=False)).exchanging(unpack(backbone, copy=False))
        try:
            self._store.begin(job.client, task.starts, None if task.state is None else task.state.tobytes())
            run = self._engine.fit if job.kind == "fit" else self._engine.evaluate
            (outcome,) = run([job])
            reply.outcome = outcome
            if isinstance(outcome, ClientUpdate):
                reply.backbone, reply.extras = pack(outcome.backbone), pack(outcome.extras)
                reply.outcome = replace(outcome, backbone={}, extras={})
                saved = self._store.saved
                reply.kept = None if saved is None else from_bytes(saved)
        except Unseen:
            reply.unseen = True
        except FedReIDError as error:
            reply.error = str(error)
        reply.looks, reply.said = self._looks, list(self._said)
        self._said.clear()
        reply.seconds = time.perf_counter() - start
        reply.peak_memory = peak_memory()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            reply.gpu_memory = torch.cuda.max_memory_allocated()
        return reply

    def features(self, state: Packed, batches: Packed, train: bool, seeds: list[int]) -> np.ndarray:
        """Returns the features `[N, D]` of batches by the network with other weights; the next turn sets its own."""
        backbone = self._worker.backbone
        images = [batch.to(self._device) for batch in unpack(batches, copy=False).values()]
        try:
            task = ForwardPass(unpack(state, copy=False), images, train, seeds)
            return features_of(backbone.to(self._device), task).cpu().numpy()
        finally:
            backbone.to("cpu")


def place_of(folder: Path) -> tuple[str, int, int] | None:
    """What tells a folder of this machine from all others: the machine's start, device and number of the folder."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        found = os.stat(folder)
    except (OSError, ValueError):
        return None
    return boot, found.st_dev, found.st_ino


def _sees_folder(parts: SlotParts) -> bool:
    if parts.client_state != "auto":
        return parts.client_state == "folder"
    return parts.place is not None and place_of(Path(parts.folder)) == parts.place


def _parts_of(parts: SlotParts, initial: Packed, store: SlotStore) -> Parts:
    config = parts.config
    trainer = config.trainer
    if trainer.accelerator in ("auto", "gpu", "cuda"):  # what Ray gave to this slot
        trainer = replace(trainer, accelerator="gpu" if torch.cuda.is_available() else "cpu")
        config = replace(config, trainer=trainer)
    trust(config.model.name)  # the user gave it to the driver, in the same trust domain
    weights = unpack(initial, copy=False)
    return build_client_parts(config, Path(parts.folder), callbacks_of(config), weights, store, share=parts.slots)
