"""Wrong words and wrong arguments of calls: one line with the place and the remedy, and no new file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from PIL import Image

import fedreid_pl
from fedreid_pl import FedReIDError
from fedreid_pl.cli import main
from fedreid_pl.federation.storage import check_output
from fedreid_pl.python_settings import as_word

LONG = "9" * 5000  # Python itself refuses to convert more than 4300 digits


@pytest.fixture(scope="module")
def run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong") / "run"
    words = support.quick(tiny_root, folder, "exp=fedpav", "rounds=1", "data.height=32", "data.width=16")
    assert main(["train", "model.name=small", *words]) == 0
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def refused(words: list, capsys: pytest.CaptureFixture, here: Path) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and not printed.out
    assert not list(here.iterdir()), "nothing is written"
    return line


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["compare", "exps=fedpav", f"seeds={LONG}"], "seeds=999"),
        (["compare", "exps=fedpav", f"jobs={LONG}"], "jobs=999"),
        (["compare", "exps=fedpav", f"splits={LONG}"], "splits=999"),
        (["compare", "exps=fedpav", "splits=999999999999"], "2 to 1000"),
        (["compare", "exps=fedpav,local"], 'separate experiments by spaces, exps="fedpav local"'),
        (["compare", "fedpav", "local"], 'exps="fedpav local"'),
        (["compare", "exps=fedpav", "sedes=0 1"], "did you mean 'seeds'?"),
        (["study", "main", "groups="], "groups=: give groups of study main"),
        (["study", "main", "reslts=x.csv"], "did you mean 'results'?"),
        (["train", "rounds=1000001"], "rounds=1000001: must be at most 1000000"),
        (["train", "seed=" + "1" * 17], "must be at most 1000000000000000"),
        (["train", "model.feature_dim=1000000000000"], "must be at most 16384"),
        (["train", "data.height=1000000"], "must be at most 8192"),
        (["train", "data.single_shot=1000000000"], "must be at most 10000"),
        (["train", "lr_head=0.1"], "did you mean 'optim.lr_head'?"),
        (["train", "dry_rnu=true"], "did you mean 'dry_run'?"),
        (["train", "exp=/no/folder/mine"], "must end with .yaml"),
        (["train", "model.name=timm:zzz", "data=market_layout", "data.root=/"], "data.root=/"),
        (["help", "trian"], "'trian': no such command, did you mean 'train'?"),
        (["evaluate", "runs/mine"], "write run=runs/mine"),
        (["dashboard", "runs/mine"], "write run=runs/mine"),
        (["dashboard", "data=minireid", "out=x.json", "wandb.project=a/b"], "wandb does not allow '/'"),
        (["data", "chekc"], "data chekc: no such command, did you mean 'check'?"),
        (["data", "cache", "claer"], "data cache claer: no such command, did you mean 'clear'?"),
        (["data", "cache", "data.cache_dir=/dev/null"], "data.cache_dir=/dev/null: is not a folder"),
        (["data", "out=x.csv"], "unknown key 'out'"),
        (["data", "show", "out=x.foo"], "out=x.foo: the name must end with .png"),
        (["data", "show", "out=/dev/null/x.png"], "out=/dev/null/x.png: /dev/null is not a folder"),
        (["methods", "fedpav", "out=x.md"], "not both"),
    ],
)
def test_words(words: list[str], wanted: str, capsys: pytest.CaptureFixture, here: Path) -> None:
    assert wanted in refused(words, capsys, here)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["evaluate", "run=RUN", f"splits={LONG}"], "splits=999"),
        (["evaluate", "run=RUN", "splits=\N{ARABIC-INDIC DIGIT THREE}"], "give the number of splits"),
        (["evaluate", "run=RUN", f"checkpoint={LONG}"], "checkpoint=999"),
        (["evaluate", "run=RUN", "chekpoint=1"], "did you mean 'checkpoint'?"),
        (["embed", "RUN", "PEOPLE", "out=x.npz", f"batch_size={LONG}"], "batch_size=999"),
        (["embed", "RUN", "PEOPLE", "out=x.npz", "device=meta"], "device=meta: cannot be used"),
        (["embed", "RUN", "PEOPLE", "out=FOLDER.npz"], "FOLDER.npz: is a folder"),
        (["embed", "RUN", "PEOPLE", "out=/dev/null/x.npz"], "/dev/null is not a folder"),
        (["search", "RUN", "PEOPLE", "QUERY", f"k={LONG}"], "k=999"),
        (["search", "RUN", "PEOPLE", "/no/such.jpg", "save=g.db"], "/no/such.jpg: no such file"),
        (["search", "RUN", "EMPTY", "QUERY", "save=g.db"], "contains no picture"),
        (["search", "RUN", "PEOPLE", "QUERY", "page=/dev/null/x.html"], "page=/dev/null/x.html"),
        (["search", "RUN", "PEOPLE", "QUERY", "audit=/dev/null/x"], "audit=/dev/null/x"),
        (["search", "RUN", "PEOPLE", "QUERY", "pooling=mean"], "add group=person"),
        (["export", "RUN", "out=FOLDER.safetensors"], "is a folder"),
        (
            ["export", "RUN", "out=x.torchscript", "pictures=DAMAGED"],
            "not a readable image; replace or remove the file",
        ),
        (["train", "resume=QUERY"], "is not in a run folder"),
    ],
)
def test_words_about_a_run(
    words: list[str], wanted: str, run: Path, tmp_path: Path, tiny_root: Path, capsys: pytest.CaptureFixture, here: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "damaged.jpg").write_text("no picture")
    people = tiny_root / "mini-viper" / "query"
    places = {"RUN": run, "PEOPLE": people, "QUERY": next(people.glob("*.jpg")), "EMPTY": tmp_path / "empty"}
    places |= {"FOLDER": tmp_path / "folder", "DAMAGED": tmp_path / "damaged.jpg"}

    def placed(word: str) -> str:
        for name, path in places.items():
            word = word.replace(name, str(path))
        return word

    line = refused([placed(word) for word in words], capsys, here)
    assert wanted.replace("FOLDER", str(tmp_path / "folder")) in line


def test_an_output_is_checked_before_the_runs_of_a_sweep_and_a_study(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, here: Path
) -> None:
    words = [
        word for word in support.quick(tiny_root, tmp_path) if not word.startswith(("output_dir", "optim.lr_head"))
    ]
    sweep = ["sweep", "exp=fedpav", "optim.lr_head=0.1,0.2", "data.val_ids=0.2", f"out={tmp_path}", *words]
    assert "is a folder; give the name of a file" in refused(sweep, capsys, here)
    study = tmp_path / "mine.yaml"
    study.write_text("words: []\ngroups: {all: {seeds: 1, experiments: [fedpav]}}\n")
    assert "results=" in refused(["study", study, f"results={study}/x.csv"], capsys, here)


def test_the_faulty_line_of_a_yaml_file(tmp_path: Path, capsys: pytest.CaptureFixture, here: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("callbacks:\n\tfedprox: {}\n")
    line = refused(["train", f"exp={file}"], capsys, here)
    assert line.startswith(f"error: {file}, line 2: not valid YAML (") and "spaces instead of tabs" in line
    file.write_text("root: /pictures\n")
    line = refused(["train", f"data={file}"], capsys, here)
    assert line.endswith("line 1: unknown key 'root', did you mean 'data.root'?")


def test_check_output_accepts_new_folders_and_existing_files(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")
    check_output(tmp_path / "old.csv", "out")
    check_output(tmp_path / "new" / "deeper" / "new.csv", "out")
    assert os.listdir(tmp_path) == ["old.csv"]


CALLS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no experiment": (lambda run: fedreid_pl.configure(None), "exp=None: expected the name of an experiment"),  # type: ignore[arg-type]
    "two experiments": (lambda run: fedreid_pl.configure(["fedpav", "local"]), "expected the name"),  # type: ignore[arg-type]
    "a number as data": (lambda run: fedreid_pl.configure("fedpav", 3), "data=3: expected"),  # type: ignore[arg-type]
    "an object as a setting": (lambda run: fedreid_pl.configure(**{"data.root": object()}), "not object"),
    "a set as a setting": (lambda run: fedreid_pl.configure(**{"data.datasets": {"a"}}), "not set"),
    "no folder": (lambda run: fedreid_pl.read_run(None), "None: expected the path of a run folder"),  # type: ignore[arg-type]
    "no folder to load": (lambda run: fedreid_pl.load(None), "expected the path of a run folder"),  # type: ignore[arg-type]
    "a share as checkpoint": (lambda run: fedreid_pl.load(run, checkpoint=1.5), "checkpoint=1.5"),  # type: ignore[arg-type]
    "a flag as checkpoint": (lambda run: fedreid_pl.load(run, checkpoint=True), "checkpoint=True"),
    "a number as client": (lambda run: fedreid_pl.load(run, client=3), "client=3: no such client"),  # type: ignore[arg-type]
    "a name as configuration": (lambda run: fedreid_pl.read_data("fedpav"), "expected the result of"),  # type: ignore[arg-type]
    "three columns": (lambda run: fedreid_pl.read_run(run).figures(columns=(3,)), "columns=(3,): must be"),
    "no pictures": (lambda run: fedreid_pl.load(run).embed(None), "got NoneType"),  # type: ignore[arg-type]
    "one PIL image": (lambda run: fedreid_pl.load(run).embed(Image.new("RGB", (9, 9))), "numpy.asarray"),  # type: ignore[arg-type]
    "a batch of minus one": (lambda run: fedreid_pl.load(run).embed(run / "images", batch_size=-1), "batch_size=-1"),
    "NaN pictures": (lambda run: fedreid_pl.load(run).embed(torch.full((1, 3, 32, 16), torch.nan)), "got NaN"),
    "a numpy feature": (lambda run: fedreid_pl.Gallery().add(np.eye(2), ["a", "b"]), "got ndarray"),  # type: ignore[arg-type]
    "half a match": (lambda run: fedreid_pl.Gallery().search(torch.eye(2), k=2.5), "k=2.5"),  # type: ignore[arg-type]
    "a misspelt group": (
        lambda run: fedreid_pl.Gallery().search(torch.eye(2), group="persons"),
        "must be row or person",
    ),  # type: ignore[arg-type]
    "a misspelt pooling": (
        lambda run: fedreid_pl.Gallery().search(torch.eye(2), pooling="max"),
        "must be best or mean",
    ),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str, run: Path) -> None:
    call, wanted = CALLS[name]
    with pytest.raises(FedReIDError) as caught:
        call(run)
    assert wanted in str(caught.value)


def test_a_metric_with_an_unknown_treatment_of_ties() -> None:
    with pytest.raises(ValueError, match="ties must be expected or order, got foo"):
        fedreid_pl.ReIDRetrieval(ties="foo")  # type: ignore[arg-type]


def test_numbers_of_numpy_and_torch_are_settings(run: Path) -> None:
    assert as_word(np.int64(3)) == as_word(torch.tensor(3)) == "3"
    assert as_word([np.int64(3)]) == "[3]"
    assert fedreid_pl.load(run, checkpoint=run / "checkpoints" / "round-00001.ckpt").card.round == 1  # type: ignore[arg-type]
