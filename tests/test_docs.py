"""The docs: generated pages are current, links have targets, every public name and every page is listed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import fedreid_pl
from fedreid_pl.config.page import configuration_page

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_configuration_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == configuration_page()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "examples" / "README.md", *PAGES], ids=lambda page: page.name
)
def test_links_have_targets(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed: list[str] = []
    for entry in nav:
        for place in entry.values():
            listed += [place] if isinstance(place, str) else [page for one in place for page in one.values()]
    assert sorted(listed) == sorted(page.name for page in PAGES)


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = {entry.rsplit(".", 1)[1] for entry in re.findall(r"^::: (\S+)$", page, flags=re.M)}
    assert documented == set(fedreid_pl.__all__) - {"__version__"}


def test_code_of_the_library_page_uses_names_that_exist() -> None:
    """Every `fedreid_pl.NAME` and every `run.NAME(...)` in the page's Python blocks exists."""
    for name in ("library.md", "index.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        for block in re.findall(r"```python\n(.*?)```", text, flags=re.S):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    owner = {"fedreid_pl": fedreid_pl, "run": fedreid_pl.Run}.get(node.value.id)
                    assert owner is None or hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.system
def test_add_an_algorithm_works_as_written(tmp_path: Path, tiny_root: Path) -> None:
    """The page's files, installed beside this package, train; with power 1 the result equals FedPav to the bit."""
    from support import quick

    text = (ROOT / "docs" / "add_an_algorithm.md").read_text(encoding="utf-8")
    blocks = re.findall(r"    ```(python|toml|yaml)\n(.*?)    ```", text, flags=re.S)
    source = tmp_path / "equal_weights"
    source.mkdir()
    for (kind, body), file in zip(
        blocks, (source / "equal_weights.py", source / "pyproject.toml", tmp_path / "equal_weights.yaml"), strict=True
    ):
        file.write_text("\n".join(line[4:] for line in body.splitlines()) + "\n")
        assert {"python": ".py", "toml": ".toml", "yaml": ".yaml"}[kind] == file.suffix
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    target = tmp_path / "installed"
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    scores = {}
    for name, exp, *more in (
        ("equal", "equal_weights.yaml"),
        ("power", "equal_weights.yaml", "callbacks.equal_weights.power=1"),
        ("fedpav", "fedpav"),
    ):
        words = [f"exp={exp}", *quick(tiny_root, tmp_path / name), *more]
        done = subprocess.run(
            [sys.executable, "-m", "fedreid_pl", "train", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        rows = (tmp_path / name / "metrics.csv").read_text().splitlines()
        scores[name] = [row for row in rows if ",weights," in row]
    assert scores["power"] == scores["fedpav"] != scores["equal"]


def test_the_callback_that_sends_tensors_trains_and_resumes(
    tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import quick

    from fedreid_pl import callbacks
    from fedreid_pl.cli import main

    text = (ROOT / "docs" / "add_an_algorithm.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)
    page: dict[str, Any] = {}
    exec(block, page)
    monkeypatch.setattr(callbacks, "load_installed", lambda group, name: page["MeanFeature"])
    words = ["train", "exp=fedpav", "callbacks.mean_feature={}"]
    assert main([*words, *quick(tiny_root, tmp_path / "whole")]) == 0
    for rounds in (1, 2):
        assert main([*words, *quick(tiny_root, tmp_path / "parts", f"rounds={rounds}")]) == 0
    whole, parts = ((tmp_path / name / "metrics.csv").read_text() for name in ("whole", "parts"))
    assert whole == parts
    rows = [line.split(",") for line in whole.splitlines() if ",mean_feature," in line and ",distance," in line]
    assert len(rows) == 6 and all(float(row[-1]) > 0 for row in rows), "three clients in two rounds"
