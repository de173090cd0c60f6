"""Every number of a round under the name that wandb and TensorBoard show it by."""

from __future__ import annotations

from fedreid_pl.federation.server.history import TESTS, UNSEEN, VALIDATIONS, History

SCORES = ("rank1", "rank5", "rank10", "mAP", "mINP")
"""Metrics whose mean over the test sets is logged too."""


def round_numbers(history: History, timings: History, round: int) -> dict[str, float]:
    """`section/name/metric` and value of everything that was measured in a round, and what follows from it.

    What follows: the mean over all test sets of a section (`global/mean/rank1`, ...), and the bytes that have
    travelled so far, both directions together (`cost/total/bytes`), an axis to compare algorithms on.

    Args:
        history: the run's, the content of metrics.csv.
        timings: seconds and memory of the rounds, the content of timings.csv.

    Returns:
        Nothing if nothing was measured.

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
