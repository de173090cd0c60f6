"""The numbers in charts, from runs with known numbers."""

from __future__ import annotations

from pathlib import Path
from statistics import stdev

import matplotlib.figure
import pytest
from made_runs import curves_of, history_of, write_run

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.history import History
from fedreid_pl.reporting.figures.plots import all_figures
from fedreid_pl.reporting.records import group_runs, read_run, read_standalone
from fedreid_pl.reporting.views import (
    accuracy_curves,
    cmc_curves,
    distance_curves,
    gaps,
    lines_of,
    sweeps,
    weight_curves,
)

TESTS = ("mini-viper", "mini-ilids")


def made(folder: Path, level: float, *words: str, weights: bool = True, rounds: int = 4) -> Path:
    """Makes a run with Rank-1 = `level` times the round's share, 0.1 more for local models, half for mini-ilids."""

    def score(section: str, round: int, test: str) -> float:
        return level * round / rounds / (1 + (test == "mini-ilids")) + 0.1 * (section == "local")

    return write_run(folder, [*words, f"rounds={rounds}"], history_of(rounds, TESTS, score, weights), TESTS)


def test_a_curve_is_the_mean_over_seeds_with_their_deviation(tmp_path: Path) -> None:
    levels = (0.4, 0.5, 0.8)
    runs = [read_run(made(tmp_path / str(s), level, "exp=fedpav", f"seed={s}")) for s, level in enumerate(levels)]
    runs += [read_run(made(tmp_path / "other", 0.2, "exp=fedprox"))]
    panels = accuracy_curves(lines_of(group_runs(runs)))
    assert list(panels) == [*TESTS, "mean"] and list(panels["mean"]) == ["fedpav", "fedprox"]
    curve = panels["mini-viper"]["fedpav"]
    assert curve.x == [0, 1, 2, 3, 4]
    for index, round in enumerate(range(5)):
        values = [100 * level * round / 4 for level in levels]
        assert curve.y[index] == pytest.approx(sum(values) / 3)
        assert curve.deviation is not None and curve.deviation[index] == pytest.approx(stdev(values))
    assert panels["mean"]["fedpav"].y[-1] == pytest.approx(100 * (0.4 + 0.5 + 0.8) / 3 * 0.75)
    assert panels["mini-viper"]["fedprox"].deviation is None


def test_means_over_different_test_sets_are_not_compared(tmp_path: Path) -> None:
    one = read_run(made(tmp_path / "one", 0.4, "exp=fedpav"))
    history = history_of(4, TESTS[:1], lambda section, round, test: 0.5)
    other = read_run(write_run(tmp_path / "two", ["exp=fedprox", "rounds=4"], history, TESTS[:1]))
    assert list(accuracy_curves(lines_of(group_runs([one, other])))) == list(TESTS)
    assert list(accuracy_curves(lines_of(group_runs([one])))) == [*TESTS, "mean"]


def test_a_single_run_shows_global_local_and_the_standalone_run(tmp_path: Path) -> None:
    made(tmp_path / "local" / "seed0", 0.3, "exp=local", weights=False)
    run = read_run(made(tmp_path / "fedpav" / "seed0", 0.6, "exp=fedpav"))
    alone = read_standalone(run)
    assert alone is not None and alone.config.name == "local"
    lines = lines_of(group_runs([run]), alone)
    assert [line.label for line in lines] == ["global model", "local models", "standalone"]
    last = {label: curve.y[-1] for label, curve in accuracy_curves(lines)["mini-viper"].items()}
    assert last == pytest.approx({"global model": 60, "local models": 70, "standalone": 40})


def test_gaps_compare_with_standalone_runs_of_the_same_seeds(tmp_path: Path) -> None:
    runs = [read_run(made(tmp_path / f"f{s}", 0.6, "exp=fedpav", f"seed={s}")) for s in (1, 2)]
    runs += [read_run(made(tmp_path / f"l{s}", 0.1 * s, "exp=local", f"seed={s}", weights=False)) for s in (1, 2, 9)]
    row = gaps(group_runs(runs))["fedpav"]["mini-viper"]
    assert {kind: bar.value for kind, bar in row.items()} == pytest.approx(
        {"global": 60, "local": 70, "standalone": 25}
    )
    assert row["standalone"].seeds == 2 and row["standalone"].deviation == pytest.approx(stdev([20, 30]))


