"""Small real runs, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main


def train(root: Path, folder: Path, *words: str) -> Path:
    """Trains one round."""
    assert main(["train", *support.quick(root, folder, "rounds=1", *words)]) == 0
    return folder


@pytest.fixture(scope="session")
def run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of fedpav."""
    return train(tiny_root, tmp_path_factory.mktemp("run") / "fedpav", "exp=fedpav")


@pytest.fixture(scope="session")
def local_run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of standalone training."""
    return train(tiny_root, tmp_path_factory.mktemp("run") / "local", "exp=local")


@pytest.fixture(scope="session")
def own_norm_run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with local BatchNorm at the clients."""
    words = ("exp=fedpav", "callbacks.backbone_sync.batch_norm=local")
    return train(tiny_root, tmp_path_factory.mktemp("run") / "fedbn", *words)
