"""One client after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fedreid_pl.engines import EngineParts
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import LostState
from fedreid_pl.federation.client.worker import ClientWorker, Diverged, Look
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, RejectedJob

FINAL = (Diverged, RejectedJob)
"""Failures that the same job would meet again."""


class SequentialEngine:
    """One client after the other in this process; the Trainer inside may use several devices.

    Args:
        worker: does the turns.
        announce: called with every job before it runs.
        deliver: called with what the worker kept behind the scores, before the job's answer is handed back.
        world: number of processes that run this in lockstep. With several, a client that raises stops the run,
            for the others may be inside a collective operation that it left.
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
        """Trains, see `ClientWorker.fit`."""
        return self._run(self.worker.fit, jobs)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """Evaluates, see `ClientWorker.evaluate`."""
        return self._run(self.worker.evaluate, jobs)

    def close(self) -> None:
        """Does nothing: no process was started."""

    def _run(
        self, work: Callable[[ClientJob], ClientUpdate], jobs: Iterable[ClientJob]
    ) -> Iterator[ClientUpdate | ClientFailure]:
        for job in jobs:
            self.announce(job)
            try:
                outcome: ClientUpdate | ClientFailure = work(job)
                for look in self.worker.take_looks():
                    self.deliver(look)
            except LostState as error:  # asking again would not bring it back
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
    """The engine of a run."""
    return SequentialEngine(parts.worker, parts.announce, parts.deliver, parts.world)


def failure(job: ClientJob, error: Exception) -> ClientFailure:
    """What an engine hands back in place of an update when a turn raises."""
    detail = " ".join(str(error).split())
    return ClientFailure(job.round, job.client, type(error).__name__, detail, isinstance(error, FINAL))
