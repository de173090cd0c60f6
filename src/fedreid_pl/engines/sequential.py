"""One client after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.worker import ClientWorker, Diverged
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate


class SequentialEngine:
    """One client after the other in this process; the Trainer inside may use several devices.

    Args:
        worker: does the turns.
        announce: called with every job before it runs.
        world: number of processes that run this in lockstep. With several, a client that raises stops the run,
            for the others may be inside a collective operation that it left.
    """

    def __init__(
        self, worker: ClientWorker, announce: Callable[[str, ClientJob], None] | None = None, world: int = 1
    ) -> None:
        self.worker, self.world = worker, world
        self.announce = announce or (lambda phase, job: None)

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """Trains, see `ClientWorker.fit`."""
        return self._run("fit", self.worker.fit, jobs)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """Evaluates, see `ClientWorker.evaluate`."""
        return self._run("evaluate", self.worker.evaluate, jobs)

    def _run(
        self, phase: str, work: Callable[[ClientJob], ClientUpdate], jobs: Iterable[ClientJob]
    ) -> Iterator[ClientUpdate | ClientFailure]:
        for job in jobs:
            self.announce(phase, job)
            try:
                yield work(job)
            except FedReIDError:
                raise
            except Exception as error:
                kind, detail = type(error).__name__, " ".join(str(error).split())
                if self.world > 1:
                    raise FedReIDError(f"client {job.client} failed in round {job.round} ({kind}: {detail})") from error
                yield ClientFailure(job.round, job.client, kind, detail, isinstance(error, Diverged))
