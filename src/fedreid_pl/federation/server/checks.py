"""Checks an update before it changes the model."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from fedreid_pl.federation.messages import ClientJob, ClientUpdate, DeclaredTensor, RejectedUpdate
from fedreid_pl.federation.server.history import METRICS as SCORES
from fedreid_pl.federation.tensor_checks import declared_like, misfit, short

MOST_METRICS, LONGEST_NAME = 10_000, 300
ROUNDING = 1e-6


def check_update(
    update: ClientUpdate,
    job: ClientJob,
    declared: int | None = None,
    tests: Collection[str] | None = None,
    answers: Sequence[DeclaredTensor] = (),
) -> None:
    """Checks an update against its job before the update changes the model.

    The update's tensors must have the names, shapes and dtypes of the job's tensors, or of their declarations.

    Args:
        update: received update.
        job: job that the update answers.
        declared: number of training images that the client has registered, the largest `num_samples` that it may
            report; `None` sets no limit.
        tests: names of the client's test sets, the only ones whose scores it may report; `None` accepts every name.
        answers: tensors of `extras` that callbacks declare; they replace the declarations made from the job.

    Raises:
        RejectedUpdate: if the update is not valid; the message states the reason.
    """
    _check_address(update, job)
    most = 2**53 - 1 if declared is None else declared
    if isinstance(update.num_samples, bool) or not 1 <= update.num_samples <= most:
        registered = "" if declared is None else f"; it has registered {declared}"
        raise RejectedUpdate(f"the client reports {short(update.num_samples)} training images{registered}")
    for reason in (
        misfit(update.backbone, declared_like({name: job.backbone[name] for name in job.exchanged})),
        misfit(update.extras, {**declared_like(job.extras), **{tensor.name: tensor for tensor in answers}}),
    ):
        if reason is not None:
            raise RejectedUpdate(reason)
    _check_metrics(update, tests)


def check_scores(update: ClientUpdate, job: ClientJob) -> None:
    """Checks the answer to an evaluation job; the server ignores its tensors and its number of images.

    Raises:
        RejectedUpdate: if the answer is not valid; the message states the reason.
    """
    _check_address(update, job)
    tests = job.config.get("tests")
    _check_metrics(update, str(tests).split("/") if tests else None)


def _check_address(update: ClientUpdate, job: ClientJob) -> None:
    if (update.round, update.client) != (job.round, job.client):
        raise RejectedUpdate(
            f"the update answers a job of round {short(update.round)} for client {short(update.client)}, expected "
            f"round {job.round} and client {job.client}"
        )


def _check_metrics(update: ClientUpdate, tests: Collection[str] | None) -> None:
    if len(update.metrics) > MOST_METRICS:
        raise RejectedUpdate(f"the update contains {len(update.metrics)} metrics, the maximum is {MOST_METRICS}")
    for name, number in update.metrics.items():
        if len(name) > LONGEST_NAME:
            raise RejectedUpdate(f"the name of a metric has {len(name)} characters, the maximum is {LONGEST_NAME}")
        if not name.isprintable():  # the name is written to metrics.csv, loggers and reports
            raise RejectedUpdate(f"the name of metric '{short(name)}' contains characters that cannot be printed")
        if not abs(number) <= sys.float_info.max:
            raise RejectedUpdate(f"metric '{short(name)}' is {short(number)}, expected a finite number")
        section, _, metric = name.partition("/")
        if (section == "test" and metric.rpartition("/")[2] in SCORES) or name == "train/accuracy":
            if not -ROUNDING <= number <= 1 + ROUNDING:
                raise RejectedUpdate(f"metric '{short(name)}' is {short(number)}, expected a value from 0 to 1")
        elif section in ("test", "train", "cost") and number < 0:  # counts and losses
            raise RejectedUpdate(f"metric '{short(name)}' is {short(number)}, expected a value of at least 0")
    if tests is not None:
        for test, _, _ in update.scores():
            if test not in tests:
                raise RejectedUpdate(
                    f"the update contains scores of test set '{short(test)}', which the job did not include"
                )
