"""`data.cache=disk` in runs, and `fedreid-pl data cache`."""

from __future__ import annotations

from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.data import image_cache

pytestmark = pytest.mark.system


def test_scenarios_and_centralized_training_share_one_decoding(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    decoded: list[str] = []
    real = image_cache.decode
    monkeypatch.setattr(image_cache, "decode", lambda path, *size: decoded.append(path) or real(path, *size))
    pictures = sorted(str(path) for path in tiny_root.rglob("*.jpg"))
    for number, words in enumerate(
        (
            ["exp=fedpav"],
            ["exp=fedpav", "data.scenario=by_identity", "data.parts=2", "data.datasets=[mini-market1501,mini-viper]"],
            ["exp=centralized"],
            ["exp=fedpav_kd", "data.val_ids=0.4"],
        )
    ):
        keep = ["data.cache=disk", f"data.cache_dir={tmp_path / 'cache'}", "rounds=1"]
        runs = []
        for cache in (keep, ["data.cache=memory", "rounds=1"]):
            folder = tmp_path / f"run{number}-{len(runs)}"
            assert main(["train", *support.quick(tiny_root, folder, *words, *cache)]) == 0
            runs.append((folder / "metrics.csv").read_bytes())
        said = capsys.readouterr().err
        assert ("are decoded once into" in said) is (number == 0)
        assert runs[0] == runs[1], "the same pixels"
    assert sorted(decoded) == pictures
    assert main(["data", "cache", f"data.cache_dir={tmp_path / 'cache'}"]) == 0
    assert "images decoded images (data.cache=disk) 0.00 GB" in " ".join(capsys.readouterr().out.split())
    assert main(["data", "cache", "clear", f"data.cache_dir={tmp_path / 'cache'}"]) == 0
    assert "deleted" in capsys.readouterr().out and not list((tmp_path / "cache" / "images").iterdir())


def test_an_empty_cache_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "cache", f"data.cache_dir={tmp_path / 'nowhere'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'nowhere'}\nthe cache is empty\n"


def test_reading_ahead_changes_nothing(tiny_root: Path, tmp_path: Path) -> None:
    runs = []
    for workers in (0, 3):
        folder = tmp_path / f"workers{workers}"
        words = ["data.cache=none", f"data.workers={workers}", "rounds=1"]
        assert main(["train", "exp=fedpav", *support.quick(tiny_root, folder, *words)]) == 0
        runs.append((folder / "metrics.csv").read_bytes())
    assert runs[0] == runs[1]
