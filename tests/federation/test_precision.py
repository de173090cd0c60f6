"""The value of `trainer.precision=auto` on different machines, and its record in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import support
import torch

from fedreid_pl.cli import main
from fedreid_pl.config import compose, differences, load_config
from fedreid_pl.federation import precision
from fedreid_pl.federation.precision import default_precision, resolve_precision
from fedreid_pl.federation.storage import read_state


def machine(monkeypatch: pytest.MonkeyPatch, cpu: str = "", gpu: bool | None = None, mps: bool = False) -> None:
    """Simulates a machine with the CPU instructions `cpu` and with a GPU with or without bfloat16, or no GPU."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {cpu: True, "avx2": True})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: gpu or including_emulation)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("accelerator", "parts", "expected"),
    [
        ("cpu", {}, "32-true"),
        ("cpu", {"cpu": "avx512_bf16"}, "bf16-mixed"),
        ("cpu", {"cpu": "amx_bf16", "gpu": False}, "bf16-mixed"),
        ("auto", {"cpu": "amx_bf16"}, "bf16-mixed"),
        ("auto", {"cpu": "amx_bf16", "gpu": False}, "32-true"),  # a run would use the GPU
        ("auto", {"gpu": True}, "bf16-mixed"),
        ("gpu", {"gpu": True}, "bf16-mixed"),
        ("gpu", {"cpu": "amx_bf16", "gpu": False}, "32-true"),
        ("auto", {"cpu": "avx512_bf16", "mps": True}, "32-true"),
        ("mps", {"cpu": "avx512_bf16", "mps": True}, "32-true"),
        ("tpu", {"cpu": "avx512_bf16"}, "32-true"),
    ],
)
def test_auto_is_bfloat16_where_the_device_computes_it(
    accelerator: str, parts: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **parts)
    assert default_precision(accelerator) == expected


def test_a_given_or_recorded_precision_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cpu="avx512_bf16")
    plain = compose(["trainer.accelerator=cpu"])
    assert resolve_precision(plain) is plain and plain.trainer.precision == "32-true"
    words = ["trainer.precision=auto", "trainer.accelerator=cpu"]
    assert resolve_precision(compose(words)).trainer.precision == "bf16-mixed"
    assert resolve_precision(compose(words), recorded="32-true").trainer.precision == "32-true"
    assert resolve_precision(compose(words), recorded="auto").trainer.precision == "bf16-mixed"
    named = compose([*words, "trainer.precision=16-mixed"])
    assert resolve_precision(named, recorded="32-true") is named


def test_auto_equals_any_precision_but_two_precisions_differ() -> None:
    auto, one, other = (compose([f"trainer.precision={name}"]) for name in ("auto", "32-true", "bf16-mixed"))
    assert differences(auto, one) == differences(other, auto) == []
    assert differences(one, other) == ["trainer.precision"]


def test_a_run_records_its_precision_and_resumes_with_it(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def words(folder: str, *more: str) -> list[str]:
        auto = ("exp=fedpav", "trainer.precision=auto", "trainer.accelerator=cpu")
        return ["train", *support.quick(tiny_root, tmp_path / folder, *auto, *more)]

    monkeypatch.setattr(precision, "default_precision", lambda accelerator: "bf16-mixed")
    assert main(words("whole")) == 0
    assert load_config(tmp_path / "whole" / "config.yaml").trainer.precision == "bf16-mixed"
    assert main(words("parts", "rounds=1")) == 0
    monkeypatch.setattr(precision, "default_precision", lambda accelerator: "32-true")  # on another machine
    assert main(words("parts")) == 0
    assert load_config(tmp_path / "parts" / "config.yaml").trainer.precision == "bf16-mixed"
    assert main(words("taken", f"resume={tmp_path / 'parts'}", "rounds=3")) == 0
    assert load_config(tmp_path / "taken" / "config.yaml").trainer.precision == "bf16-mixed"
    whole, parts = (read_state(tmp_path / run / "checkpoints/round-00002.ckpt") for run in ("whole", "parts"))
    support.assert_equal(whole["models"], parts["models"])
    assert main(words("parts", "resume=never")) == 0
    assert load_config(tmp_path / "parts" / "config.yaml").trainer.precision == "32-true"
