"""What an update has to keep to before it may touch the model."""

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
    """Holds an update against the job it answers before it may touch the model.

    Its tensors must have the names, shapes and dtypes, and so the bytes, of those that the job sent, or those of
    their declaration.

    Args:
        update: what came back.
        job: what was sent.
        declared: training images that the client registered with, the most that it may count.
        tests: names of the client's test sets, the only ones that it may report scores of; `None`: any.
        answers: tensors of `extras` that callbacks declare, in place of those that were sent.

    Raises:
        RejectedUpdate: saying what is wrong.
    """
    _check_address(update, job)
    most = 2**53 - 1 if declared is None else declared
    if isinstance(update.num_samples, bool) or not 1 <= update.num_samples <= most:
        registered = "" if declared is None else f", it registered with {declared}"
        raise RejectedUpdate(f"claims {short(update.num_samples)} training images{registered}")
    for reason in (
        misfit(update.backbone, declared_like({name: job.backbone[name] for name in job.exchanged})),
        misfit(update.extras, {**declared_like(job.extras), **{tensor.name: tensor for tensor in answers}}),
    ):
        if reason is not None:
            raise RejectedUpdate(reason)
    _check_metrics(update, tests)


def check_scores(update: ClientUpdate, job: ClientJob) -> None:
    """Holds the answer to a job that only evaluates against it; its tensors and sample count are not looked at.

    Raises:
        RejectedUpdate: saying what is wrong.
    """
    _check_address(update, job)
    tests = job.config.get("tests")
    _check_metrics(update, str(tests).split("/") if tests else None)


def _check_address(update: ClientUpdate, job: ClientJob) -> None:
    if (update.round, update.client) != (job.round, job.client):
        raise RejectedUpdate(
            f"answers round {short(update.round)} of {short(update.client)}, not round {job.round} of {job.client}"
        )


def _check_metrics(update: ClientUpdate, tests: Collection[str] | None) -> None:
    if len(update.metrics) > MOST_METRICS:
        raise RejectedUpdate(f"brings {len(update.metrics)} metrics, more than {MOST_METRICS}")
    for name, number in update.metrics.items():
        if len(name) > LONGEST_NAME:
            raise RejectedUpdate(f"has a metric with a name of {len(name)} characters")
        if not name.isprintable():  # it goes into metrics.csv, loggers and reports
            raise RejectedUpdate(f"has a metric '{short(name)}' whose name has characters that cannot be printed")
        if not abs(number) <= sys.float_info.max:
            raise RejectedUpdate(f"metric '{short(name)}' is {short(number)}")
        section, _, metric = name.partition("/")
        if (section == "test" and metric.rpartition("/")[2] in SCORES) or name == "train/accuracy":
            if not -ROUNDING <= number <= 1 + ROUNDING:
                raise RejectedUpdate(f"metric '{short(name)}' is {short(number)}, not from 0 to 1")
        elif section in ("test", "train", "cost") and number < 0:  # counts and losses
            raise RejectedUpdate(f"metric '{short(name)}' is {short(number)}, below 0")
    if tests is not None:
        for test, _, _ in update.scores():
            if test not in tests:
                raise RejectedUpdate(f"reports scores of the test set '{short(test)}', which it was not given")
