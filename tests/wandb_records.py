"""Reads an offline wandb run record by record with wandb's message types, and the values of the run's files."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2


def records(file: Path) -> Iterator[Any]:
    """Yields the records of a run file in LevelDB's log format (blocks of 32 kB, a header of 7 bytes per piece)."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    place, data = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # too little room for a header: the block is padded
            place += 32768 - place % 32768
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        data += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record
            data = b""


def run_file(folder: Path) -> Path:
    """Returns the file of the only offline run in a run's folder."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    return file


def read_back(folder: Path) -> dict[int, dict[str, Any]]:
    """Returns the values by round; fails if a round is logged twice or under another step."""
    rounds: dict[int, dict[str, Any]] = {}
    for record in records(run_file(folder)):
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            number = int(items["round"])
            assert number not in rounds and record.history.step.num == number
            rounds[number] = items
    return rounds


def axes(folder: Path) -> dict[str, tuple[str, set[str]]]:
    """Returns axis and summaries of the defined metrics, by name or prefix."""
    found = {}
    for record in records(run_file(folder)):
        if record.WhichOneof("record_type") == "metric":
            metric = record.metric
            kinds = {field.name for field, value in metric.summary.ListFields() if value}
            found[metric.name or metric.glob_name] = (metric.step_metric, kinds)
    return found


def summary(folder: Path) -> dict[str, Any]:
    """Returns the run's last summary."""
    values: dict[str, Any] = {}
    for record in records(run_file(folder)):
        if record.WhichOneof("record_type") == "summary":
            values |= {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.summary.update
            }
    return values


def from_csv(folder: Path) -> dict[int, dict[str, float]]:
    """Returns the values by round of metrics.csv and timings.csv together."""
    rounds: dict[int, dict[str, float]] = {}
    for name in ("metrics.csv", "timings.csv"):
        with open(folder / name, newline="") as file:
            for row in csv.DictReader(file):
                key = "/".join((row["section"], row["name"], row["metric"]))
                values = rounds.setdefault(int(row["round"]), {})
                assert key not in values
                values[key] = float(row["value"])
    return rounds


def assert_complete(folder: Path) -> None:
    """Asserts that wandb's rounds and values equal those of the files, to the bit."""
    logged, written = read_back(folder), from_csv(folder)
    assert list(logged) == sorted(written) == list(range(len(written)))
    for number, values in written.items():
        assert {key: logged[number].get(key) for key in values} == values
