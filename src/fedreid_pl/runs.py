"""Trains, reads and evaluates runs from Python, like `fedreid-pl train`, `evaluate` and `figure`; returns tables.

run = fedreid_pl.train("fedpav_rw", rounds=4)
pandas.DataFrame(run.scores())
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fedreid_pl.commands.words import run_folder
from fedreid_pl.config import Config, compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.history import SCORED, statistics
from fedreid_pl.python_settings import folder_of, setting_words, words_of
from fedreid_pl.reporting.records import RunRecord
from fedreid_pl.reporting.records import read_run as read_record
from fedreid_pl.retrieval.loading import load

if TYPE_CHECKING:
    import torch

    from fedreid_pl.data.federated import FederatedData
    from fedreid_pl.reporting.tables import TransferScores
    from fedreid_pl.retrieval.model import ReIDModel

Row = dict[str, Any]
"""One row of a table: column names and values. `pandas.DataFrame` and `csv.DictWriter` accept a list of rows."""


def train(exp: str | Path = "fedpav", data: str | Path | None = None, **settings: Any) -> Run:
    """Trains an experiment in this process and returns its run.

    The function gives the same result as `fedreid-pl train exp=EXP data=DATA KEY=VALUE ...`. It resumes an unfinished
    run and reads a finished run. Progress is printed to stderr. Notebooks may call the function repeatedly.

    Args:
        exp: name of a shipped experiment (`fedreid-pl methods` lists them) or path of a YAML file.
        data: name of a shipped data configuration or path of a YAML file. `None`: the built-in synthetic benchmark, or
            the datasets in the folder `data.root` if this key is set.
        settings: further keys of the configuration. Pass keys with dots as a dictionary:
            `train("fedprox", rounds=10, **{"callbacks.fedprox.mu": 0.1, "data.root": "/datasets"})`.

    Raises:
        FedReIDError: for unknown keys and names, wrong values, unreadable data, and every other error that the command
            reports.
    """
    words = words_of(exp, data, settings)
    config = compose(words)
    if config.engine.name == "silos":
        raise FedReIDError("engine=silos: start the coordinator with fedreid-pl train exp=... engine=silos")
    folder = run_folder(config, words)
    from fedreid_pl.experiment import train as run

    run(config, folder)
    return read_run(folder)


def read_run(folder: str | Path) -> Run:
    """Returns the run in a folder of `train` or `fedreid-pl train`. The run may be unfinished.

    Raises:
        FedReIDError: if the folder is not a run folder, or one of its files cannot be read.
    """
    return Run(read_record(folder_of(folder)))


def configure(exp: str | Path = "fedpav", data: str | Path | None = None, **settings: Any) -> Config:
    """Returns the configuration that `train` uses for the same arguments.

    Raises:
        FedReIDError: for an unknown key or name, or a wrong value.

    >>> configure("fedprox", rounds=3, **{"callbacks.fedprox.mu": 0.1}).callbacks["fedprox"]
    {'mu': 0.1}
    """
    return compose(words_of(exp, data, settings))


def read_data(config: Config) -> FederatedData:
    """Returns the clients, the test sets and the public set of a configuration, as tables of files.

    The function generates the built-in synthetic benchmark on first use. It decodes no image.

    Raises:
        FedReIDError: if a folder does not exist, or its files cannot be read as a dataset.
    """
    from fedreid_pl.data.scenarios import load_federated_data

    if not isinstance(config, Config):
        raise FedReIDError(f"read_data: expected the result of fedreid_pl.configure, got {type(config).__name__}")
    return load_federated_data(config.data)


@dataclass(frozen=True, eq=False)
class Run:
    """Describes a run from the files in its folder. Scores are fractions between 0 and 1, not percentages.

    Attributes:
        record: content of the files.
    """

    record: RunRecord

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.record.folder

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return self.record.config

    @property
    def round(self) -> int:
        """The number of the last trained round."""
        return self.record.rounds

    @property
    def complete(self) -> bool:
        """Whether all rounds of the configuration are trained."""
        return self.record.complete

    @property
    def synthetic(self) -> bool:
        """Whether this program generated the images. Such scores do not predict scores on real images."""
        return bool(self.record.config.data.synthetic)

    def scores(self, statistic: str = "last") -> list[Row]:
        """Returns one row for each model and test set.

        Args:
            statistic: `last` (the last round), `best` (the best round, chosen on the test set itself, as in some
                papers), `best3` (the mean of the three best evaluations), `fluctuation` (the mean absolute change
                between consecutive evaluations in the second half of the run), or `untrained` (before the first round).

        Returns:
            Rows with the columns `section`, `test` and one column per metric (`rank1`, `rank5`, `rank10`, `mAP`,
            `mINP`, ...). Sections: `global` (the server's model), `local` (the clients' models after training),
            `val_global` and `val_local` (the same on validation persons), `unseen` (on datasets of no client).

        Raises:
            FedReIDError: if the statistic is unknown.
        """
        if statistic not in STATISTICS:
            raise FedReIDError(f"statistic={statistic}: must be one of {', '.join(STATISTICS)}")
        rows: dict[tuple[str, str], Row] = {}
        for curve in self._curves():
            values = statistics(curve.values)
            if statistic in values:
                row = rows.setdefault((curve.section, curve.name), {"section": curve.section, "test": curve.name})
                row[curve.metric] = values[statistic]
        return list(rows.values())

    def curves(self) -> list[Row]:
        """Returns one row for each evaluation: `round`, `section`, `test`, `metric`, `value`."""
        return [
            {"round": round, "section": curve.section, "test": curve.name, "metric": curve.metric, "value": value}
            for curve in self._curves()
            for round, value in sorted(curve.values.items())
        ]

    def weights(self) -> list[Row]:
        """Returns one row for each round and client that took part in it.

        Returns:
            Rows with the columns `round`, `client`, `weight` (the weights of clients that share a model add up to one)
            and the measurements from which the algorithm computed the weights, such as `cosine_distance`.
        """
        rows: dict[tuple[int, str], Row] = {}
        for record in self.record.history.records:
            if record.section == "weights":
                key = (record.round, record.name)
                row = rows.setdefault(key, {"round": record.round, "client": record.name})
                row[record.metric] = record.value
        return list(rows.values())

    def costs(self) -> Row:
        """Returns `bytes_down`, `bytes_up`, `backbone_bytes`, `peak_memory_bytes` and `seconds` by phase.

        Returns an empty dictionary before the first evaluation of the run.
        """
        return dict(self.record.summary.get("costs", {}))

    def load(
        self,
        checkpoint: str | int = "last",
        client: str | None = None,
        device: str | torch.device = "cpu",
        network: str | None = None,
    ) -> ReIDModel:
        """Returns a trained model of the run. For arguments and errors, see `fedreid_pl.load`."""
        return load(self.folder, checkpoint, client, device, network)

    def evaluate(self, data: str | Path | None = None, checkpoint: str | int = "last", **settings: Any) -> list[Row]:
        """Evaluates the run's models on its own test sets, or on the test sets of other data.

        The function does the same as `fedreid-pl evaluate run=FOLDER data=DATA KEY=VALUE ...`, and writes no files.

        Args:
            data: name of a shipped data configuration or path of a YAML file; `None`: the data of the run.
            checkpoint: `"last"`, `"best"`, the number of a saved round, or the path of a checkpoint.
            settings: further keys, such as `**{"data.root": "/datasets"}`.

        Returns:
            Rows with the columns `model` (`global` or the name of a client), `test`, and one column per metric,
            including open-set measures.

        Raises:
            FedReIDError: if the data cannot be read or do not fit the run.
        """
        from fedreid_pl.reporting.terminal import say
        from fedreid_pl.scoring import asked_of, score

        words = [f"run={self.folder}", f"checkpoint={checkpoint}", *([] if data is None else [f"data={data}"])]
        rows = score(asked_of(words + setting_words(settings)), say).rows()
        return [{"model": row.model, "test": row.test, **_means(row)} for row in rows]

    def figures(self, out: str | Path | None = None, columns: Sequence[int] = (1, 2)) -> list[Path]:
        """Draws the figures of the run as PNG and PDF files, and returns their paths.

        Args:
            out: folder of the files; `None`: `figures` in the run folder.
            columns: widths of the figures, in columns of a paper: 1, 2 or both.

        Raises:
            FedReIDError: if matplotlib is missing (`pip install 'fedreid-pl[figure]'`).
        """
        from fedreid_pl.comparison.figures import write_figures

        return write_figures([self.folder], Path(out) if out is not None else self.folder / "figures", columns)

    def _curves(self) -> list[_Curve]:
        history = self.record.history
        metrics = {record.metric: None for record in history.records if record.section in SCORED}
        found = []
        for section in SCORED:
            for metric in metrics:
                found += [
                    _Curve(section, name, metric, history.series(section, name, metric))
                    for name in history.names(section, metric)
                ]
        return found

    def __repr__(self) -> str:
        kind = ", synthetic data" if self.synthetic else ""
        return f"<Run {self.config.name} on {self.config.data.name}{kind}, round {self.round}, {self.folder}>"


STATISTICS = ("last", "best", "best3", "fluctuation", "untrained")


@dataclass(frozen=True)
class _Curve:
    section: str
    name: str
    metric: str
    values: dict[int, float]


def _means(row: TransferScores) -> Row:
    return {metric: fmean(values) for metric, values in row.metrics.items()}
