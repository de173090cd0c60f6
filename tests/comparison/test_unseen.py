"""Leave one domain out in comparisons: planning, tables compared with known numbers, published rows, presets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import layouts
import pytest

from fedreid_pl.commands.words import run_folder
from fedreid_pl.comparison.compare import make_tables
from fedreid_pl.comparison.plan import Plan, PlannedRun, make_plan
from fedreid_pl.comparison.report import report_of
from fedreid_pl.comparison.results import read_result
from fedreid_pl.comparison.tables import Table, tidy_csv
from fedreid_pl.config import compose, to_yaml
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.paired import holm, paired_difference
from fedreid_pl.reporting.escaping import csv_text
from fedreid_pl.reporting.paper_unseen import LEFT_OUT, departures_from_paper

SETS = ("mini-viper", "mini-ilids", "mini-3dpes")
WORDS = [f"data.datasets=[{','.join(SETS)}]", "rounds=3", "evaluate_every=1"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(exps: str, *words: str, **options: str) -> Plan:
    return make_plan({"exps": exps, **options}, [*WORDS, *words], run_folder)


def write_run(run: PlannedRun, unseen: list[float], target: str, validation: list[float] | None = None) -> None:
    """A complete run: mAP of the target by round (Rank-1 is 0.1 more), sources at 0.5, a megabyte each way."""
    clients = [name for name in SETS if name != target]
    rows: list[list] = []
    metrics = ("rank1", "mAP")
    for at, value in enumerate(unseen):
        rows += [[at + 1, "unseen", target, "rank1", value + 0.1], [at + 1, "unseen", target, "mAP", value]]
        for number, name in enumerate(clients):
            rows += [[at + 1, section, name, metric, 0.5] for section in ("global", "local") for metric in metrics]
            rows += [[at + 1, "val_global", name, "rank1", validation[at]]] if validation else []
            model = f"{target} by {name}"
            rows += [[at + 1, "unseen_models", model, metric, value - 0.01 * number] for metric in metrics]
    summary = {
        "complete": True,
        "rounds": run.config.rounds,
        "clients": dict.fromkeys(clients, 10),
        "costs": {"backbone_bytes": 1, "bytes_down": 10**6, "bytes_up": 10**6, "seconds": {"total": 60.0}},
    }
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text(csv_text(["round", "section", "name", "metric", "value"], rows))
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    (run.folder / "summary.json").write_text(json.dumps(summary))


def tables_of(plan: Plan) -> dict[str, Table]:
    results = {run: result for run in plan.runs if (result := read_result(run))}
    return {table.key: table for table in make_tables(plan, results)}


def cells(table: Table) -> Mapping[tuple[str, str], tuple[float, str, str]]:
    rows = csv.DictReader(io.StringIO(tidy_csv([table])))
    return {(row["row"], row["column"]): (float(row["mean"]), row["deviation"], row["seeds"]) for row in rows}


# plan


def test_every_experiment_is_trained_once_without_each_target() -> None:
    found = plan("fedpav fedprox", leave_out="mini-viper,mini-ilids", seeds="0 1")
    assert [run.name for run in found.runs[:4]] == [
        "fedpav, mini-viper left out seed 0",
        "fedprox, mini-viper left out seed 0",
        "fedpav, mini-ilids left out seed 0",
        "fedprox, mini-ilids left out seed 0",
    ]
    assert found.targets == ["mini-viper", "mini-ilids"] and len({run.folder for run in found.runs}) == 8
    for run in found.runs:
        assert run.config.data.leave_out == run.target and f"data.leave_out={run.target}" in run.words
        assert run.folder == run_folder(compose(run.words), run.words)
    assert plan("fedpav", leave_out="each").targets == list(SETS)
    assert plan("fedpav").targets == [] and plan("fedpav").runs[0].config.data.leave_out is None


@pytest.mark.parametrize(
    ("option", "words", "hint"),
    [
        ("mini-vipr", [], "leave_out=mini-vipr: no such dataset, did you mean 'mini-viper'"),
        ("mini-viper,mini-viper", [], "twice"),
        ("each", ["data.leave_out=mini-viper"], "conflicts with data.leave_out"),
        ("", [], "leave_out=: no such dataset"),
    ],
)
def test_unknown_targets_are_refused(option: str, words: list[str], hint: str) -> None:
    with pytest.raises(FedReIDError) as caught:
        plan("fedpav", *words, leave_out=option)
    assert hint in str(caught.value)


# tables

GAINS = {0: 0.02, 1: 0.05, 2: 0.03}
"""Differences of fedprox to fedpav in mAP by seed, equal on both targets."""


@pytest.fixture
def made() -> Plan:
    found = plan("fedpav fedprox", leave_out="mini-viper,mini-ilids", seeds="0 1 2")
    for run in found.runs:
        assert run.target is not None
        base = {"mini-viper": 0.3, "mini-ilids": 0.5}[run.target] + 0.01 * run.seed
        base += GAINS[run.seed] if run.experiment == "fedprox" else 0.0
        write_run(run, [base - 0.1, base + 0.2, base], run.target, validation=[0.9, 0.1, 0.2])
    return found


def test_scores_of_the_last_the_validated_and_the_best_round(made: Plan) -> None:
    found = cells(tables_of(made)["unseen"])
    row = "mini-viper, fedpav"
    assert found[row, "mAP last"][0] == pytest.approx(31.0) and found[row, "mAP last"][2] == "3"
    assert float(found[row, "mAP last"][1]) == pytest.approx(1.0)
    assert found[row, "R1 last"][0] == pytest.approx(41.0)
    assert found[row, "mAP validated"][0] == pytest.approx(21.0), "round 1, selected on the clients' persons"
    assert found[row, "mAP best on target"][0] == pytest.approx(51.0), "round 2, selected on the target"
    assert found[row, "sources mAP"][0] == pytest.approx(50.0) and found[row, "MB"][0] == pytest.approx(2.0)
    assert found["mean, fedpav", "mAP last"][0] == pytest.approx(41.0)
    assert found["mean, fedprox", "mAP validated"][0] == pytest.approx(31.0 + 10 / 3)
    assert found["mini-viper, fedpav, its best single model", "mAP best on target"][0] == pytest.approx(31.0)
    assert any("no deployment can choose it" in note for note in tables_of(made)["unseen"].notes)


def test_differences_are_paired_by_seed_and_corrected_as_a_family(made: Plan) -> None:
    table = tables_of(made)["unseen_difference"]
    wanted = paired_difference([100 * GAINS[seed] for seed in range(3)])
    verdicts = {lead[1]: (lead[0], lead[2]) for lead, _ in table.rows}
    assert verdicts["mAP"] == ("fedprox", wanted.verdict)
    found = cells(table)
    row = f"fedprox, mAP, {wanted.verdict}"
    for column, value in (("difference", wanted.mean), ("low", wanted.low), ("high", wanted.high), ("p", wanted.p)):
        assert found[row, column][0] == pytest.approx(value, abs=1e-6)
    assert found[row, "p, Holm"][0] == pytest.approx(holm([wanted.p])[0]) and found[row, "seeds"][0] == 3


def test_an_incomplete_seed_is_not_paired(made: Plan) -> None:
    run = next(run for run in made.runs if (run.experiment, run.seed, run.target) == ("fedprox", 1, "mini-ilids"))
    (run.folder / "summary.json").unlink()
    found = cells(tables_of(made)["unseen_difference"])
    (row,) = {row for row, _ in found if ", mAP, " in row}
    assert found[row, "difference"][0] == pytest.approx(2.5) and found[row, "seeds"][0] == 2


def test_without_validation_persons_there_are_no_validated_scores() -> None:
    found = plan("fedpav", leave_out="mini-viper")
    write_run(found.runs[0], [0.1, 0.3, 0.2], "mini-viper")
    columns = {column for _, column in cells(tables_of(found)["unseen"])}
    assert "mAP last" in columns and "mAP validated" not in columns


def test_the_report_of_the_folder_has_the_tables_of_the_comparison(made: Plan, tmp_path: Path) -> None:
    from fedreid_pl.comparison.compare import _report

    _report(made, {run: result for run in made.runs if (result := read_result(run))})
    page = report_of([made.out]).to_html()
    for table in tables_of(made).values():
        assert table.title in page
    assert "fedprox, mini-ilids left out" in page


# published rows and presets


def test_published_rows_are_in_the_best_on_target_column_with_a_note_on_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fedreid_pl.comparison import unseen

    found = plan("fedpav", leave_out="mini-viper")
    write_run(found.runs[0], [0.1, 0.3, 0.2], "mini-viper")
    result = read_result(found.runs[0])
    assert result is not None
    monkeypatch.setattr(unseen, "left_out_name", lambda test: "Market-1501")
    table = unseen.unseen_table({"fedpav": [result]}, "", paper=True)
    assert table is not None
    rows = cells(table)
    assert rows["mini-viper, paper: DACS", "mAP best on target"][0] == 36.3
    assert ("mini-viper, paper: DACS", "mAP last") not in rows
    assert any("paper_setting=false: rounds=3" in note for note in table.notes)
    assert not any("paper" in row for row, _ in cells(unseen.unseen_table({"fedpav": [result]}, "", paper=False)))
    assert {name for published in LEFT_OUT for name in published.targets} == {"Market-1501", "MSMT17", "CUHK03"}


def test_the_preset_is_the_published_setting() -> None:
    config = compose(["exp=fedpav", "data=feddg", "data.root=/datasets", "data.leave_out=Market-1501"])
    assert departures_from_paper(config, {"MSMT17": 1, "CUHK02": 1, "CUHK03": 1}, "Market-1501") == []
    assert departures_from_paper(config, {"MSMT17": 1, "CUHK02": 1}, "Market-1501") == ["clients MSMT17, CUHK02"]
    (odd,) = departures_from_paper(config, {"MSMT17": 1, "CUHK02": 1, "Market-1501": 1}, "CUHK03")
    assert "last image of each camera" in odd
    from fedreid_pl.functional.schedule import run_factors

    factors = run_factors(config.optim, config.rounds, config.epochs_per_round)
    assert [factors[round] for round in (0, 19, 20, 29, 30, 39)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert (config.batch_size // config.data.instances, config.data.instances) == (16, 4)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates miniature datasets in their authors' layouts."""
    root = tmp_path_factory.mktemp("datasets")
    folders = {"MSMT17_V1": "MSMT17_V1", "Market-1501-v15.09.15": "Market-1501-v15.09.15", "CUHK02": "CUHK02"}
    folders |= {"DukeMTMC-reID": "DukeMTMC-reID", "cuhk03-np/detected": "cuhk03-np/detected", "VIPeR": "VIPeR"}
    folders |= {"prid_2011": "prid_2011", "i-LIDS_Pedestrian": "i-LIDS_Pedestrian", "3DPeS": "3DPeS"}
    folders |= {"CAVIAR4REID": "CAVIAR4REID", "underground_reid": "underground_reid"}
    for miniature, folder in folders.items():
        layouts.write(layouts.MINIATURES[miniature](), root / folder)
    return root


