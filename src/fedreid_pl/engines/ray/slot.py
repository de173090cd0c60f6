"""A slot: a Ray process that loads data and network once, then runs one client after the other."""

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

PATIENCE = 10.0  # seconds to wait for a file on a shared disk that another machine has just written


class Unseen(Exception):
    """Raised if this machine does not find the client's state in the run's folder."""


class SlotStore:
    """Loads the client's state for a job, from the driver's message or from the run's folder; never writes files.

    The slot returns the new state with its reply, and the driver saves it. So the driver alone writes, even while a
    slot on a machine that counts as lost still trains.

    Args:
        folder: the folder `clients` of the run.
        tell: takes a line to print.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._files = ClientStore(folder, writable=False, tell=tell)
        self._round: int | None = None
        self._state: dict[str, Any] | None = None
        self.saved: bytes | None = None

    def begin(self, client: str, round: int | None, state: bytes | None) -> None:
        """Selects the state of the next job: the client's state after `round`, from `state` or from a file.

        Args:
            client: name of the client.
            round: round of the state; `None` if the client has no state yet.
            state: the encoded state; `None` if the slot must read the file.

        Raises:
            Unseen: if the file does not appear within `PATIENCE` seconds.
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
        self, client: str, before: int, fitted: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> dict[str, Any] | None:
        """Returns the state that the job starts from, `None` if the client has no state yet."""
        if self._round is None:
            return None
        if self._state is None:
            return self._files.load(client, before, fitted)
        try:
            return self._state if fitted is None else fitted(self._state)
        except ValueError as error:
            raise LostState(f"client {client}: the state that the driver sent does not fit: {error}") from error

    def newest(self, client: str) -> int | None:
        """Returns the round of the state that the job starts from."""
        return self._round

    def save(self, client: str, round: int, state: dict[str, Any]) -> None:
        """Encodes the state for the reply to the driver."""
        self.saved = encode(state)

    def drop(self, client: str, after: int, keeps: Iterable[int]) -> None:
        """Does nothing: the driver deletes old states."""

    def place(self, client: str) -> str:
        """Returns the path of the client's folder."""
        return self._files.place(client)


class Slot:
    """The actor class of a slot.

    Its methods run in the main thread of its process, where the alarm of `client_timeout` works.

    Args:
        threads: number of threads that a client computes with; it changes exact results.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._said: list[str] = []

    def ready(self) -> str:
        """Returns the name of the machine; the reply shows that the process has finished its imports."""
        return socket.gethostname()

    def receive(self, state: Packed) -> int:
        """Returns the number of tensors received; used to measure the transfer of a model."""
        return len(unpack(state, copy=False))

    def prepare(self, parts: SlotParts, initial: Packed) -> SlotFacts:
        """Reads the data, builds the network with the weights `initial`, and returns facts about this slot."""
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
        """Runs one job and returns the reply; a failure of the job is part of the reply."""
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
        """Returns the features `[N, D]` of batches, computed with the weights `state`; the next job loads its own."""
        backbone = self._worker.backbone
        images = [batch.to(self._device) for batch in unpack(batches, copy=False).values()]
        try:
            task = ForwardPass(unpack(state, copy=False), images, train, seeds)
            return features_of(backbone.to(self._device), task).cpu().numpy()
        finally:
            backbone.to("cpu")


def place_of(folder: Path) -> tuple[str, int, int] | None:
    """Returns a unique key of a folder: the machine's boot id, the device and the inode; `None` if it is unknown."""
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
    if trainer.accelerator in ("auto", "gpu", "cuda"):  # a GPU if Ray gave one to this slot
        trainer = replace(trainer, accelerator="gpu" if torch.cuda.is_available() else "cpu")
        config = replace(config, trainer=trainer)
    trust(config.model.name)  # the user named this model to the driver, in the same trust domain
    weights = unpack(initial, copy=False)
    return build_client_parts(config, Path(parts.folder), callbacks_of(config), weights, store, share=parts.slots)
