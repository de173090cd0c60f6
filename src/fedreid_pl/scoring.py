"""Evaluates the models of a run again, on its own test sets or on the test sets of unseen datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedreid_pl.commands.words import own_places, refuse_training_keys, take, yes_or_no
from fedreid_pl.config import Config, check_run_folder, lineage, load_config
from fedreid_pl.config.values import whole_number
from fedreid_pl.errors import FedReIDError, printable

if TYPE_CHECKING:
    from fedreid_pl.data.federated import FederatedData
    from fedreid_pl.federation.server.history import History
    from fedreid_pl.reporting.tables import TransferScores

MOST_SPLITS = 1000


@dataclass(frozen=True)
class Asked:
    """Describes an evaluation.

    Args:
        folder: folder of the run.
        config: configuration of the run, with the data of the evaluation.
        checkpoint: see `resume.named_checkpoint`.
        splits: number of splits of `data` to evaluate; 0: the split of the configuration.
    """

    folder: Path
    config: Config
    checkpoint: str
    splits: int


@dataclass(frozen=True)
class Scored:
    """Holds the scores of a run's models.

    Args:
        config: configuration of the run, with the data of the evaluation and their `synthetic` flag.
        round: round of the checkpoint.
        history: scores on the run's own test sets; `None` for other datasets.
        measured: open-set measures and re-ranked scores on the run's own test sets; all scores on other datasets.
        thresholds: calibrated thresholds by model.
    """

    config: Config
    round: int
    history: History | None
    measured: list[TransferScores]
    thresholds: Mapping[str, Mapping[str, Any]]

    def rows(self) -> list[TransferScores]:
        """Returns all scores, one row for each model and test set."""
        from fedreid_pl.reporting.tables import TransferScores

        found: dict[tuple[str, str], dict[str, list[float]]] = {}
        for model, test, metric, value in self._own():
            found.setdefault((model, test), {})[metric] = [value]
        for row in self.measured:
            found.setdefault((row.model, row.test), {}).update({name: [*row.metrics[name]] for name in row.metrics})
        return [TransferScores(model, test, metrics) for (model, test), metrics in found.items()]

    def _own(self) -> Iterator[tuple[str, str, str, float]]:
        from fedreid_pl.federation.server.history import METRICS, TESTS, UNSEEN

        for section in (*TESTS, *UNSEEN) if self.history is not None else ():
            for metric in METRICS:
                for test in self.history.names(section, metric):  # type: ignore[union-attr]
                    yield section, test, metric, self.history.series(section, test, metric)[self.round]  # type: ignore[union-attr]


def asked_of(words: list[str]) -> Asked:
    """Returns the evaluation that the arguments of `fedreid-pl evaluate` describe.

    Raises:
        FedReIDError: if the arguments name no run folder, or a key is wrong.
    """
    options, rest = take(words, "run", "checkpoint", "splits", "rerank")
    if "run" not in options:
        hint = next((f"; write run={word}" for word in rest if "=" not in word), "")
        raise FedReIDError(f"evaluate: give the run's folder, run=FOLDER{hint}")
    folder = Path(os.path.expanduser(options["run"]))
    check_run_folder(folder, "run=")
    splits = whole_number(options.get("splits", "0"))
    if splits is None or ("splits" in options and not 1 < splits <= MOST_SPLITS):
        raise FedReIDError(
            f"splits={printable(options['splits'])}: give the number of splits, 2 to {MOST_SPLITS}; splits=10 "
            "evaluates on the splits 0 to 9"
        )
    refuse_training_keys(rest, "evaluate")
    if "rerank" in options:
        rest.append(f"report.rerank={str(yes_or_no('rerank', options['rerank'])).lower()}")
    config = own_places(load_config(folder / "config.yaml", rest), rest)
    if any(word.startswith(("data=", "data.datasets=")) for word in rest):  # evaluate on all of the other datasets
        config.data.leave_out = None
    return Asked(folder, config, options.get("checkpoint", "last"), splits)


def score(asked: Asked, warn: Callable[[str], None]) -> Scored:
    """Evaluates the models of a run. Writes no files.

    Args:
        asked: see `asked_of`.
        warn: called with each warning, one line of text.

    Raises:
        FedReIDError: if the data cannot be read or do not fit the run, or the checkpoint does not exist.
    """
    from fedreid_pl.data.scenarios import load_federated_data
    from fedreid_pl.data.synthetic import with_found
    from fedreid_pl.transfer import trains_on

    state = _state(asked)
    data = load_federated_data(asked.config.data)
    asked = replace(asked, config=with_found(asked.config, data))
    if trains_on(asked.folder, data):
        return _on_its_own(asked, data, state, warn)
    return _elsewhere(asked, data, state)


def _state(asked: Asked) -> dict[str, Any]:
    """Returns the server's state in the selected checkpoint."""
    from fedreid_pl.federation.server.checkpoint import read_checkpoint
    from fedreid_pl.resume import named_checkpoint

    file = named_checkpoint(asked.folder, asked.checkpoint)
    return read_checkpoint(file, lineage(load_config(asked.folder / "config.yaml")))


def _on_its_own(asked: Asked, data: FederatedData, state: dict[str, Any], warn: Callable[[str], None]) -> Scored:
    """Returns the scores on the test sets of the run's clients and of the datasets that the run left out."""
    from fedreid_pl.experiment import evaluate
    from fedreid_pl.reporting.summary_file import read_splits

    if asked.splits:
        names = ", ".join(data.clients)
        raise FedReIDError(
            f"splits={asked.splits}: the run was trained on {names}, so the test sets of other splits contain training "
            "persons; remove splits=, or give another dataset, data=NAME"
        )
    for name, before in read_splits(asked.folder).items():
        if name in data.digests and data.digests[name]["sha256"] != before.get("sha256"):
            warn(f"warning: {name} has another split than in training; its test set may contain training persons")
    context, inspector = evaluate(asked.config, data, asked.folder, state, inspected=True)
    measured = inspector.measured() if inspector is not None else []
    thresholds = inspector.thresholds if inspector is not None else {}
    return Scored(asked.config, state["round"], context.history, measured, thresholds)


def _elsewhere(asked: Asked, data: FederatedData, state: dict[str, Any]) -> Scored:
    """Returns the scores on the test sets of datasets that the run has not seen."""
    from fedreid_pl.reporting.inspection import read_thresholds
    from fedreid_pl.transfer import transfer

    measured = transfer(asked.config, data, asked.folder, state, range(asked.splits))
    return Scored(asked.config, state["round"], None, measured, read_thresholds(asked.folder, state["round"]))
