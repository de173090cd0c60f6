"""logger=tensorboard: the event files, read with TensorBoard's reader, contain the numbers of the run's files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import support
from wandb_records import from_csv

from fedreid_pl.cli import main

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def test_every_number_is_logged_once_also_after_more_rounds(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path, "exp=fedpav_kd_rw", "logger=tensorboard")
    assert main(["train", *words, "rounds=1"]) == 0
    assert main(["train", *words, "rounds=3"]) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    logged: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert tag not in logged.setdefault(event.step, {}), "a round is logged twice"
            logged[event.step][tag] = event.value
    written = from_csv(tmp_path)
    assert sorted(logged) == sorted(written) == [0, 1, 2, 3]
    for number, values in written.items():
        assert {key: logged[number][key] for key in values} == {key: float32(value) for key, value in values.items()}
        assert "global/mean/rank1" in logged[number]
