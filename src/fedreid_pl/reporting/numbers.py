"""Names and values of a round's numbers for wandb and TensorBoard."""

from __future__ import annotations

from fedreid_pl.federation.server.history import TESTS, UNSEEN, VALIDATIONS, History

SCORES = ("rank1", "rank5", "rank10", "mAP", "mINP")
"""Metrics whose mean over the test sets is also logged."""


def round_numbers(history: History, timings: History, round: int) -> dict[str, float]:
    """Returns all numbers of a round, and numbers derived from them, by `section/name/metric`.

    Derived numbers are the mean over all test sets of a section (`global/mean/rank1`, ...) and the bytes in both
    directions up to this round (`cost/total/bytes`), a common axis for algorithms.

    Args:
        history: history of the run, the content of metrics.csv.
        timings: seconds and memory of the rounds, the content of timings.csv.
        round: the round.

    Returns:
        Values by name; empty if nothing was measured.

    >>> history = History()
    >>> for name, value in {"a": 0.5, "b": 1.0}.items():
    ...     history.add(1, "global", name, "rank1", value)
    >>> round_numbers(history, History(), 1)
    {'global/a/rank1': 0.5, 'global/b/rank1': 1.0, 'global/mean/rank1': 0.75}
    """
    records = [*history.of_round(round), *timings.of_round(round)]
    values = {f"{record.section}/{record.name}/{record.metric}": record.value for record in records}
    for section in (*TESTS, *VALIDATIONS, UNSEEN[0]):
        for metric in SCORES:
            series = history.mean_series(section, metric)
            if round in series:
                values[f"{section}/mean/{metric}"] = series[round]
    if any(record.section == "cost" for record in records):
        values["cost/total/bytes"] = sum(
            record.value
            for number in range(round + 1)
            for record in history.of_round(number)
            if record.section == "cost" and record.metric.startswith("bytes_")
        )
    return values
