"""The clients' state at the driver, the only one who writes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedreid_pl.engines.ray.wire import from_bytes
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.storage import encode


class Start(NamedTuple):
    """What a job's client starts from: the round of its state, and the state, encoded, where it is sent."""

    round: int | None
    state: np.ndarray | None


class DriverStates:
    """Files in the run's folder; a slot reads them itself or is sent what its job needs.

    Args:
        worker: the driver's, whose store has the files.
    """

    def __init__(self, worker: ClientWorker) -> None:
        self._worker = worker

    def start_of(self, job: ClientJob, sent: bool) -> Start:
        """Deletes what the server can no longer go back to and returns what the client starts from.

        Raises:
            LostState: if the state is to be sent and cannot be used.
        """
        if sent:
            state = self._worker.kept(job)
            if not state:
                return Start(None, None)
            turn = state.get("turn", {})
            return Start(turn.get("round", job.round - (job.kind == "fit")), from_bytes(encode(state)))
        start = self._worker.drop_old(job)
        return Start(self._files.newest_up_to(job.client, start), None)

    def keep(self, job: ClientJob, state: np.ndarray) -> None:
        """Writes the state that a client has after its turn."""
        self._files.save_encoded(job.client, job.round, state.tobytes())

    @property
    def _files(self) -> ClientStore:
        assert isinstance(self._worker.store, ClientStore)
        return self._worker.store