@pytest.mark.parametrize(
    ("words", "clients", "unseen"),
    [
        (
            ["data=feddg", "data.leave_out=Market-1501"],
            {"MSMT17", "CUHK02", "CUHK03"},
            {"Market-1501"},
        ),
        (["data=feddg", "data.leave_out=CUHK03"], {"MSMT17", "CUHK02", "Market-1501"}, {"CUHK03"}),
        (
            ["data=feddg_small"],
            {"Market-1501", "DukeMTMC-reID", "CUHK03-NP", "MSMT17"},
            {"VIPeR", "i-LIDS", "3DPeS", "CAVIAR4REID", "GRID", "PRID2011"},
        ),
    ],
)
def test_presets_read_the_datasets_in_their_distributed_layout(
    words: list[str], clients: set[str], unseen: set[str], datasets: Path
) -> None:
    data = load_federated_data(compose(["exp=fedpav", *words, f"data.root={datasets}"]).data)
    assert set(data.clients) == clients and set(data.unseen) == unseen
    if "CUHK02" in clients:  # P1 to P4 train, P5 is tested
        train, test = data.clients["CUHK02"].train, data.tests["CUHK02"]
        assert {path.split("/")[-3] for path in train.paths} <= {"P1", "P2", "P3", "P4"}
        assert {path.split("/")[-3] for path in (*test.query.paths, *test.gallery.paths)} == {"P5"}


@pytest.mark.parametrize("name", ["market", "msmt17"])
def test_presets_by_camera(name: str, datasets: Path) -> None:
    config = compose(["exp=fedpav", f"data=by_camera_{name}", f"data.root={datasets}"])
    data = load_federated_data(config.data)
    (dataset,) = data.tests
    assert len(data.clients) > 1 and all(client.tests == (dataset,) for client in data.clients.values())
    assert all(len(set(client.train.cameras.tolist())) == 1 for client in data.clients.values())
    assert (config.rounds, config.batch_size, config.optim.lr_backbone) == (300, 32, 0.001)
