"""trainer.compile: the same run and a bit-identical resume; without a compiler, one error line."""

from __future__ import annotations

from pathlib import Path

import pytest
import support
import torch

from fedreid_pl.cli import main
from fedreid_pl.federation.client import trainer
from fedreid_pl.federation.storage import read_state
from fedreid_pl.models.compiled import CompiledTrunk

pytestmark = pytest.mark.system


def test_a_compiled_run_equals_the_run_and_resumes_bit_identically(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses Dynamo's tracing without a code generator, which would round differently."""
    torch._dynamo.reset()
    monkeypatch.setattr(CompiledTrunk.__init__, "__defaults__", ("eager",))
    entered = []
    full_batch = CompiledTrunk.full_batch
    monkeypatch.setattr(CompiledTrunk, "full_batch", lambda self, x: entered.append(len(x)) or full_batch(self, x))

    def run(folder: str, *words: str) -> dict:
        options = ("exp=fedpav_kd_rw", "trainer.accelerator=cpu", *words)
        assert main(["train", *support.quick(tiny_root, tmp_path / folder, *options)]) == 0
        return read_state(sorted((tmp_path / folder / "checkpoints").glob("*.ckpt"))[-1])["models"]

    plain = run("plain")
    assert not entered
    compiled = run("compiled", "trainer.compile=default")
    assert 8 in entered  # full batches
    support.assert_equal(compiled, plain)
    run("resumed", "trainer.compile=default", "rounds=1")
    support.assert_equal(run("resumed", "trainer.compile=default"), compiled)


def test_without_a_compiler_it_is_refused_in_one_line(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(trainer, "which", lambda name: None)
    words = support.quick(tiny_root, tmp_path / "run", "trainer.compile=default", "trainer.accelerator=cpu")
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and "C++ compiler" in error
    assert not (tmp_path / "run").exists()
