"""One round's updates: jobs go out, answers are checked, and clients without a good one are asked again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, RejectedUpdate
from fedreid_pl.federation.server.checks import check_update
from fedreid_pl.functional.batch_norm_drift import batch_norm_drift

if TYPE_CHECKING:
    from fedreid_pl.federation.server.loop import FederationLoop


class Collection:
    """The updates of the round that `federation` is in.

    Args:
        federation: the loop; its `selected` clients are asked.
        evaluated: whether clients evaluate their trained models as well.

    Attributes:
        drifts: by client how far its BatchNorm's statistics are from those it was sent.
    """

    def __init__(self, federation: FederationLoop, evaluated: bool) -> None:
        self.federation, self.evaluated = federation, evaluated
        self.drifts: dict[str, dict[str, float]] = {}
        self._updates: dict[str, ClientUpdate] = {}
        self._sent: dict[str, ClientJob] = {}
        self._sizes: dict[str, int] = {}
        self._final: set[str] = set()

    def updates(self) -> list[ClientUpdate]:
        """Asks every selected client, those that failed up to `client_retries` times more.

        What is refused is named on the screen and counted by client and reason. The sizes of what travelled are
        recorded. The order is that of selection, whatever the order of arrival, so that equal runs write equal files.
        """
        federation = self.federation
        asked: list[str] = list(federation.selected)
        for attempt in range(1 + federation.config.client_retries):
            self._ask(self._new_jobs() if attempt == 0 else self._jobs_again(asked))
            asked = [name for name in federation.selected if name not in self._updates and name not in self._final]
            if not asked:
                break
        for client in sorted(self._sizes, key=[*federation.selected, *sorted(self._sizes)].index):
            federation.count("up", client, self._sizes[client])
        return [self._updates[client] for client in federation.selected if client in self._updates]

    def _new_jobs(self) -> Iterator[ClientJob]:
        for client in self.federation.selected:
            job = ClientJob(self.federation.round, client, {}, {"evaluate": self.evaluated})
            for callback in self.federation.callbacks.values():
                job = callback.on_distribute(self.federation, job)
            yield job

    def _jobs_again(self, clients: Iterable[str]) -> Iterator[ClientJob]:
        for client in clients:
            self.federation.warn(f"client {client} is asked once more")
            yield self._sent[client]

    def _ask(self, jobs: Iterable[ClientJob]) -> None:
        open_jobs: dict[str, ClientJob] = {}

        def sending() -> Iterator[ClientJob]:
            for job in jobs:
                self._sent[job.client] = open_jobs[job.client] = job
                self.federation.count("down", job.client, job.nbytes)
                yield job

        for outcome in self.federation.engine.fit(sending()):
            self._take(outcome, open_jobs.pop(outcome.client, None))
        for client in open_jobs:
            self.federation.reject(client, "did not answer")

    def _take(self, outcome: ClientUpdate | ClientFailure, job: ClientJob | None) -> None:
        """An answer becomes one of the updates or is refused."""
        federation, client = self.federation, outcome.client
        if isinstance(outcome, ClientFailure):
            self._final |= {client} if outcome.final else set()
            federation.reject(client, outcome.reason, outcome.detail)
            return
        self._sizes[client] = self._sizes.get(client, 0) + outcome.nbytes
        try:
            if job is None:
                raise RejectedUpdate("was not asked for, or is sent twice")
            check_update(outcome, job, federation.clients.get(client), federation.tests.get(client))
            for callback in federation.callbacks.values():
                callback.on_update(federation, outcome)
        except RejectedUpdate as reason:
            federation.reject(client, str(reason))
        else:
            self.drifts[client] = batch_norm_drift(job.backbone, outcome.backbone)
            self._updates[client] = federation.inbox.keep(outcome)
