"""Writes and reads the files of a run: config.yaml, metrics.csv, timings.csv, summary.json, and its lock."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy
import omegaconf
import pytorch_lightning
import torch
import torchmetrics
import torchvision
import wandb

import fedreid_pl
from fedreid_pl.bounded import read_text_inside
from fedreid_pl.config import Config, TrainerConfig, fingerprint
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.layouts import find_layouts
from fedreid_pl.data.naming import dataset_names
from fedreid_pl.data.overlap_found import Overlap
from fedreid_pl.data.readers.csv_table import to_csv
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.messages import state_bytes
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.history import SCORED, History, Record, best_round, summarize
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.federation.storage import write_text
from fedreid_pl.reporting.summary_file import ROOT, read_summary

METRICS, TIMINGS = "metrics.csv", "timings.csv"
MOST = 256 * 1024 * 1024  # largest size in bytes


class RunFiles(Observer):
    """Writes metrics.csv and timings.csv after every round, summary.json after every evaluation, each atomically.

    Args:
        folder: folder of the run.
        data: data of the run.
        start: name and hash of the pretrained weights from which the run starts, see `fedreid_pl.start`.
    """

    def __init__(self, folder: Path, data: FederatedData | None = None, start: Mapping[str, str] | None = None) -> None:
        self.folder, self.data, self.start = folder, data, start

    def on_start(self, federation: RoundContext) -> None:
        """Removes rows of rounds after the checkpoint, if the run is resumed."""
        self._write(federation, summary=False)

    def on_round_end(self, federation: RoundContext, records: Sequence[Record]) -> None:
        """Writes the files, so that they contain the rounds of the checkpoint."""
        self._write(federation, summary=any(record.metric == "rank1" for record in records))

    def on_end(self, federation: RoundContext) -> None:
        """Writes the final summary."""
        self._write(federation, summary=True)

    def _write(self, federation: RoundContext, summary: bool) -> None:
        write_text(self.folder / "metrics.csv", federation.history.to_csv())
        write_text(self.folder / TIMINGS, federation.costs.timings.to_csv())
        if summary:
            content = build_summary(federation, self.data)
            content["start"] = dict(self.start) if self.start else None
            text = json.dumps(content, indent=2)
            write_text(self.folder / "summary.json", text + "\n")


def build_summary(federation: RoundContext, data: FederatedData | None = None) -> dict[str, Any]:
    """Returns the content of summary.json: scores, weights, costs, versions, and how to repeat the run.

    Two runs with the same configuration differ only in `costs.seconds` and `costs.peak_memory_bytes`.
    """
    config, costs = federation.config, federation.costs
    best, best_by = best_round(federation.history)
    costs.tick()
    return {
        "name": config.name,
        "data": config.data.name,
        "synthetic": config.data.synthetic,
        "seed": config.seed,
        "rounds": federation.round,
        "complete": federation.round == config.rounds,
        "fingerprint": fingerprint(config),
        "setting": setting(config),
        "clients": federation.clients,
        "members": federation.ledger.members.summary(),
        "data_digest": {name: entry["sha256"] for name, entry in (data.digests if data else {}).items()},
        "left_out_images": {name: len(bad) for name, bad in (data.left_out if data else {}).items()},
        **{section: summarize(federation.history, section) for section in SCORED},
        "best_round": best,
        "best_by": best_by,
        "weights": dict(federation.weights),
        "rejected": dict(federation.rejected),
        "rejections": federation.rejections,
        "callbacks": config.callbacks,
        "algorithms": dict(federation.algorithms),
        "costs": {
            "bytes_down": costs.bytes_down,
            "bytes_up": costs.bytes_up,
            "backbone_bytes": state_bytes(federation.initial_backbone),
            "seconds": costs.by_phase(),
            "peak_memory_bytes": costs.peak_memory,
        },
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def setting(config: Config) -> str:
    """Returns a fingerprint of the configuration without the algorithm and the devices.

    Runs with equal values can be compared. Whether clients keep the optimizer's state over rounds counts as a part of
    the algorithm, because standalone training keeps it.
    """
    scenario = "by_dataset" if config.data.scenario == "merged" else config.data.scenario
    # a standalone client does not depend on the other clients
    clients = "all" if config.role == "federated" else config.data.clients
    data = replace(config.data, scenario=scenario, public=None, overlap="auto", clients=clients)
    return fingerprint(
        replace(
            config,
            name="",
            optimizer_state="reset",
            callbacks={},
            data=data,
            trainer=TrainerConfig(),
            evaluate_every=1,
            clients_per_round=None,
            min_clients=1,
            client_timeout=None,
            client_retries=1,
        )
    )


def versions() -> dict[str, str]:
    """Returns the versions of the packages that influence the results."""
    modules = (torch, torchvision, pytorch_lightning, torchmetrics, omegaconf, wandb, numpy)
    return {
        "fedreid_pl": fedreid_pl.__version__,
        "python": platform.python_version(),
        **{module.__name__: str(module.__version__) for module in modules},
    }


def write_splits(
    folder: Path,
    digests: Mapping[str, Mapping[str, Any]],
    datasets: Iterable[SampleTable] = (),
    overlaps: Iterable[Overlap] = (),
    unread_folders: Iterable[str] = (),
) -> None:
    """Writes digests of the data that were read to splits.json, and every drawn split to `splits/NAME.csv`.

    The entry `data.root` of splits.json lists folders that were not read, and pictures and persons that appear in two
    places. If a file of `splits` is copied into the dataset's folder as `samples.csv`, other programs can use the same
    split.

    Args:
        folder: folder of the run.
        digests: by dataset, what was read of it.
        datasets: sample tables of the datasets.
        overlaps: pictures and persons that appear in two places.
        unread_folders: folders below `data.root` that were not read.
    """
    together = {"overlaps": [item.as_dict() for item in overlaps], "unread_folders": list(unread_folders)}
    write_text(folder / "splits.json", json.dumps({**digests, ROOT: together}, indent=2) + "\n")
    layouts = find_layouts()
    for table in datasets:
        if table.layout in layouts and layouts[table.layout].drawn:
            write_text(folder / "splits" / f"{table.name}.csv", to_csv(table))


def read_history(folder: Path, config: Config) -> History:
    """Reads a run's metrics.csv.

    In a merged run over one dataset, local scores have the name of the client; they get the name of the test set.

    Raises:
        FedReIDError: if there is no such file, or it has another format.
    """
    history = _read_csv(folder, METRICS)
    datasets = config.data.datasets
    if config.data.scenario != "merged" or len(datasets) != 1:
        return history
    (test,) = dataset_names(datasets)
    return History(row._replace(name=test) if row.section == "local" else row for row in history.records)


def read_timings(folder: Path) -> History:
    """Reads a run's timings.csv, seconds and memory of its rounds; empty if there is no such file.

    Raises:
        FedReIDError: if the file has another format.
    """
    return _read_csv(folder, TIMINGS) if (folder / TIMINGS).is_file() else History()


def _read_csv(folder: Path, name: str) -> History:
    try:
        text = read_text_inside(folder, name, MOST)
    except OSError as error:
        raise FedReIDError(
            f"{folder / name}: cannot be read ({error.strerror or error}); restore the file or train the run again"
        ) from error
    try:
        return History.from_csv(text)
    except ValueError as error:
        raise FedReIDError(
            f"{folder / name}: has another format than a run writes ({printable(str(error), 160)}); restore the file "
            "or train the run again"
        ) from error


def standalone_folder(config: Config, folder: Path) -> Path | None:
    """Returns the folder of a complete `local` run next to this run that differs only in the algorithm, or `None`."""
    place = folder.parent.parent
    for name in sorted(
        glob("*/*/summary.json", root_dir=place)
    ):  # pathlib's glob raises if a folder disappears meanwhile
        candidate = place / Path(name).parent
        try:
            found = read_summary(candidate)
        except FedReIDError:  # the file of another run; reading that run reports the error
            continue
        wanted = {"name": "local", "setting": setting(config), "complete": True}
        if found and all(found.get(key) == value for key, value in wanted.items()):
            return candidate
    return None


def find_standalone(config: Config, folder: Path) -> dict[str, Any] | None:
    """Returns the summary of the run that `standalone_folder` finds, or `None`."""
    found = standalone_folder(config, folder)
    return read_summary(found) if found else None


class RunLock:
    """Prevents two processes from writing to one run folder; the system releases the lock when the process ends.

    Raises:
        FedReIDError: if another process holds the lock, or the folder is not writable.
    """

    def __init__(self, folder: Path) -> None:
        try:
            flags = (
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )  # never opens the target of a link
            self._file = os.fdopen(os.open(folder / ".lock", flags, 0o644), "r+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FedReIDError(
                f"{folder}: another process is writing to this run; wait until it ends or choose another output_dir"
            ) from error
        except OSError as error:
            raise FedReIDError(f"{folder}: cannot be written ({error.strerror}); choose another output_dir") from error
