"""The app for `flwr run`, the pinned version of Flower, and the arguments of a run."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
from pathlib import Path

import pytest

from fedreid_pl import flower_apps
from fedreid_pl.cli import main
from fedreid_pl.engines.silos.flower import version
from fedreid_pl.engines.silos.flower.client import silo_folder
from fedreid_pl.engines.silos.flower.package import write_package
from fedreid_pl.errors import FedReIDError

REPOSITORY = Path(__file__).parents[2]


def with_flower(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    def answer(name: str) -> str:
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(version, "version", answer)


@pytest.mark.parametrize("found", [None, "1.41.0", "1.43.0", "1.42.0.post1"])
def test_another_version_is_refused_with_one_line(
    found: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    with_flower(monkeypatch, found)
    assert main(["flower", f"out={tmp_path / 'app'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (found or "flwr is missing") in line and "pip install 'fedreid-pl[flower]'" in line
    assert not (tmp_path / "app").exists()
    for make in (flower_apps.make_server_app, flower_apps.make_client_app):
        with pytest.raises(FedReIDError, match="flwr"):
            make()


def test_the_version_is_that_of_the_extra_and_of_the_app(tmp_path: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert f"flwr=={version.FLOWER}" in setup["options.extras_require"]["flower"].split()
    write_package(tmp_path / "app")
    assert f'"flwr=={version.FLOWER}"' in (tmp_path / "app" / "pyproject.toml").read_text()


def test_the_app_names_existing_objects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    with_flower(monkeypatch, version.FLOWER)
    app = tmp_path / "app"
    assert main(["flower", f"out={app}"]) == 0 == main(["flower", f"out={app}"]), "the command can be repeated"
    assert "flower-supernode" in capsys.readouterr().out
    for side in ("server", "client"):
        assert f'{side}app = "fedreid_app.{side}:app"' in (app / "pyproject.toml").read_text()
        tree = ast.parse((app / "fedreid_app" / f"{side}.py").read_text())
        imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
        assert imported == [f"make_{side}_app"] and callable(getattr(flower_apps, imported[0]))
        assert any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "app" for node in tree.body)


def test_a_folder_with_other_files_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FedReIDError, match=r"contains other files \(mine.txt\)"):
        write_package(tmp_path)
    assert not (tmp_path / "pyproject.toml").exists()


@pytest.mark.parametrize("words", [["flower", "app"], ["flower", "out=x", "rounds=3"]])
def test_invalid_arguments_are_refused(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(words) == 2
    assert "fedreid-pl flower out=APP" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"output-dir": "/run"}, "run-config federation="),
        ({"federation": "/fed", "output-dir": "run"}, "run-config output-dir=run: give an absolute path"),
    ],
)
def test_folders_of_a_run_are_absolute(config: dict[str, str], named: str) -> None:
    with pytest.raises(FedReIDError, match=named):
        flower_apps.words_of(config)


def test_a_node_without_a_silo_raises_an_error_that_names_the_missing_key(tmp_path: Path) -> None:
    with pytest.raises(FedReIDError, match='add silo-folder="/path/of/the/silo"'):
        silo_folder({})
    with pytest.raises(FedReIDError, match="is not a silo's folder"):
        silo_folder({"silo-folder": str(tmp_path)})
