"""The examples work as described; each runs in a separate process, as for a user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import TINY, quick

EXAMPLES = Path(__file__).parents[2] / "examples"


def python(*words: str | Path, cwd: Path, **env: str) -> str:
    """Runs `python WORDS` and returns its output; fails with the stderr output."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installs the example packages with their entry points into a folder, without changes of the environment."""
    target = tmp_path_factory.mktemp("packages")
    for name in ("feddyn", "lab_layout"):
        source = tmp_path_factory.mktemp("source") / name
        source.mkdir()
        for file in (EXAMPLES / name).iterdir():
            if file.suffix in (".py", ".toml"):
                (source / file.name).write_bytes(file.read_bytes())
        python(
            *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
            *("--target", target, source),
            cwd=target,
        )
    return target


def train(cwd: Path, *words: str, packages: Path | None = None) -> str:
    """Trains a short run over the tiny data in `cwd/run`."""
    env = {"PYTHONPATH": str(packages)} if packages else {}
    return python("-m", "fedreid_pl", "train", *words, cwd=cwd, **env)


def rows(folder: Path, section: str) -> list[str]:
    return [line for line in (folder / "metrics.csv").read_text().splitlines() if f",{section}," in line]


@pytest.mark.system
def test_an_installed_callback_trains_and_is_resumed_from_its_run(
    tiny_root: Path, tmp_path: Path, packages: Path
) -> None:
    words = quick(tiny_root, tmp_path / "run", "callbacks.feddyn.alpha=0.05")
    train(tmp_path, f"exp={EXAMPLES}/feddyn/feddyn.yaml", *words, packages=packages)
    assert len(rows(tmp_path / "run", "global")) > 0
    assert any(
        (",train," in line and "train/feddyn" in line) or "feddyn" in line for line in rows(tmp_path / "run", "train")
    )
    once = [*words, f"output_dir={tmp_path / 'parts'}"]
    train(tmp_path, f"exp={EXAMPLES}/feddyn/feddyn.yaml", *once, "rounds=1", packages=packages)
    train(tmp_path, f"exp={EXAMPLES}/feddyn/feddyn.yaml", *once, packages=packages)
    whole, parts = (
        [line for line in (tmp_path / name / "metrics.csv").read_text().splitlines() if ",cost," not in line]
        for name in ("run", "parts")
    )
    assert parts == whole
    # the run folder names the callback: it is readable with the package, and refused in one line without it
    python("-m", "fedreid_pl", "evaluate", f"run={tmp_path / 'run'}", cwd=tmp_path, PYTHONPATH=str(packages))
    refused = subprocess.run(
        [sys.executable, "-m", "fedreid_pl", "train", f"exp={EXAMPLES}/feddyn/feddyn.yaml", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: callbacks.feddyn: no such callback")
    assert refused.stderr.count("\n") == 1


def test_feddyn_follows_algorithm_1(packages: Path, tmp_path: Path) -> None:
    """Two clients with quadratic losses and one weight, compared with the paper's recursion in floats."""
    script = """
import torch
from types import SimpleNamespace
from fedreid_feddyn import FedDyn
alpha, rate, centres = 0.5, 0.1, {"a": 1.0, "b": 4.0}
server, kept, model = FedDyn(alpha), {}, torch.tensor([0.0])
g, h, theta = {"a": 0.0, "b": 0.0}, 0.0, 0.0
for round in range(3):
    updates = []
    for name, centre in centres.items():
        client, weight = FedDyn(alpha), torch.nn.Parameter(model.clone())
        client.load_client_state_dict(kept.get(name, {}))
        module = SimpleNamespace(
            backbone=SimpleNamespace(named_parameters=lambda: [("w", weight)]),
            job=SimpleNamespace(backbone={"w": model}),
        )
        client.on_train_start(None, module)
        for _ in range(5):
            loss = (weight - centre).square().sum() / 2 + client.training_loss(module, None, None, None, None)
            assert client.training_loss(module, None, None, None, None) >= 0
            (gradient,) = torch.autograd.grad(loss, weight)
            weight.data -= rate * gradient
        client.on_train_end(None, module)
        kept[name] = client.client_state_dict()
        updates.append(SimpleNamespace(backbone={"w": weight.detach().clone()}))
    context = SimpleNamespace(models={"global": {"w": model}}, buffer_names=(), clients=["a", "b"])
    model = server.aggregate(context, updates, {}, {"global": {"w": torch.zeros(1)}})["global"]["w"]
    ends = {}
    for name, centre in centres.items():
        x = theta
        for _ in range(5):
            x -= rate * ((x - centre) - g[name] + alpha * (x - theta))
        ends[name], g[name] = x, g[name] - alpha * (x - theta)
    h -= alpha / 2 * sum(x - theta for x in ends.values())
    theta = sum(ends.values()) / 2 - h / alpha
    print(float(model), theta)
    assert abs(float(model) - theta) < 1e-5
"""
    printed = python("-c", script, cwd=tmp_path, PYTHONPATH=str(packages))
    assert len(printed.splitlines()) == 3


def test_two_packages_with_one_name_are_refused(packages: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[fedreid_pl.callbacks]\nfeddyn = json:loads\nfedprox = json:loads\n")
    for exp, places, expected in (
        (f"{EXAMPLES}/feddyn/feddyn.yaml", f"{tmp_path}{os.pathsep}{packages}", "two installed packages"),
        (f"{EXAMPLES}/feddyn/feddyn.yaml", str(tmp_path), "not a subclass of FederationCallback"),
        ("fedprox", str(tmp_path), "fedreid_pl itself provides"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "fedreid_pl", "train", f"exp={exp}", "dry_run=true"],
            env={**os.environ, "PYTHONPATH": places},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 2 and expected in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_an_installed_layout_is_read(tiny_root: Path, tmp_path: Path, packages: Path) -> None:
    from fedreid_pl.data.layouts import find_layouts
    from fedreid_pl.data.readers.layout import ReadOptions

    table = find_layouts()["market1501"].read(tiny_root / "mini-viper", "mini-viper", ReadOptions())
    lab = tmp_path / "lab"
    lab.mkdir()
    lines = []
    for path, person, camera, split in zip(table.paths, table.identities, table.cameras, table.splits, strict=True):
        target = lab / "frames" / Path(path).parent.name / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tiny_root / "mini-viper" / path).read_bytes())
        lines.append(f"{('train', 'query', 'gallery')[split]} {person} {camera} {target.relative_to(lab)}")
    (lab / "lab.txt").write_text("\n".join(lines) + "\n")
    words = ["data=auto", f"data.root={tmp_path}", "data.datasets=[lab]", "data.layout=lab"]
    printed = python("-m", "fedreid_pl", "data", "check", *words, cwd=tmp_path, PYTHONPATH=str(packages))
    for split in ("train", "query", "gallery"):
        assert str(len(table.split(split))) in printed
    (lab / "lab.txt").write_text("train seven 0 a.png\n")
    done = subprocess.run(
        [sys.executable, "-m", "fedreid_pl", "train", "exp=local", *words, "dry_run=true"],
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "line 1 is 'train seven 0 a.png'" in done.stderr


@pytest.mark.system
def test_own_backbone(tiny_root: Path, tmp_path: Path) -> None:
    printed = python(EXAMPLES / "own_backbone.py", *quick(tiny_root, tmp_path / "run"), cwd=EXAMPLES)
    assert printed.startswith("<Run fedpav on minireid, synthetic data, round 2")
    assert sum(line.startswith("global") for line in printed.splitlines()) == len(TINY)


def test_the_metric_example_agrees_with_a_loop(tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    arrays = {
        "query": draws.normal(size=(20, 8)),
        "query_persons": np.arange(20),
        "query_cameras": np.zeros(20, dtype=np.int64),
        "gallery": draws.normal(size=(60, 8)),
        "gallery_persons": np.arange(60) % 20,
        "gallery_cameras": np.ones(60, dtype=np.int64),
    }
    np.savez(tmp_path / "features.npz", **arrays)
    printed = python(EXAMPLES / "metric_alone.py", tmp_path / "features.npz", cwd=tmp_path)
    found = {line.split()[0]: float(line.split()[1]) for line in printed.splitlines()}
    unit = {side: arrays[side] / np.linalg.norm(arrays[side], axis=1, keepdims=True) for side in ("query", "gallery")}
    firsts, precisions = [], []
    for row, person in zip(unit["query"], arrays["query_persons"], strict=True):
        hits = (arrays["gallery_persons"] == person)[np.argsort(-(unit["gallery"] @ row))]
        firsts.append(hits[0])
        precisions.append(np.mean([hits[: place + 1].mean() for place in np.flatnonzero(hits)]))
    assert found["rank1"] == pytest.approx(np.mean(firsts), abs=1e-4)
    assert found["mAP"] == pytest.approx(np.mean(precisions), abs=1e-4)


@pytest.mark.system
def test_own_trainer(tmp_path: Path) -> None:
    printed = python(EXAMPLES / "own_trainer.py", "mini-viper", "2", cwd=tmp_path)
    losses = [float(line.rsplit(" ", 1)[1]) for line in printed.splitlines() if line.startswith("epoch")]
    assert len(losses) == 2 and all(np.isfinite(losses))
    assert "mini-viper (synthetic): Rank-1" in printed


@pytest.mark.system
def test_notebook(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    notebook = json.loads((EXAMPLES / "crops_to_search.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    script = tmp_path / "cells.py"
    script.write_text(
        "\n".join(cells) + "\nprint(scores)\nprint(found[0])\nassert files and all(map(Path.exists, files))\n"
    )
    printed = python(script, cwd=tmp_path, ROUNDS="2", MPLBACKEND="Agg")
    assert "looked for: person" in printed and "Match(person='person " in printed
