"""The planned runs of a comparison, and words that it refuses before the first run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedreid_pl.cli import main
from fedreid_pl.commands.words import run_folder
from fedreid_pl.comparison import compare
from fedreid_pl.comparison.plan import Plan, make_plan
from fedreid_pl.config import compose
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.locating import locate_root
from fedreid_pl.errors import FedReIDError


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(exps: str, *words: str, **options: str) -> Plan:
    return make_plan({"exps": exps, **options}, words, run_folder)


def test_the_runs_equal_those_of_train_with_the_same_words() -> None:
    found = plan("local fedpav+rounds=9+optim.lr_head=1e+1", "rounds=7", seeds="3 5", jobs="2")
    assert [run.name for run in found.runs] == [
        "local seed 3",
        "fedpav+rounds=9+optim.lr_head=1e+1 seed 3",
        "local seed 5",
        "fedpav+rounds=9+optim.lr_head=1e+1 seed 5",
    ]
    local, fedpav = found.runs[2], found.runs[1]
    assert local.config == compose(["exp=local", "rounds=7", "seed=5"])
    assert fedpav.config == compose(["exp=fedpav", "rounds=9", "optim.lr_head=10", "seed=3"])
    for run in found.runs:  # the configuration that `train` composes from these words
        words = [*run.words, "resume=auto"]
        assert run.folder == run_folder(compose(words), words)
    assert (found.jobs, found.statistic, found.out) == (2, "last", Path("runs/minireid/compare"))
    assert (found.experiments, found.seeds) == ([run.experiment for run in found.runs[:2]], [3, 5])


def test_roles_depend_on_the_configuration_and_not_on_the_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("callbacks: {}\n")
    text = "mine.yaml mine.yaml+data.scenario=merged fedpav fedpav+callbacks.backbone_sync=null"
    assert [run.role for run in plan(text).runs] == ["standalone", "centralized", "federated", "standalone"]


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        ([], ["exps="]),
        (["exps= "], ["exps="]),
        (["exps=fedpaw"], ["exp=fedpaw", "did you mean 'fedpav'"]),
        (["exps=local", "rouds=3"], ["rouds", "did you mean 'rounds'"]),
        (["exps=local fedpav+round=3"], ["round", "did you mean 'rounds'"]),
        (["exps=local", "seeds=0 x"], ["seeds=0 x"]),
        (["exps=local", "seeds="], ["seeds="]),
        (["exps=local", "seeds=1 2 1"], ["seeds=1 2 1", "twice"]),
        (["exps=local", "jobs=0"], ["jobs=0"]),
        (["exps=local", "statistic=best4"], ["best4", "did you mean 'best"]),
        (["exps=local fedpav local"], ["local", "twice"]),
        (["exps=local", "output_dir=x"], ["output_dir=x"]),
        (["exps=local+output_dir=x"], ["output_dir=x"]),
        (["exps=local", "resume=never"], ["resume=never"]),
        (["exps=local+seed=3"], ["seed=3", "seeds="]),
        (["exps=local fedpav+data=market_layout"], ["minireid, market_layout"]),
        (["exps=local one/local.yaml"], ["local", "twice"]),
        (["exps=local fedpav+callbacks.backbone_sync.batch_norm=median"], ["batch_norm=median", "average, first"]),
        (["exps=local", "data=market_layout", "data.root=/does/not/exist"], ["/does/not/exist"]),
        (["exps=local", "trainer.strategy=ddp_spawn"], ["ddp_spawn"]),
    ],
)
def test_invalid_words_are_refused_before_the_first_run(
    words: list[str], hints: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "load_federated_data", refuse_or_none)
    monkeypatch.setattr(compare, "train_runs", lambda runs, jobs: pytest.fail("a run started"))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "local.yaml").write_text("callbacks: {}\n")
    assert main(["compare", *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and all(hint in line for hint in hints), line
    assert captured.out == "" and not (tmp_path / "runs").exists()


def refuse_or_none(config, status):
    """Replaces the check of the data, so that a test of words does not draw the benchmark."""
    if config.source == "folder":
        locate_root(config)
    return FederatedData(dict.fromkeys("ab"), {}, None)


def test_the_folder_of_the_tables_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "load_federated_data", refuse_or_none)
    monkeypatch.setattr(compare, "train_runs", lambda runs, jobs: pytest.fail("a run started"))
    (tmp_path / "file").write_text("")
    with pytest.raises(FedReIDError, match="out=file/tables"):
        compare.compare(plan("local", out="file/tables"))