@pytest.mark.parametrize("alone", [False, True])
def test_the_legend_of_gaps_names_only_shown_series(tmp_path: Path, alone: bool) -> None:
    made(tmp_path / "local" / "seed0", 0.3, "exp=local", weights=False)
    run = read_run(made(tmp_path / "fedpav" / "seed0", 0.6, "exp=fedpav"))
    drawings = dict(all_figures(matplotlib.figure, group_runs([run]), read_standalone(run) if alone else None, 2))
    (legend,) = drawings["gap"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["global", "local", *["standalone"] * alone]


def test_shares_of_distances_with_moving_and_with_fixed_statistics(tmp_path: Path) -> None:
    history = history_of(2, TESTS, lambda section, round, test: 0.5, weights=True)
    for client, moving, fixed in (("a", 0.1, 0.6), ("b", 0.3, 0.2)):
        history.add(1, "weights", client, "cosine_distance", moving)
        history.add(1, "weights", client, "cosine_distance_fixed", fixed)
    run = read_run(write_run(tmp_path / "fedpav_rw" / "seed0", ["exp=fedpav_rw", "rounds=2"], history, TESTS))
    curves = distance_curves(group_runs([run]))
    assert {label: {client: curve.y for client, curve in found.items()} for label, found in curves.items()} == {
        "fedpav_rw, distances with moving statistics": {"a": [pytest.approx(0.25)], "b": [pytest.approx(0.75)]},
        "fedpav_rw, distances with fixed statistics": {"a": [pytest.approx(0.75)], "b": [pytest.approx(0.25)]},
    }


def test_weights_of_clients_that_did_not_take_part_are_zero(tmp_path: Path) -> None:
    history = History()
    for round, client in ((1, "mini-viper"), (2, "mini-ilids"), (2, "mini-viper")):
        history.add(round, "weights", client, "weight", 1.0 if round == 1 else 0.5)
    run = read_run(write_run(tmp_path / "run", ["exp=fedpav", "rounds=2"], history, TESTS))
    curves = weight_curves(group_runs([run]))["fedpav"]
    assert {client: curve.y for client, curve in curves.items()} == {"mini-viper": [1.0, 0.5], "mini-ilids": [0.0, 0.5]}


def test_sweeps_are_runs_of_one_experiment_with_other_batch_sizes_or_epochs(tmp_path: Path) -> None:
    sizes = {8: 0.2, 16: 0.4}
    runs = [read_run(made(tmp_path / f"{b}", v, "exp=fedpav", f"batch_size={b}")) for b, v in sizes.items()]
    runs += [read_run(made(tmp_path / "prox", 0.9, "exp=fedprox"))]
    found = sweeps(group_runs(runs))
    assert list(found) == ["fedpav"]
    assert {text: bar.value for text, bar in found["fedpav"]["mini-viper"].items()} == pytest.approx(
        {"B=8": 20, "B=16": 40}
    )
    assert found["fedpav"]["mean"]["B=16"].value == pytest.approx(30)
    epochs = [read_run(made(tmp_path / f"e{e}", 0.5, "exp=fedpav", f"local_epochs={e}")) for e in (1, 5)]
    assert list(sweeps(group_runs([*runs[:1], *epochs]))["fedpav"]["mini-viper"]) == [
        "B=8, E=1",
        "B=32, E=1",
        "B=32, E=5",
    ]


def test_cmc_curves_are_means_over_seeds(tmp_path: Path) -> None:
    runs = []
    for seed, level in enumerate((0.2, 0.6)):
        history = history_of(1, TESTS, lambda section, round, test: 0.5)
        content = curves_of(TESTS, level, {"mini-viper": 0.9})
        words = ["exp=fedpav", "rounds=1", f"seed={seed}"]
        runs.append(read_run(write_run(tmp_path / str(seed), words, history, TESTS, content)))
    panels = cmc_curves(lines_of(group_runs(runs)))["mini-viper"]
    assert panels["global model"].x[:2] == [1, 2] and panels["global model"].y[0] == pytest.approx(40)
    assert panels["global model"].deviation == pytest.approx(
        [stdev((20 + 80 * k / 49, 60 + 40 * k / 49)) for k in range(50)]
    )
    assert panels["local models"].y[0] == pytest.approx(90)


def test_labels_of_experiments_contain_their_differences(tmp_path: Path) -> None:
    words = [["exp=fedprox", "seed=0"], ["exp=fedprox", "seed=1"], ["exp=fedprox", "callbacks.fedprox.mu=0.5"]]
    runs = [read_run(made(tmp_path / str(index), 0.5, *one)) for index, one in enumerate(words)]
    groups = group_runs(runs)
    assert [len(group) for group in groups.values()] == [2, 1]
    assert [label.partition("callbacks.fedprox.mu=")[2] for label in groups][1] == "0.5"
    with pytest.raises(FedReIDError, match=r"are the same run \(fedprox, seed 0\)"):
        group_runs([runs[0], runs[0]])


def test_images_are_not_read_if_the_configuration_disables_them(tmp_path: Path) -> None:
    content = curves_of(TESTS, 0.5)
    query = {"identity": 1, "camera": 1, "image": "images/q.jpg"}
    ranked = {"query": query, "hardest": True, "average_precision": 0.5, "gallery": []}
    content["tests"]["mini-viper"] = {**content["tests"]["mini-viper"], "ranked": [ranked], "confusions": []}
    point = {"test": "mini-viper", "identity": 1, "camera": 1, "before": [0, 1], "after": [1, 0]}
    explained = {"before": 0.5, "after": 0.5}
    plane = {"method": "PCA", "model": "global", "explained": explained, "points": [point]}
    content |= {"images": True, "embedding": plane}
    history = history_of(1, TESTS, lambda section, round, test: 0.5)
    for word, lists in (("report.images=false", 0), ("report.images=true", 1)):
        words = ["exp=fedpav", "rounds=1", word]
        read = read_run(write_run(tmp_path / word, words, history, TESTS, content)).inspection
        assert read is not None and len(read["tests"]["mini-viper"]["ranked"]) == lists
        assert bool(read["embedding"]) == bool(lists)
