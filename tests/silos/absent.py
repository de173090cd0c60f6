"""The sequential engine with absent clients: the reference for runs in which silos missed turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate

Missed = dict[str, list[tuple[str, int]]]
"""Maps a client to the (kind, round) pairs of the jobs that it did not answer; a kind is `fit` or `evaluate`."""
LATE = "the silo did not answer in time"


class AbsentEngine(SequentialEngine):
    """A sequential engine whose clients skip the jobs in `missed`."""

    missed: Missed

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        return self._present(jobs, "fit")

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        return self._present(jobs, "evaluate")

    def _present(self, jobs: Iterable[ClientJob], kind: str) -> Iterator[ClientUpdate | ClientFailure]:
        do = super().fit if kind == "fit" else super().evaluate
        for job in jobs:
            if (kind, job.round) in self.missed.get(job.client, []):
                self.announce(job)
                yield ClientFailure(job.round, job.client, LATE, final=True)
            else:
                yield from do([job])


def install(missed: Missed) -> None:
    """Replaces this process's sequential engine with one whose clients miss these jobs."""
    from fedreid_pl.engines import sequential

    found = {client: [(kind, round) for kind, round in turns] for client, turns in missed.items()}
    sequential.SequentialEngine = type("Engine", (AbsentEngine,), {"missed": found})  # type: ignore[misc]
