"""The script for GPU machines runs all its parts on a CPU with tiny sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import support

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.system
def test_every_part_runs_on_a_processor(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_check

    words = support.quick(tiny_root, tmp_path / "unused", "trainer.accelerator=cpu")[:-1]
    parts = [
        "training",
        "rounds",
        "share",
        "ranking",
        "bits",
    ]  # the part "fractions" starts Ray; see tests/engines/test_ray.py
    command = ["--tiny", "--out", str(tmp_path / "out"), "--only", *parts, "--", *words]
    assert gpu_check.main(command) == 0, capsys.readouterr().out
    table = (tmp_path / "out" / "table.md").read_text()
    assert "the same metrics.csv, bit by bit" in table and "| share of a round spent in the model |" in table
    assert "ranking at the size of small / matrix product" in table and "plain fp32" in table


def test_a_failed_part_is_reported_and_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_check

    nowhere = f"data.root={tmp_path / 'nowhere'}"
    command = ["--tiny", "--out", str(tmp_path), "--only", "bits", "ranking", "--", "data.source=folder", nowhere]
    assert gpu_check.main(command) == 1
    table = (tmp_path / "table.md").read_text()
    assert "bits: failed (" in table and "nowhere" in table and "ranking at the size of small" in table


def test_no_part_starts_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_check

    assert gpu_check.main(["--minutes", "0", "--only", "bits", "--out", str(tmp_path)]) == 0
    assert "bits: not measured, the time was over" in (tmp_path / "table.md").read_text()


def test_the_pack_contains_no_packages_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_pack import is_of_torch, requirements

    names = requirements(BENCHMARKS.parent)
    assert any(name.startswith("ray") for name in names) and any(name.startswith("pytorch-lightning") for name in names)
    assert [name for name in names if is_of_torch(name)] == [
        name for name in names if name.partition(">")[0] in ("torch", "torchvision")
    ]
