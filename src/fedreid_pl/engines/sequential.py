"""The sequential engine: trains one client after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fedreid_pl.engines import EngineParts
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import LostState
from fedreid_pl.federation.client.worker import ClientWorker, Diverged, Look
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, RejectedJob
from fedreid_pl.federation.own_callbacks import place_of

FINAL = (Diverged, RejectedJob)
"""Errors that occur again if the same job is repeated."""


class SequentialEngine:
    """Runs one client after the other in this process; the Trainer of a client may use several devices.

    Args:
        worker: trains and evaluates the clients.
        announce: called with every job before it runs.
        deliver: called with the worker's looks (the details behind its scores), before `fit` or `evaluate` yields
            the job's outcome.
        world: number of processes that run this engine in lockstep. With several processes, an error in one client
            stops the run: the other processes may wait in a collective operation that this process has left.
    """

    def __init__(
        self,
        worker: ClientWorker,
        announce: Callable[[ClientJob], None] | None = None,
        deliver: Callable[[Look], None] | None = None,
        world: int = 1,
    ) -> None:
        self.worker, self.world = worker, world
        self.announce = announce or (lambda job: None)
        self.deliver = deliver or (lambda look: None)

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """Yields the outcome of each training job, see `ClientWorker.fit`."""
        return self._run(self.worker.fit, jobs)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """Yields the outcome of each evaluation job, see `ClientWorker.evaluate`."""
        return self._run(self.worker.evaluate, jobs)

    def close(self) -> None:
        """Does nothing: this engine starts no process."""

    def _run(
        self, work: Callable[[ClientJob], ClientUpdate], jobs: Iterable[ClientJob]
    ) -> Iterator[ClientUpdate | ClientFailure]:
        for job in jobs:
            self.announce(job)
            try:
                outcome: ClientUpdate | ClientFailure = work(job)
                for look in self.worker.take_looks():
                    self.deliver(look)
            except LostState as error:  # a second attempt would not find the state either
                outcome = ClientFailure(job.round, job.client, "LostState", str(error), final=True)
            except FedReIDError:
                raise
            except Exception as error:
                outcome = failure(job, error)
                if self.world > 1:
                    reason = f"{outcome.reason}: {outcome.detail}"
                    raise FedReIDError(f"client {job.client} failed in round {job.round} ({reason})") from error
            yield outcome


def make_engine(parts: EngineParts) -> SequentialEngine:
    """Returns the engine of a run."""
    return SequentialEngine(parts.worker, parts.announce, parts.deliver, parts.world)


def failure(job: ClientJob, error: Exception) -> ClientFailure:
    """Returns the failure that an engine yields in place of an update if the client's turn raised `error`."""
    detail, place = " ".join(str(error).split()), place_of(error.__traceback__)
    detail += f" ({place})" if place else ""
    return ClientFailure(job.round, job.client, type(error).__name__, detail, isinstance(error, FINAL))
