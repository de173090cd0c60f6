"""Training and reading runs from Python: the same results as the command line, and tables equal to the run's files."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import TINY, quick

import fedreid_pl
from fedreid_pl import FedReIDError, Run
from fedreid_pl.cli import main


def settings_of(words: list[str]) -> dict[str, object]:
    """Returns the settings of a quick run as Python values."""
    settings: dict[str, object] = dict(word.split("=", 1) for word in words)
    return {**settings, "rounds": 2, "data.datasets": list(TINY), "optim.lr_backbone": 0.02}


@pytest.fixture(scope="module")
def run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("api") / "run"
    return fedreid_pl.train("fedpav_rw", **settings_of(quick(tiny_root, output)))


def test_the_call_and_the_command_give_the_same_run(run: Run, tiny_root: Path, tmp_path: Path) -> None:
    assert main(["train", "exp=fedpav_rw", *quick(tiny_root, tmp_path / "run")]) == 0
    one, other = ((folder / "metrics.csv").read_text() for folder in (run.folder, tmp_path / "run"))
    assert one == other
    assert run.complete and run.round == 2 and run.synthetic
    assert repr(run) == f"<Run fedpav_rw on minireid, synthetic data, round 2, {run.folder}>"


def test_tables_agree_with_the_files(run: Run) -> None:
    """Compares the tables with metrics.csv and summary.json, read by other code."""
    with open(run.folder / "metrics.csv", newline="") as file:
        records = list(csv.DictReader(file))
    curves = {(row["round"], row["section"], row["test"], row["metric"]): row["value"] for row in run.curves()}
    scored = [row for row in records if row["section"] in ("global", "local")]
    assert curves == {
        (int(row["round"]), row["section"], row["name"], row["metric"]): float(row["value"]) for row in scored
    }
    summary = json.loads((run.folder / "summary.json").read_text())
    for statistic in ("last", "best", "best3", "fluctuation"):
        for row in run.scores(statistic):
            expected = summary[row["section"]][row["test"]]["rank1"][statistic]
            assert row["rank1"] == pytest.approx(expected, abs=1e-12)
    assert {(row["section"], row["test"]) for row in run.scores()} == {
        (section, test) for section in ("global", "local") for test in TINY
    }
    weights = [row for row in run.weights() if row["round"] == 2]
    assert {row["client"] for row in weights} == set(TINY)
    assert sum(row["weight"] for row in weights) == pytest.approx(1)
    assert run.costs() == summary["costs"]


def test_read_run_and_load(run: Run) -> None:
    again = fedreid_pl.read_run(str(run.folder))
    assert again.scores() == run.scores() and again.config == run.config
    sizes = (run.config.data.height, run.config.data.width)
    images = torch.zeros(1, 3, *sizes)
    assert torch.equal(run.load().backbone(images), fedreid_pl.load(run.folder).backbone(images))


def test_evaluate_repeats_the_scores_of_the_last_round(run: Run) -> None:
    found = {(row["model"], row["test"]): row["rank1"] for row in run.evaluate() if row["model"] == "global"}
    assert found == {("global", row["test"]): row["rank1"] for row in run.scores() if row["section"] == "global"}


def test_data_and_one_client(tiny_root: Path, tmp_path: Path) -> None:
    config = fedreid_pl.configure("local", **settings_of(quick(tiny_root, tmp_path / "run")))
    data = fedreid_pl.read_data(config)
    assert list(data.clients) == list(TINY)
    module, datamodule = fedreid_pl.lone_client(config, data, "mini-viper")
    assert module.head.out_features == datamodule.num_identities == data.clients["mini-viper"].train.num_identities()
    with pytest.raises(FedReIDError, match="client mini-vipr: no such client, did you mean 'mini-viper'"):
        fedreid_pl.lone_client(config, data, "mini-vipr")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fedreid_pl.train("fedpov"), "exp=fedpov: no such configuration"),
        (lambda: fedreid_pl.train(roundz=3), "roundz"),
        (lambda: fedreid_pl.train(rounds=0), "rounds=0"),
        (lambda: fedreid_pl.train(**{"engine": "silos"}), "start the coordinator with fedreid-pl train"),
        (lambda: fedreid_pl.read_run("/nowhere"), "/nowhere is not a run folder"),
    ],
)
def test_mistakes(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FedReIDError) as raised:
        call()
    assert message in str(raised.value)


def test_another_statistic_is_refused(run: Run) -> None:
    with pytest.raises(FedReIDError, match="statistic=mean: must be one of last, best"):
        run.scores("mean")


def test_import_is_light_and_every_public_name_exists() -> None:
    """Torch is imported when a public name is first used, not by `import fedreid_pl`."""
    script = (
        "import sys, fedreid_pl; heavy = {'torch', 'pytorch_lightning', 'numpy', 'omegaconf', 'wandb'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "missing = [name for name in fedreid_pl.__all__ if not hasattr(fedreid_pl, name)]; "
        "assert not missing, missing; "
        "undocumented = [n for n in fedreid_pl.__all__ if n != '__version__' and not getattr(fedreid_pl, n).__doc__]; "
        "assert not undocumented, undocumented; assert set(fedreid_pl.__all__) <= set(dir(fedreid_pl))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_type_checkers_see_the_public_names() -> None:
    """The names under TYPE_CHECKING equal the names that `__getattr__` returns."""
    import ast

    tree = ast.parse(Path(str(fedreid_pl.__file__)).read_text())
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed - {None} == set(fedreid_pl.__all__) - {"__version__"}
