"""Collects one round's updates: sends jobs, checks answers, and asks clients without a valid answer again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.engine import Engine
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, DeclaredTensor, Plain, RejectedUpdate
from fedreid_pl.federation.server.answers import Outcome, in_job_order
from fedreid_pl.federation.server.attempts import Attempts
from fedreid_pl.federation.server.checks import check_update
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.inbox import UpdateInbox
from fedreid_pl.functional.batch_norm_drift import batch_norm_drift

Answer = ClientUpdate | ClientFailure | RejectedUpdate
"""An update that passed the check, or the reason why the client has no valid update."""


class Collection:
    """Collects the updates of the current round of `context`.

    Args:
        context: its `selected` clients get a job.
        engine: engine that runs the jobs.
        callbacks: server halves by name.
        inbox: stores the updates until aggregation.
        attempts: numbers the jobs.
        evaluated: whether clients also evaluate their trained models.

    Attributes:
        drifts: by client, the distance between the BatchNorm statistics that it returned and those that it received.
    """

    def __init__(
        self,
        context: RoundContext,
        engine: Engine,
        callbacks: Mapping[str, FederationCallback],
        inbox: UpdateInbox,
        attempts: Attempts,
        evaluated: bool,
    ) -> None:
        self.context, self.engine, self.callbacks = context, engine, callbacks
        self.inbox, self.attempts, self.evaluated = inbox, attempts, evaluated
        self.drifts: dict[str, dict[str, float]] = {}
        self._updates: dict[str, ClientUpdate] = {}
        self._answered: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._final: set[str] = set()

    def updates(self) -> list[ClientUpdate]:
        """Sends a job to every selected client, and up to `client_retries` further jobs to clients that failed.

        The method prints a warning for every rejected answer, counts it by client and reason, and records the size of
        the traffic. The updates are in the order of selection, independent of the order of arrival, so that equal runs
        write equal files.
        """
        context, selected = self.context, self.context.selected
        context.attempt = self.attempts.begin(context.round)
        asked: Sequence[str] = selected
        for number in range(1 + context.config.client_retries):
            if number:
                context.attempt = self.attempts.again()
                for client in asked:
                    context.warn(f"client {client} gets the job again")
            self._ask(asked)
            asked = [name for name in selected if name not in self._updates and name not in self._final]
            if not asked:
                break
        context.turns |= dict.fromkeys((name for name in selected if name in self._answered), context.round)
        for client in sorted(self._sizes, key=[*selected, *sorted(self._sizes)].index):
            context.count("up", client, self._sizes[client])
        return [self._updates[client] for client in selected if client in self._updates]

    def _jobs(self, clients: Iterable[str]) -> Iterator[ClientJob]:
        context = self.context
        for client in clients:
            config: dict[str, Plain] = {
                "evaluate": self.evaluated,
                "inspect": self.evaluated and context.round == context.inspected,
                "starts_from": context.turns.get(client, 0),
                "keeps": context.keeps,
            }
            job = ClientJob("fit", context.session, context.round, context.attempt, client, config=config)
            for name, callback in self.callbacks.items():
                job = callback.on_distribute(context, job)
                if not isinstance(job, ClientJob):
                    raise FedReIDError(f"callbacks.{name}: on_distribute returned no job; end with `return job`")
            context.count("down", client, job.nbytes)
            yield job

    def _ask(self, clients: Sequence[str]) -> None:
        self.context.begin_pass(len(clients))
        for job, answer in in_job_order(self.engine.fit, self._jobs(clients), self._check):
            self._decide(job, answer)

    def _check(self, job: ClientJob | None, outcome: Outcome) -> Answer:
        """Checks an answer as far as possible before the answers to earlier jobs have arrived."""
        context, client = self.context, outcome.client
        if isinstance(outcome, ClientUpdate):
            self._sizes[client] = self._sizes.get(client, 0) + outcome.nbytes
        if job is None:
            context.reject(client, "the answer belongs to no job, or is a repetition")
            return RejectedUpdate()
        context.answered(client)
        if isinstance(outcome, ClientFailure):
            return outcome
        self._answered.add(client)
        try:
            check_update(outcome, job, context.clients.get(client), context.tests.get(client), self._declared(job))
        except RejectedUpdate as reason:
            return reason
        self.drifts[client] = batch_norm_drift(job.backbone, outcome.backbone)
        return self.inbox.keep(outcome)

    def _declared(self, job: ClientJob) -> list[DeclaredTensor]:
        return [
            tensor for callback in self.callbacks.values() for tensor in callback.declared_answers(self.context, job)
        ]

    def _decide(self, job: ClientJob, answer: Answer | None) -> None:
        """Adds a valid answer to the updates, or rejects the answer."""
        context, client = self.context, job.client
        if answer is None:
            context.reject(client, "the client did not answer")
        elif isinstance(answer, ClientFailure):
            self._final |= {client} if answer.final else set()
            context.reject(client, answer.reason, answer.detail)
        elif isinstance(answer, RejectedUpdate):
            context.reject(client, str(answer))
        else:
            try:
                for callback in self.callbacks.values():
                    callback.on_update(context, answer)
            except RejectedUpdate as reason:
                context.reject(client, str(reason))
            else:
                self._updates[client] = answer
