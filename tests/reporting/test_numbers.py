"""The logged numbers of a round, compared with values computed by hand."""

from __future__ import annotations

from fedreid_pl.federation.server.history import History
from fedreid_pl.reporting.numbers import round_numbers


def histories() -> tuple[History, History]:
    history, timings = History(), History()
    for round, scores in {0: (0.25, 0.75), 2: (0.5, 1.0)}.items():
        for name, value in zip("ab", scores, strict=True):
            history.add(round, "global", name, "mAP", value)
    for round in (1, 2):
        history.add(round, "cost", "a", "bytes_up", 10 * round)
        history.add(round, "cost", "b", "bytes_down", 1)
        timings.add(round, "system", "fit", "seconds", 0.5 * round)
    history.add(2, "local", "a", "rank1", 0.125)
    return history, timings


def test_names_means_and_bytes_so_far() -> None:
    assert round_numbers(*histories(), 0) == {"global/a/mAP": 0.25, "global/b/mAP": 0.75, "global/mean/mAP": 0.5}
    assert round_numbers(*histories(), 1) == {
        "cost/a/bytes_up": 10,
        "cost/b/bytes_down": 1,
        "system/fit/seconds": 0.5,
        "cost/total/bytes": 11,
    }
    last = round_numbers(*histories(), 2)
    assert last["cost/total/bytes"] == 32 and last["global/mean/mAP"] == 0.75 and last["local/mean/rank1"] == 0.125
    assert len(last) == 3 + 2 + 2 + 1 + 1


def test_a_mean_needs_every_test_set() -> None:
    history, timings = histories()
    history.add(3, "global", "a", "mAP", 1.0)
    assert round_numbers(history, timings, 3) == {"global/a/mAP": 1.0}
    assert round_numbers(history, timings, 4) == {}
