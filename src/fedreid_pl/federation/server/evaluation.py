"""Where scores go: the models of the server on every test set once, the local models as their updates bring them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from fedreid_pl.data.federated import VALIDATION
from fedreid_pl.errors import printable
from fedreid_pl.federation.engine import Engine
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, RejectedUpdate, State
from fedreid_pl.federation.server.answers import Outcome, in_job_order
from fedreid_pl.federation.server.checks import check_scores
from fedreid_pl.federation.server.context import RoundContext


def evaluate_models(context: RoundContext, engine: Engine) -> None:
    """Every model the server holds, on the test sets of the clients that work with it, each set once.

    A test set that clients with different models share gets the mean over these clients. Scores are recorded in the
    order of models and clients, whatever the order in which the engine brings them.
    """
    scores: dict[tuple[str, str], list[tuple[int, float]]] = {}  # (test set, metric): (clients, value) by model
    with context.costs.phase("evaluate"):
        for model, backbone in context.models.items():
            clients = [client for client in context.clients if context.model_of(client) == model]
            members = Counter(test for client in clients for test in context.tests[client])
            jobs, covered = [], set()
            for client in clients:
                tests = [test for test in context.tests[client] if test not in covered]
                if tests:
                    covered |= set(tests)
                    jobs.append(evaluation_job(context, client, context.travelling(backbone), tests))
            for update in _answers(context, engine, jobs, f"the {model} model"):
                for test, metric, value in update.scores():
                    scores.setdefault((test, metric), []).append((members[test], value))
    for (test, metric), values in scores.items():
        total = sum(count for count, _ in values)
        mean = values[0][1] if len(values) == 1 else sum(count * value for count, value in values) / total
        _record(context, "global", test, test, metric, mean)


def evaluate_own(context: RoundContext, engine: Engine) -> None:
    """Every client's own model, as the client kept it, on the client's test sets."""
    tests = {client: context.tests[client] for client in context.clients if context.tests[client]}
    jobs = [evaluation_job(context, client, {}, names) for client, names in tests.items()]
    with context.costs.phase("evaluate"):
        for update in _answers(context, engine, jobs, "its own model"):
            record_local(context, update)


def evaluate_unseen(context: RoundContext, engine: Engine) -> None:
    """Scores on the test sets that no client has: of every model, and the mean over models weighed by their clients.

    The server's model goes to one of its clients, whose process reads the test set. Where a part of the backbone stays
    at the clients, or the server has no model, each client's model is scored: a place that takes no part has none of
    its own.
    """
    if not context.unseen or (context.round == 0 and not context.models):
        return
    jobs: list[ClientJob] = []
    shares: dict[str, tuple[str, float]] = {}  # by the client that is asked: name of the model, clients it stands for
    for model in context.models or {"": {}}:
        backbone = context.travelling(context.models.get(model, {}))
        clients = [client for client in context.clients if not model or context.model_of(client) == model]
        whole = backbone.keys() >= context.initial_backbone.keys()
        for client in clients[:1] if whole else clients:
            job = evaluation_job(context, client, backbone, context.unseen)
            jobs.append(replace(job, config={**job.config, "unseen": True, "inspect": False}))
            shares[client] = (model, float(len(clients))) if whole else (client, 1.0)
    scores: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    with context.costs.phase("evaluate"):
        for update in _answers(context, engine, jobs, f"{', '.join(context.unseen)}, which is left out"):
            for test, metric, value in update.scores():
                scores.setdefault((test, metric), []).append((*shares[update.client], value))
    for (test, metric), found in scores.items():
        mean = sum(share * value for _, share, value in found) / sum(share for _, share, _ in found)
        context.record("unseen", test, metric, found[0][2] if len(found) == 1 else mean)
        for model, _, value in found if len(jobs) > 1 else ():
            context.record("unseen_models", f"{test} by {model}", metric, value)


def evaluation_job(context: RoundContext, client: str, backbone: State, tests: Iterable[str]) -> ClientJob:
    """The job to score these entries of a backbone, and the client's own for the rest, on some of its test sets."""
    config = {
        "tests": "/".join(tests),
        "inspect": context.round == context.inspected,
        "starts_from": context.turns.get(client, 0),
    }
    address = ("evaluate", context.session, context.round, context.attempt, client)
    return ClientJob(*address, config=config).exchanging(backbone)  # type: ignore[arg-type]


def record_local(context: RoundContext, update: ClientUpdate) -> None:
    """The training statistics and the local model's scores that an update brings."""
    for name, value in update.metrics.items():
        section, _, metric = name.partition("/")
        if section == "train" or name == "cost/cloned_bytes":  # the other costs are counted by the server
            context.record(section, update.client, metric, value)
    tests = [test for test in context.tests[update.client] if not test.startswith(VALIDATION)]
    for test, metric, value in update.scores():
        name = update.client if len(tests) == 1 else test  # several clients may share one test set
        _record(context, "local", test, name, metric, value)


def _answers(context: RoundContext, engine: Engine, jobs: list[ClientJob], what: str) -> Iterator[ClientUpdate]:
    """The good answers in the order of the jobs; a warning for every other."""

    def take(job: ClientJob | None, outcome: Outcome) -> ClientUpdate | RejectedUpdate:
        try:
            return _checked(outcome, job)
        except RejectedUpdate as reason:
            text = f"client {printable(outcome.client)} could not evaluate {what}: {reason}"
            if job is None:
                context.warn(text)
            return RejectedUpdate(text)
        finally:
            if job is not None:
                context.answered(job.client)

    context.begin_pass(len(jobs))
    for job, answer in in_job_order(engine.evaluate, jobs, take):
        if isinstance(answer, ClientUpdate):
            yield answer
        else:
            context.warn(str(answer or f"client {job.client} could not evaluate {what}: did not answer"))


def _checked(outcome: Outcome, job: ClientJob | None) -> ClientUpdate:
    if isinstance(outcome, ClientFailure):
        raise RejectedUpdate(f"{outcome.reason}{f': {outcome.detail}' if outcome.detail else ''}")
    if job is None:
        raise RejectedUpdate("was not asked for, or is sent twice")
    check_scores(outcome, job)
    return outcome


def _record(context: RoundContext, section: str, test: str, name: str, metric: str, value: float) -> None:
    if test.startswith(VALIDATION):
        context.record(f"val_{section}", test.removeprefix(VALIDATION), metric, value)
    else:
        context.record(section, name, metric, value)
