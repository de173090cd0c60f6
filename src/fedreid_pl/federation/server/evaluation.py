"""Where scores go: the models of the server on every test set once, the local models as their updates bring them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fedreid_pl.data.federated import VALIDATION
from fedreid_pl.errors import printable
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, RejectedUpdate
from fedreid_pl.federation.server.checks import check_scores

if TYPE_CHECKING:
    from fedreid_pl.federation.server.loop import FederationLoop


def evaluate_models(federation: FederationLoop) -> None:
    """Every model the server holds, on the test sets of the clients that work with it, each set once.

    A test set that clients with different models share gets the mean over these clients.
    """
    scores: dict[tuple[str, str], list[tuple[int, float]]] = {}  # (test set, metric): (clients, value) by model
    with federation.costs.phase("evaluate"):
        for model, backbone in federation.models.items():
            clients = [client for client in federation.clients if federation.model_of(client) == model]
            members = Counter(test for client in clients for test in federation.tests[client])
            jobs, covered = [], set()
            for client in clients:
                tests = [test for test in federation.tests[client] if test not in covered]
                if tests:
                    covered |= set(tests)
                    jobs.append(ClientJob(federation.round, client, backbone, {"tests": "/".join(tests)}))
            waiting = {job.client: job for job in jobs}
            for outcome in federation.engine.evaluate(jobs):
                try:
                    update = _checked(outcome, waiting.pop(outcome.client, None))
                except RejectedUpdate as reason:
                    federation.warn(
                        f"client {printable(outcome.client)} could not evaluate the {model} model: {reason}"
                    )
                    continue
                for test, metric, value in update.scores():
                    scores.setdefault((test, metric), []).append((members[test], value))
            for client in waiting:
                federation.warn(f"client {client} could not evaluate the {model} model: did not answer")
    for (test, metric), values in scores.items():
        total = sum(count for count, _ in values)
        mean = values[0][1] if len(values) == 1 else sum(count * value for count, value in values) / total
        _record(federation, "global", test, test, metric, mean)


def _checked(outcome: ClientUpdate | ClientFailure, job: ClientJob | None) -> ClientUpdate:
    if isinstance(outcome, ClientFailure):
        raise RejectedUpdate(f"{outcome.reason}{f': {outcome.detail}' if outcome.detail else ''}")
    if job is None:
        raise RejectedUpdate("was not asked for, or is sent twice")
    check_scores(outcome, job)
    return outcome


def record_local(federation: FederationLoop, update: ClientUpdate) -> None:
    """The training statistics and the local model's scores that an update brings."""
    for name, value in update.metrics.items():
        if name.startswith("train/"):
            federation.record("train", update.client, name.removeprefix("train/"), value)
    tests = [test for test in federation.tests[update.client] if not test.startswith(VALIDATION)]
    for test, metric, value in update.scores():
        name = update.client if len(tests) == 1 else test  # several clients may share one test set
        _record(federation, "local", test, name, metric, value)


def _record(federation: FederationLoop, section: str, test: str, name: str, metric: str, value: float) -> None:
    if test.startswith(VALIDATION):
        federation.record(f"val_{section}", test.removeprefix(VALIDATION), metric, value)
    else:
        federation.record(section, name, metric, value)
