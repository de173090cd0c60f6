"""A real offline wandb run, read back record by record with wandb's own message types."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import support
from wandb.proto import wandb_internal_pb2

from fedreid_pl.cli import main


def records(file: Path) -> Iterator[bytes]:
    """The records of a run file: LevelDB's log format (blocks of 32 kB, a header of 7 bytes before every piece)."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    place, record = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # too little room for a header: the block is padded
            place += 32768 - place % 32768
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def read_back(folder: Path) -> dict[int, dict[str, float]]:
    """Values by round of the one offline run in a run's folder; a round that stands there twice fails."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    rounds: dict[int, dict[str, float]] = {}
    for data in records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            assert int(items["round"]) not in rounds
            rounds[int(items["round"])] = items
    return rounds


def from_csv(folder: Path) -> dict[int, dict[str, float]]:
    with open(folder / "metrics.csv", newline="") as file:
        rounds: dict[int, dict[str, float]] = {}
        for row in csv.DictReader(file):
            key = "/".join((row["section"], row["name"], row["metric"]))
            rounds.setdefault(int(row["round"]), {})[key] = float(row["value"])
    return rounds


def assert_complete(folder: Path) -> None:
    logged, written = read_back(folder), from_csv(folder)
    assert sorted(logged) == sorted(written)
    for number, values in written.items():
        assert {key: logged[number][key] for key in values} == values


def test_offline_run_holds_every_round_and_equals_metrics_csv(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path, "exp=fedpav_rw", "logger=wandb")
    assert main(["train", *words]) == 0
    assert_complete(tmp_path)


def test_a_resumed_run_is_complete_and_has_nothing_twice(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path, "exp=fedpav_rw", "logger=wandb")
    assert main(["train", *words, "rounds=1"]) == 0
    assert main(["train", *words, "rounds=3"]) == 0
    assert sorted(read_back(tmp_path)) == [0, 1, 2, 3]
    assert_complete(tmp_path)


def test_a_logger_that_fails_does_not_stop_the_run(tiny_root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("no room for logs")

    monkeypatch.setattr("fedreid_pl.reporting.loggers.WandbLogger", broken)
    assert main(["train", *support.quick(tiny_root, tmp_path, "exp=fedpav", "logger=wandb")]) == 0
    assert "no room for logs" in capsys.readouterr().err
    assert (tmp_path / "summary.json").exists()


def test_without_network_a_key_only_costs_the_attempt(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path, "exp=fedpav", "logger=wandb", "rounds=1")
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
    done = support.run_cli("train", *words, **nobody, WANDB_INIT_TIMEOUT="3")
    assert done.returncode == 0, done.stderr
    assert_complete(tmp_path)
