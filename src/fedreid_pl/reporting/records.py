"""Finished or unfinished runs as their folders have them, grouped into experiments over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fedreid_pl.config import Config, differences, load_config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.history import History
from fedreid_pl.reporting.inspection import read_inspection, shows_images, without_images
from fedreid_pl.reporting.run_folder import read_history, read_timings, standalone_folder
from fedreid_pl.reporting.summary_file import read_summary


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run.

    Attributes:
        history: its metrics.csv.
        summary: its summary.json; empty if there is none yet.
        inspection: its inspection.json, `None` if there is none.
        timings: its timings.csv; empty if there is none.
    """

    folder: Path
    config: Config
    history: History
    summary: dict[str, Any]
    inspection: dict[str, Any] | None
    timings: History = field(default_factory=History)

    @property
    def draw(self) -> tuple[int, int]:
        """Seed and split: what runs of different experiments share if they are a pair."""
        return self.config.seed, self.config.data.split

    @property
    def section(self) -> str:
        """Where the scores of its main models are: `global` if the server has one, else `local`."""
        return "global" if self.history.names("global") else "local"

    @property
    def rounds(self) -> int:
        """The last round that something is known of."""
        return max((record.round for record in self.history.records), default=0)

    @property
    def complete(self) -> bool:
        """Whether all rounds are done."""
        return self.rounds == self.config.rounds


Experiments = dict[str, list[RunRecord]]
"""Runs that differ in the seed alone, by the experiment's label."""


def read_run(folder: Path) -> RunRecord:
    """The run in a folder; what belongs to single images only if its configuration shows images.

    Raises:
        FedReIDError: if there is no run or its files cannot be read.
    """
    if not (folder / "config.yaml").is_file():
        raise FedReIDError(f"{folder}: holds no run (no config.yaml)")
    config = load_config(folder / "config.yaml")
    history = read_history(folder, config)
    inspection = read_inspection(folder)
    if inspection is not None and not shows_images(config):
        inspection = without_images(inspection)
    return RunRecord(folder, config, history, read_summary(folder) or {}, inspection, read_timings(folder))


def read_standalone(run: RunRecord) -> RunRecord | None:
    """The `local` run beside a federated one that differs in nothing but the algorithm."""
    if run.config.role != "federated":
        return None
    folder = standalone_folder(run.config, run.folder)
    try:
        return read_run(folder) if folder else None
    except FedReIDError:
        return None


def group_runs(runs: Iterable[RunRecord]) -> Experiments:
    """Runs by experiment: its name, with the keys in which it differs from others of the same name.

    Raises:
        FedReIDError: if two runs are equal, the seed included.
    """
    variants: dict[str, list[list[RunRecord]]] = {}
    for run in runs:
        groups = variants.setdefault(run.config.name, [])
        same = [group for group in groups if not differences(_plain(group[0].config), _plain(run.config))]
        if not same:
            groups.append([run])
            continue
        twin = [other for other in same[0] if other.config.seed == run.config.seed]
        if twin:
            raise FedReIDError(
                f"{run.folder} and {twin[0].folder} are the same run ({run.config.name}, seed {run.config.seed}); "
                "leave one out, equal runs say nothing about deviation"
            )
        same[0].append(run)
    return {
        label: group
        for name, groups in variants.items()
        for label, group in zip(_labels(name, [group[0].config for group in groups]), groups, strict=True)
    }


def _plain(config: Config) -> Config:
    return replace(config, seed=0)


def _labels(name: str, configs: Sequence[Config]) -> list[str]:
    keys = sorted({key for config in configs for key in differences(_plain(configs[0]), _plain(config))})
    return ["+".join([name, *(f"{key}={value_of(config, key)}" for key in keys)]) for config in configs]


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted key; `-` if it is not there."""
    value: Any = asdict(config)
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return "-"
        value = value[part]
    return value
