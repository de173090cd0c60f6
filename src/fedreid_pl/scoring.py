"""The models of a run scored again: on its own test sets, or on those of datasets that the run never saw."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedreid_pl.commands.words import own_places, take, yes_or_no
from fedreid_pl.config import Config, lineage, load_config
from fedreid_pl.errors import FedReIDError

if TYPE_CHECKING:
    from fedreid_pl.data.federated import FederatedData
    from fedreid_pl.federation.server.history import History
    from fedreid_pl.reporting.tables import TransferScores


@dataclass(frozen=True)
class Asked:
    """What is to be scored.

    Args:
        folder: the run's.
        config: the run's, with the data to score on.
        checkpoint: `last`, `best`, the number of a round, or a file.
        splits: how many splits of `data` are scored; 0: the one that the configuration names.
    """

    folder: Path
    config: Config
    checkpoint: str
    splits: int


@dataclass(frozen=True)
class Scored:
    """Scores of a run's models.

    Args:
        config: the run's, with the data that were scored on, and whether they are synthetic.
        round: of the checkpoint.
        history: scores on the run's own test sets; `None` for other datasets.
        measured: on the run's own test sets the open-set measures and re-ranked scores, on others all scores.
        thresholds: calibrated thresholds by model.
    """

    config: Config
    round: int
    history: History | None
    measured: list[TransferScores]
    thresholds: Mapping[str, Mapping[str, Any]]

    def rows(self) -> list[TransferScores]:
        """Returns everything that was measured, one row for each model and test set."""
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
    """Returns what the words of `fedreid-pl evaluate` ask for.

    Raises:
        FedReIDError: if they name no run, or a key is wrong.
    """
    options, rest = take(words, "run", "checkpoint", "splits", "rerank")
    if "run" not in options:
        raise FedReIDError("evaluate: give the run's folder, run=FOLDER")
    folder = Path(os.path.expanduser(options["run"]))
    if not (folder / "config.yaml").is_file():
        raise FedReIDError(f"run={folder}: holds no run (no config.yaml)")
    splits = options.get("splits", "")
    if "splits" in options and not (splits.isdecimal() and int(splits) > 1):
        raise FedReIDError(f"splits={splits}: give how many, 2 or more: splits=10 evaluates on the splits 0 to 9")
    if "rerank" in options:
        rest.append(f"report.rerank={str(yes_or_no('rerank', options['rerank'])).lower()}")
    config = own_places(load_config(folder / "config.yaml", rest), rest)
    if any(word.startswith(("data=", "data.datasets=")) for word in rest):  # other datasets: all of them are tested on
        config.data.leave_out = None
    return Asked(folder, config, options.get("checkpoint", "last"), int(splits or 0))


def score(asked: Asked, warn: Callable[[str], None]) -> Scored:
    """Scores the models of a run; nothing is written.

    Args:
        asked: see `asked_of`.
        warn: called with a line for whatever the user should know.

    Raises:
        FedReIDError: for data that cannot be read or do not fit the run, and a checkpoint that is not there.
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
    """The server's state in the checkpoint that was asked for."""
    from fedreid_pl.federation.server.checkpoint import read_checkpoint
    from fedreid_pl.reporting.summary_file import read_summary
    from fedreid_pl.resume import find_checkpoint

    path = asked.folder if asked.checkpoint == "last" else Path(os.path.expanduser(asked.checkpoint))
    if asked.checkpoint == "best":
        best = (read_summary(asked.folder) or {}).get("best_round")
        path = asked.folder / "checkpoints" / f"round-{best or 0:05d}.ckpt"
    return read_checkpoint(find_checkpoint(path), lineage(load_config(asked.folder / "config.yaml")))


def _on_its_own(asked: Asked, data: FederatedData, state: dict[str, Any], warn: Callable[[str], None]) -> Scored:
    """The scores on the test sets of the clients that the run trained, and of the datasets that it left out."""
    from fedreid_pl.experiment import evaluate
    from fedreid_pl.reporting.summary_file import read_splits

    if asked.splits:
        names = ", ".join(data.clients)
        raise FedReIDError(
            f"splits={asked.splits}: the run was trained on {names}; other splits test on persons it knows"
        )
    for name, before in read_splits(asked.folder).items():
        if name in data.digests and data.digests[name]["sha256"] != before.get("sha256"):
            warn(f"warning: {name} is not split as it was for training; persons may be tested on that it knows")
    context, inspector = evaluate(asked.config, data, asked.folder, state, inspected=True)
    measured = inspector.measured() if inspector is not None else []
    thresholds = inspector.thresholds if inspector is not None else {}
    return Scored(asked.config, state["round"], context.history, measured, thresholds)


def _elsewhere(asked: Asked, data: FederatedData, state: dict[str, Any]) -> Scored:
    """The scores on the test sets of datasets that the run never saw."""
    from fedreid_pl.reporting.inspection import read_thresholds
    from fedreid_pl.transfer import transfer

    measured = transfer(asked.config, data, asked.folder, state, range(asked.splits))
    return Scored(asked.config, state["round"], None, measured, read_thresholds(asked.folder, state["round"]))
