"""Checks a job before the client runs it; the check is as strict as the server's check of an update."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.messages import JOB_CONFIG, ClientJob, RejectedJob
from fedreid_pl.federation.tensor_checks import declared_like, misfit, short

MOST_ROUNDS = 10**6  # largest round and largest attempt
LONGEST_VALUE = 100_000  # largest number of characters


def check_job(
    job: ClientJob,
    network: nn.Module,
    like: Mapping[str, Tensor],
    callbacks: Mapping[str, FederationCallback],
    last: Mapping[str, Any] | None = None,
    session: str | None = None,
    tests: Collection[str] | None = None,
) -> None:
    """Checks a job against the client's own configuration, before the job changes anything.

    Args:
        job: received job.
        network: the client's backbone.
        like: state dict of the backbone.
        callbacks: client halves by name. They declare the entries that are exchanged and the extras and plain values
            that a job may contain.
        last: `session`, `round` and `attempt` of the last turn whose state the client saved; `None` if there is no
            turn.
        session: the only session whose jobs are accepted; `None` accepts every session.
        tests: names of the client's test sets, the only ones that a job may name; `None` accepts every name.

    Raises:
        RejectedJob: if the job is not valid; the message names the part that is wrong.
    """
    _check_turn(job, last, session)
    _check_config(job, callbacks)
    named = str(job.config.get("tests", ""))
    if tests is not None and (others := set(filter(None, named.split("/"))) - set(tests)):
        raise RejectedJob(f"the job names the test set '{short(min(others))}', but this client has no such test set")
    allowed = frozenset().union(*(callback.exchanged(network) for callback in callbacks.values()))
    wanted = set(job.exchanged)
    if job.kind == "fit" and wanted != allowed:  # the answer to an evaluation has no tensors
        odd = sorted(wanted ^ allowed)
        raise RejectedJob(
            f"the server and this client exchange different entries of the backbone, for example '{short(odd[0])}'; "
            "both must use the same callbacks"
        )
    if unknown := wanted - set(like):
        raise RejectedJob(
            f"the job contains tensor '{short(min(unknown))}', which this client's backbone does not have"
        )
    extras = [tensor for callback in callbacks.values() for tensor in callback.declared_extras(network)]
    reason = misfit(job.backbone, declared_like({name: like[name] for name in job.exchanged}))
    if reason is not None:
        raise RejectedJob(reason)
    reason = misfit(job.extras, {tensor.name: tensor for tensor in extras}, optional=True)
    if reason is not None:
        hint = (
            ""
            if set(job.extras) <= {tensor.name for tensor in extras}
            else "; a callback declares it in declared_extras"
        )
        raise RejectedJob(reason + hint)


def _check_turn(job: ClientJob, last: Mapping[str, Any] | None, session: str | None) -> None:
    least = 1 if job.kind == "fit" else 0
    if not least <= job.round <= MOST_ROUNDS or not 1 <= job.attempt <= MOST_ROUNDS:
        raise RejectedJob(
            f"the job has round {short(job.round)} and attempt {short(job.attempt)}; a {job.kind} job has a round "
            f"from {least} to {MOST_ROUNDS} and an attempt from 1 to {MOST_ROUNDS}"
        )
    if session is not None and job.session != session:
        raise RejectedJob(
            f"the job belongs to session '{short(job.session)}', but this client has joined session '{session}'"
        )
    if job.kind == "evaluate" or last is None or last.get("session") != job.session:
        return
    before, now = (last.get("attempt", 0), last.get("round", 0)), (job.attempt, job.round)
    if now < before:
        raise RejectedJob(
            f"the job of round {now[1]}, attempt {now[0]} is out of date: this client has already answered "
            f"round {before[1]}, attempt {before[0]}"
        )


def _check_config(job: ClientJob, callbacks: Mapping[str, FederationCallback]) -> None:
    known = dict(JOB_CONFIG)
    for callback in callbacks.values():
        known |= callback.job_config
    for name, value in job.config.items():
        if name not in known:
            raise RejectedJob(
                f"the job contains the value '{short(name)}', which no callback of this client declares; a "
                "callback declares it in job_config"
            )
        if type(value) is not known[name]:
            raise RejectedJob(
                f"the job's value '{name}' has type {type(value).__name__}, expected {known[name].__name__}"
            )
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise RejectedJob(f"the job's value '{name}' is {value}, expected a finite number")
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            raise RejectedJob(f"the job's value '{name}' has {len(value)} characters, the maximum is {LONGEST_VALUE}")
    start = job.config.get("starts_from", 0)
    if not 0 <= int(start) <= job.round - (job.kind == "fit"):
        raise RejectedJob(
            f"the job of round {job.round} starts from round {short(start)}; it must start from an earlier round"
        )
    if not re.fullmatch(r"(\d{1,7}(/\d{1,7})*)?", str(job.config.get("keeps", ""))):
        raise RejectedJob(
            f"the job's value 'keeps' is '{short(job.config['keeps'])[:80]}', expected rounds separated by '/'"
        )
