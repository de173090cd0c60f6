"""Durations of each round, with a fake clock: separate from the history, also after a resume."""

from __future__ import annotations

import pytest

from fedreid_pl.federation.server.costs import Costs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("fedreid_pl.federation.server.costs.time.perf_counter", lambda: now[0])
    return now


def a_round(costs: Costs, clock: list[float], number: int, fit: float, other: float) -> None:
    with costs.phase("fit"):
        clock[0] += fit
    clock[0] += other
    costs.close_round(number)


def seconds(costs: Costs, name: str) -> dict[int, float]:
    return costs.timings.series("system", name, "seconds")


def test_a_round_lasts_from_checkpoint_to_checkpoint(clock: list[float]) -> None:
    costs = Costs()
    costs.restart()
    a_round(costs, clock, 1, fit=4.0, other=1.0)
    with costs.phase("checkpoint"):
        clock[0] += 0.5
    a_round(costs, clock, 2, fit=2.0, other=0.25)
    assert seconds(costs, "fit") == {1: 4.0, 2: 2.0}
    assert seconds(costs, "checkpoint") == {1: 0.0, 2: 0.5}, "writing a checkpoint counts toward the next round"
    assert seconds(costs, "other") == {1: 1.0, 2: 0.25}
    assert seconds(costs, "total") == {1: 5.0, 2: 2.75}
    assert sum(seconds(costs, "total").values()) == costs.by_phase()["total"]
    assert min(costs.timings.series("system", "process", "peak_memory_bytes").values()) > 10_000_000


def test_a_resumed_run_has_every_round_once(clock: list[float]) -> None:
    costs = Costs()
    costs.restart()
    a_round(costs, clock, 1, fit=4.0, other=1.0)
    with costs.phase("checkpoint"):
        state = costs.state_dict()
    a_round(costs, clock, 2, fit=100.0, other=0.0)  # lost by a kill
    clock[0] += 1000
    resumed = Costs()
    resumed.load_state_dict(state)
    resumed.restart()
    a_round(resumed, clock, 2, fit=3.0, other=0.5)
    assert seconds(resumed, "fit") == {1: 4.0, 2: 3.0}
    assert seconds(resumed, "total") == {1: 5.0, 2: 3.5}
    assert len(resumed.timings.of_round(1)) == len(resumed.timings.of_round(2))


def test_a_checkpoint_without_durations(clock: list[float]) -> None:
    costs = Costs()
    old = {"seconds": {**costs.seconds, "fit": 50.0, "total": 60.0}, "bytes_down": 1, "bytes_up": 2}
    costs.load_state_dict(old)
    costs.restart()
    a_round(costs, clock, 8, fit=3.0, other=0.0)
    assert seconds(costs, "fit") == {8: 3.0} and seconds(costs, "total") == {8: 3.0}
    assert costs.by_phase()["fit"] == 53.0
