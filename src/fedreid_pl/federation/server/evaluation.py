"""Evaluates the server's models once on every test set, and records the scores that updates contain."""

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
    """Evaluates each of the server's models on the test sets of the clients that use it, each test set once per model.

    If clients with different models share a test set, the mean over these clients is recorded. Scores are recorded in
    the order of models and clients, independent of the order in which the engine yields them.
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
    """Evaluates every client's own saved model on the client's test sets."""
    tests = {client: context.tests[client] for client in context.clients if context.tests[client]}
    jobs = [evaluation_job(context, client, {}, names) for client, names in tests.items()]
    with context.costs.phase("evaluate"):
        for update in _answers(context, engine, jobs, "its own model"):
            record_local(context, update)


def evaluate_unseen(context: RoundContext, engine: Engine) -> None:
    """Evaluates the models on test sets that belong to no client, and records the mean over models.

    The mean weights each model by its number of clients. One client of each model gets the job, because its process
    reads the test set. If a part of the backbone stays at the clients, or the server has no model, each client's model
    is evaluated instead, because a place that takes no part has no model of its own.
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
        for update in _answers(context, engine, jobs, f"{', '.join(context.unseen)}, which no client trains on"):
            for test, metric, value in update.scores():
                scores.setdefault((test, metric), []).append((*shares[update.client], value))
    for (test, metric), found in scores.items():
        mean = sum(share * value for _, share, value in found) / sum(share for _, share, _ in found)
        context.record("unseen", test, metric, found[0][2] if len(found) == 1 else mean)
        for model, _, value in found if len(jobs) > 1 else ():
            context.record("unseen_models", f"{test} by {model}", metric, value)


def evaluation_job(context: RoundContext, client: str, backbone: State, tests: Iterable[str]) -> ClientJob:
    """Returns the job to evaluate entries of a backbone, and the client's own other entries, on some test sets."""
    config = {
        "tests": "/".join(tests),
        "inspect": context.round == context.inspected,
        "starts_from": context.turns.get(client, 0),
    }
    address = ("evaluate", context.session, context.round, context.attempt, client)
    return ClientJob(*address, config=config).exchanging(backbone)  # type: ignore[arg-type]


def record_local(context: RoundContext, update: ClientUpdate) -> None:
    """Records the training statistics and the local model's scores of an update."""
    for name, value in update.metrics.items():
        section, _, metric = name.partition("/")
        if section == "train" or name == "cost/cloned_bytes":  # the server itself counts the other costs
            context.record(section, update.client, metric, value)
    tests = [test for test in context.tests[update.client] if not test.startswith(VALIDATION)]
    for test, metric, value in update.scores():
        name = update.client if len(tests) == 1 else test  # several clients may share one test set
        _record(context, "local", test, name, metric, value)


def _answers(context: RoundContext, engine: Engine, jobs: list[ClientJob], what: str) -> Iterator[ClientUpdate]:
    """Yields the valid answers in the order of the jobs; warns about every other answer."""

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
            context.warn(str(answer or f"client {job.client} could not evaluate {what}: the client did not answer"))


def _checked(outcome: Outcome, job: ClientJob | None) -> ClientUpdate:
    if isinstance(outcome, ClientFailure):
        raise RejectedUpdate(f"{outcome.reason}{f': {outcome.detail}' if outcome.detail else ''}")
    if job is None:
        raise RejectedUpdate("the answer belongs to no job, or is a repetition")
    check_scores(outcome, job)
    return outcome


def _record(context: RoundContext, section: str, test: str, name: str, metric: str, value: float) -> None:
    if test.startswith(VALIDATION):
        context.record(f"val_{section}", test.removeprefix(VALIDATION), metric, value)
    else:
        context.record(section, name, metric, value)
