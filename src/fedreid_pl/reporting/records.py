"""Reads finished and unfinished runs from their folders, and groups them into experiments over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fedreid_pl.config import Config, check_run_folder, differences, load_config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.history import History
from fedreid_pl.reporting.inspection import read_inspection, shows_images, without_images
from fedreid_pl.reporting.run_folder import read_history, read_timings, standalone_folder
from fedreid_pl.reporting.summary_file import read_summary


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run.

    Args:
        folder: folder of the run.
        config: configuration of the run.
        history: content of metrics.csv.
        summary: content of summary.json; empty if there is no file yet.
        inspection: content of inspection.json, `None` if there is no file.
        timings: content of timings.csv; empty if there is no file.
    """

    folder: Path
    config: Config
    history: History
    summary: dict[str, Any]
    inspection: dict[str, Any] | None
    timings: History = field(default_factory=History)

    @property
    def draw(self) -> tuple[int, int]:
        """Seed and split. Runs of different experiments with equal values form a pair."""
        return self.config.seed, self.config.data.split

    @property
    def section(self) -> str:
        """Section with the scores of the main models: `global` if the server has a model, otherwise `local`."""
        return "global" if self.history.names("global") else "local"

    @property
    def rounds(self) -> int:
        """The last round with a record."""
        return max((record.round for record in self.history.records), default=0)

    @property
    def complete(self) -> bool:
        """Whether all rounds are done."""
        return self.rounds == self.config.rounds


Experiments = dict[str, list[RunRecord]]
"""Runs that differ only in the seed, by label of the experiment."""


def read_run(folder: Path) -> RunRecord:
    """Reads the run in a folder, with data of single images only if its configuration shows images.

    Raises:
        FedReIDError: if there is no run, or its files cannot be read.
    """
    check_run_folder(folder)
    config = load_config(folder / "config.yaml")
    history = read_history(folder, config)
    inspection = read_inspection(folder)
    if inspection is not None and not shows_images(config):
        inspection = without_images(inspection)
    return RunRecord(folder, config, history, read_summary(folder) or {}, inspection, read_timings(folder))


def read_standalone(run: RunRecord) -> RunRecord | None:
    """Returns the `local` run next to a federated run that differs only in the algorithm, `None` if there is none."""
    if run.config.role != "federated":
        return None
    folder = standalone_folder(run.config, run.folder)
    try:
        return read_run(folder) if folder else None
    except FedReIDError:
        return None


def group_runs(runs: Iterable[RunRecord]) -> Experiments:
    """Groups runs by experiment: its name, and the keys in which it differs from other experiments of the same name.

    Raises:
        FedReIDError: if two runs are equal including the seed.
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
                "give only one of them, because equal runs would make the deviation over seeds too small"
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
    """Returns the value of a dotted key, `-` if there is no such key."""
    value: Any = asdict(config)
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return "-"
        value = value[part]
    return value
