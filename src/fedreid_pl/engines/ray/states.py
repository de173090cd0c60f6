"""The clients' states at the driver; no other process writes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedreid_pl.engines.ray.wire import from_bytes
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.storage import encode


class Start(NamedTuple):
    """The start of a job: the round of the client's state, and the encoded state if the driver sends it."""

    round: int | None
    state: np.ndarray | None


class DriverStates:
    """Manages the clients' state files in the run's folder; a slot reads them itself or receives them from the driver.

    Args:
        worker: the driver's worker, whose store holds the files.
    """

    def __init__(self, worker: ClientWorker) -> None:
        self._worker = worker

    def start_of(self, job: ClientJob, sent: bool) -> Start:
        """Deletes states from rounds that the server cannot return to, and returns the start of a job.

        Args:
            job: the next job of a client.
            sent: whether the driver sends the state to the slot.

        Raises:
            LostState: if the driver has to send the state and cannot load it.
        """
        if sent:
            state = self._worker.states.load(job)
            if not state:
                return Start(None, None)
            turn = state.get("turn", {})
            return Start(turn.get("round", job.round - (job.kind == "fit")), from_bytes(encode(state)))
        start = self._worker.states.drop_old(job)
        return Start(self._files.newest_up_to(job.client, start), None)

    def keep(self, job: ClientJob, state: np.ndarray) -> None:
        """Saves the encoded state that a client returned after its turn."""
        self._files.save_encoded(job.client, job.round, state.tobytes())

    @property
    def _files(self) -> ClientStore:
        assert isinstance(self._worker.store, ClientStore)
        return self._worker.store
