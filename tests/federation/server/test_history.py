"""The run's numbers: curves, means and summary compared with values computed by hand, and metrics.csv."""

from __future__ import annotations

import csv
import io
import math
import statistics as stats

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_pl.federation.memory import peak_memory
from fedreid_pl.federation.server.costs import Costs
from fedreid_pl.federation.server.history import History, Record, best_round, statistics, summarize


def make_history() -> History:
    history = History()
    for round, (one, other) in {0: (0.1, 0.2), 10: (0.5, 0.25), 20: (0.4, 0.75), 30: (0.7, 0.5)}.items():
        history.add(round, "global", "a", "rank1", one)
        history.add(round, "global", "b", "rank1", other)
        history.add(round, "global", "a", "mAP", one / 2)
        history.add(round, "train", "a", "loss", 1 / (round + 1))
    return history


def test_curves_and_names() -> None:
    history = make_history()
    assert history.series("global", "b", "rank1") == {0: 0.2, 10: 0.25, 20: 0.75, 30: 0.5}
    assert history.series("local", "b", "rank1") == {} == history.mean_series("local", "rank1")
    assert history.names("global") == ["a", "b"] and history.names("global", "mAP") == ["a"]
    assert [record.name for record in history.of_round(20)] == ["a", "b", "a", "a"] and history.of_round(5) == []
    assert history.of_round(20)[1] == Record(20, "global", "b", "rank1", 0.75)


def test_the_mean_is_computed_only_for_rounds_with_all_test_sets() -> None:
    history = make_history()
    means = history.mean_series("global", "rank1")
    assert means == pytest.approx({0: 0.15, 10: 0.375, 20: 0.575, 30: 0.6})
    history.add(40, "global", "a", "rank1", 1.0)
    assert 40 not in history.mean_series("global", "rank1")
    history.add(40, "global", "b", "rank1", 0.0)
    assert history.mean_series("global", "rank1")[40] == 0.5
    history.add(50, "global", "c", "rank1", 0.0)
    assert history.mean_series("global", "rank1") == {}
    assert history.mean_series("global", "mAP") == pytest.approx({0: 0.05, 10: 0.25, 20: 0.2, 30: 0.35})


def test_statistics_by_hand() -> None:
    curve = {0: 0.1, 10: 0.5, 20: 0.2, 30: 0.8, 40: 0.6, 50: 0.7, 60: 0.3}
    result = statistics(curve)
    assert result["untrained"] == 0.1 and result["last"] == 0.3 and result["best"] == 0.8
    assert result["best3"] == pytest.approx((0.8 + 0.7 + 0.6) / 3)
    assert result["fluctuation"] == pytest.approx((0.1 + 0.4) / 2)  # of 0.6, 0.7, 0.3
    assert statistics(dict(reversed(curve.items()))) == result
    assert statistics({0: 0.25}) == {"untrained": 0.25}
    assert statistics({10: 0.25}) == {"last": 0.25, "best": 0.25, "best3": 0.25, "fluctuation": 0.0}
    assert statistics({10: 0.2, 20: 0.5, 30: 0.4})["fluctuation"] == pytest.approx(0.1)
    assert statistics({10: 0.2, 20: 0.4})["best3"] == pytest.approx(0.3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.booleans())
def test_statistics_of_any_curve(values: list[float], untrained: bool) -> None:
    curve = {10 * number: value for number, value in enumerate(values, 0 if untrained else 1)}
    trained = values[1:] if untrained else values
    result = statistics(curve)
    assert ("untrained" in result) == untrained
    if trained:
        low, high = sorted(trained)[0], sorted(trained)[-1]
        assert low <= result["last"] <= result["best"] == high
        assert stats.fmean(trained) - 1e-9 <= result["best3"] <= high + 1e-9
        assert 0 <= result["fluctuation"] <= high - low + 1e-9
    else:
        assert set(result) == {"untrained"}


