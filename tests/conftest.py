"""Fixtures shared by all tests: a tiny benchmark in real files, and a limit of threads per worker.

The tests and their processes use a separate temporary folder, which is removed if all tests passed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

if "FEDREID_TESTS_TMP" not in os.environ:  # the workers of xdist inherit it
    os.environ["FEDREID_TESTS_TMP"] = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="fr-")
    os.chmod(os.environ["TMPDIR"], 0o1777)  # like /tmp: some tests start processes of other users
    tempfile.tempdir = None  # read TMPDIR again
    OWN_TEMPORARY_FOLDER = Path(os.environ["TMPDIR"])
else:
    OWN_TEMPORARY_FOLDER = None

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"

import pytest
import support
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("no deadline", deadline=None)  # a busy machine is slow
settings.load_profile("no deadline")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Removes the temporary folder, or prints its path after a failure."""
    if OWN_TEMPORARY_FOLDER is None or hasattr(session.config, "workerinput"):
        return
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        shutil.rmtree(OWN_TEMPORARY_FOLDER, ignore_errors=True)
    else:
        print(f"\ntemporary files of the tests: {OWN_TEMPORARY_FOLDER}")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three small datasets in Market-1501's layout and a public one, drawn once per worker."""
    return support.write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents that tests read or write the user's cache, home or network account."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("FEDREID_PL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
