"""What a job has to keep to before a client does it: as strict as the server is with the answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.messages import JOB_CONFIG, ClientJob, RejectedJob
from fedreid_pl.federation.tensor_checks import declared_like, misfit, short

MOST_ROUNDS = 10**6  # and attempts
LONGEST_VALUE = 100_000  # characters


def check_job(
    job: ClientJob,
    network: nn.Module,
    like: Mapping[str, Tensor],
    callbacks: Mapping[str, FederationCallback],
    last: Mapping[str, Any] | None = None,
    session: str | None = None,
    tests: Collection[str] | None = None,
) -> None:
    """Holds a job against the client's own configuration before anything is changed.

    Args:
        job: what came in.
        network: the client's backbone.
        like: its state dict.
        callbacks: client halves; they say which entries are exchanged, which extras and which plain values may come.
        last: `session`, `round` and `attempt` of the last turn that the client kept.
        session: the only one that the job may be of; `None`: any.
        tests: names of the client's test sets, the only ones that a job may name; `None`: any.

    Raises:
        RejectedJob: saying what is wrong.
    """
    _check_turn(job, last, session)
    _check_config(job, callbacks)
    named = str(job.config.get("tests", ""))
    if tests is not None and (others := set(filter(None, named.split("/"))) - set(tests)):
        raise RejectedJob(f"names the test set '{short(min(others))}', which this client does not have")
    allowed = frozenset().union(*(callback.exchanged(network) for callback in callbacks.values()))
    wanted = set(job.exchanged)
    if job.kind == "fit" and wanted != allowed:  # of an evaluation nothing goes back
        odd = sorted(wanted ^ allowed)
        raise RejectedJob(f"exchanges other entries than this client does, e.g. '{short(odd[0])}'")
    if unknown := wanted - set(like):
        raise RejectedJob(f"brings '{short(min(unknown))}', which is not in this client's network")
    extras = [tensor for callback in callbacks.values() for tensor in callback.declared_extras(network)]
    for reason in (
        misfit(job.backbone, declared_like({name: like[name] for name in job.exchanged})),
        misfit(job.extras, {tensor.name: tensor for tensor in extras}, optional=True),
    ):
        if reason is not None:
            raise RejectedJob(reason)


def _check_turn(job: ClientJob, last: Mapping[str, Any] | None, session: str | None) -> None:
    least = 1 if job.kind == "fit" else 0
    if not least <= job.round <= MOST_ROUNDS or not 1 <= job.attempt <= MOST_ROUNDS:
        raise RejectedJob(f"is of round {short(job.round)}, attempt {short(job.attempt)}")
    if session is not None and job.session != session:
        raise RejectedJob(f"is of session '{short(job.session)}', this client is registered with '{session}'")
    if job.kind == "evaluate" or last is None or last.get("session") != job.session:
        return
    before, now = (last.get("attempt", 0), last.get("round", 0)), (job.attempt, job.round)
    if now < before:
        raise RejectedJob(f"is of round {now[1]}, attempt {now[0]}: round {before[1]}, attempt {before[0]} is answered")


def _check_config(job: ClientJob, callbacks: Mapping[str, FederationCallback]) -> None:
    known = dict(JOB_CONFIG)
    for callback in callbacks.values():
        known |= callback.job_config
    for name, value in job.config.items():
        if name not in known:
            raise RejectedJob(f"brings '{short(name)}', which no callback of this client declares")
        if type(value) is not known[name]:
            raise RejectedJob(f"'{name}' is {type(value).__name__}, not {known[name].__name__}")
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise RejectedJob(f"'{name}' is {value}")
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            raise RejectedJob(f"'{name}' has {len(value)} characters")
    start = job.config.get("starts_from", 0)
    if not 0 <= int(start) <= job.round - (job.kind == "fit"):
        raise RejectedJob(f"of round {job.round} starts from round {short(start)}")
    if not re.fullmatch(r"(\d{1,7}(/\d{1,7})*)?", str(job.config.get("keeps", ""))):
        raise RejectedJob(f"'keeps' is not a list of rounds: {short(job.config['keeps'])[:80]}")