def test_the_best_round_is_chosen_without_test_data_if_possible() -> None:
    history = make_history()
    assert best_round(History()) == (None, "test")
    assert best_round(history) == (30, "test")
    history.add(20, "local", "a", "rank1", 1.0)
    assert best_round(history) == (30, "test"), "local models count if the server has no model"
    history.add(0, "val_local", "a", "rank1", 0.9)
    assert best_round(history) == (None, "validation"), "no round is trained yet"
    history.add(10, "val_local", "a", "rank1", 0.6)
    history.add(20, "val_local", "a", "rank1", 0.6)
    history.add(30, "val_local", "a", "rank1", 0.1)
    assert best_round(history) == (20, "validation"), "the last of equal rounds"
    history.add(10, "val_global", "b", "rank1", 0.2)
    history.add(30, "val_global", "b", "rank1", 0.1)
    assert best_round(history) == (10, "validation")


def test_the_summary_contains_every_test_set_and_the_mean_of_the_curves() -> None:
    summary = summarize(make_history(), "global")
    assert list(summary) == ["a", "b", "mean"]
    assert set(summary["a"]) == {"rank1", "mAP"} and set(summary["b"]) == {"rank1"}
    assert summary["a"]["rank1"]["best"] == 0.7 and summary["b"]["rank1"]["best"] == 0.75
    assert summary["mean"]["rank1"]["best"] == pytest.approx(0.6), "the best round's mean, not the mean of the best"
    assert summary["mean"]["rank1"]["untrained"] == pytest.approx(0.15)
    assert summarize(make_history(), "local") == {}
    history = make_history()
    history.add(10, "val_global", "a", "single_shot_rank5", 0.5)
    history.add(10, "val_global", "a", "rank1", 0.25)
    assert summarize(history, "val_global")["mean"]["single_shot_rank5"]["last"] == 0.5
    assert summarize(history, "global") == summary


NAMES = st.text(st.sampled_from("aZ09 ,;:\"'/|=-_äß中"), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 10**6), NAMES, NAMES, NAMES, st.floats()), max_size=20))
def test_csv_and_checkpoint_read_back_equal(rows: list[tuple]) -> None:
    history = History()
    for row in rows:
        history.add(*row)
    header, *lines = csv.reader(io.StringIO(history.to_csv(), newline=""))
    assert header == ["round", "section", "name", "metric", "value"]
    back = [(int(line[0]), *line[1:4], float(line[4])) for line in lines]
    again = History()
    again.load_state_dict(history.state_dict())
    for copy in (back, again.records):
        assert [tuple(item[:4]) for item in copy] == [row[:4] for row in rows]
        for item, row in zip(copy, rows, strict=True):
            same_sign = math.copysign(1, item[4]) == math.copysign(1, row[4])
            assert (item[4] == row[4] and same_sign) or (math.isnan(item[4]) and math.isnan(row[4]))
    assert again.to_csv() == history.to_csv()


def test_costs_add_up_over_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("fedreid_pl.federation.server.costs.time.perf_counter", lambda: clock[0])
    costs = Costs()
    clock[0] += 50  # reading the pictures is not part of the run
    costs.restart()
    for name, seconds in (("fit", 4.0), ("aggregate", 1.0), ("fit", 2.0)):
        with costs.phase(name):
            clock[0] += seconds
    with pytest.raises(KeyError), costs.phase("evaluate"):
        clock[0] += 3.0
        raise KeyError
    clock[0] += 0.5
    costs.bytes_up, costs.bytes_down = 7, 9
    resumed = Costs()
    resumed.load_state_dict(costs.state_dict())
    resumed.restart()
    clock[0] += 1000
    resumed.restart()
    with resumed.phase("checkpoint"):
        clock[0] += 0.25
    resumed.tick()
    wanted = {"fit": 6.0, "aggregate": 1.0, "evaluate": 3.0, "checkpoint": 0.25, "other": 0.5, "total": 10.75}
    assert resumed.by_phase() == wanted
    assert (resumed.bytes_up, resumed.bytes_down) == (7, 9)
    assert peak_memory() > 10_000_000
