"""`fedreid-pl evaluate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedreid_pl.commands.embed import yes_or_no
from fedreid_pl.commands.words import complain, first_process, own_places, take, title
from fedreid_pl.config import Config, lineage, load_config
from fedreid_pl.config.launch import check_launch
from fedreid_pl.errors import FedReIDError

if TYPE_CHECKING:
    from fedreid_pl.data.federated import FederatedData

OPEN_SET = (
    "Is the person in the gallery at all? TPR: accepted pairs of one person, at a false positive rate of pairs. DIR: "
    "queries whose person is found and named, at a rate of absent persons that are reported as found (FAR)."
)


def evaluate(words: list[str]) -> int:
    """Scores the models of a run on its own test sets, or on those of a dataset that the run never saw."""
    asked = _asked(words)
    check_launch(asked.config)
    from fedreid_pl.data.scenarios import load_federated_data
    from fedreid_pl.data.synthetic import with_found
    from fedreid_pl.reporting.tables import open_set_table
    from fedreid_pl.reporting.terminal import columns, fill
    from fedreid_pl.transfer import trains_on

    width = columns(sys.stdout)
    state = _state(asked)
    data = load_federated_data(asked.config.data)
    asked = replace(asked, config=with_found(asked.config, data))
    score = _on_its_own if trains_on(asked.folder, data) else _elsewhere
    heading, table, behind, thresholds = score(asked, data, state, width)
    if first_process():
        print(f"{fill(heading, width)}\n")
        print(table)
        if behind:
            print(f"\n{fill(OPEN_SET, width)}\n\n{open_set_table(behind, width)}\n")
            print(fill(_thresholds(thresholds), width))
    return 0


@dataclass(frozen=True)
class _Asked:
    """What the command's words ask for: the run, its configuration, which checkpoint, and how many splits."""

    folder: Path
    config: Config
    checkpoint: str
    splits: int


def _asked(words: list[str]) -> _Asked:
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
    return _Asked(folder, config, options.get("checkpoint", "last"), int(splits or 0))


def _state(asked: _Asked) -> dict[str, Any]:
    """The server's state in the checkpoint that was asked for."""
    from fedreid_pl.federation.server.checkpoint import read_checkpoint
    from fedreid_pl.reporting.summary_file import read_summary
    from fedreid_pl.resume import find_checkpoint

    path = asked.folder if asked.checkpoint == "last" else Path(os.path.expanduser(asked.checkpoint))
    if asked.checkpoint == "best":
        best = (read_summary(asked.folder) or {}).get("best_round")
        path = asked.folder / "checkpoints" / f"round-{best or 0:05d}.ckpt"
    return read_checkpoint(find_checkpoint(path), lineage(load_config(asked.folder / "config.yaml")))


_Scored = tuple[str, str, list[Any], Mapping[str, Mapping[str, Any]]]
"""Heading, table, what was measured behind the scores, thresholds by model."""


def _on_its_own(asked: _Asked, data: FederatedData, state: dict[str, Any], width: int | None) -> _Scored:
    """The scores on the test sets of the clients that the run trained, and of the datasets that it left out."""
    from fedreid_pl.experiment import evaluate as score
    from fedreid_pl.federation.server.history import TESTS, UNSEEN, summarize
    from fedreid_pl.reporting import tables
    from fedreid_pl.reporting.summary_file import read_splits
    from fedreid_pl.reporting.tables import result_table, unseen_table
    from fedreid_pl.reporting.terminal import fill

    if asked.splits:
        names = ", ".join(data.clients)
        raise FedReIDError(
            f"splits={asked.splits}: the run was trained on {names}; other splits test on persons it knows"
        )
    for name, before in read_splits(asked.folder).items():
        if name in data.digests and data.digests[name]["sha256"] != before.get("sha256"):
            complain(f"warning: {name} is not split as it was for training; persons may be tested on that it knows")
    context, inspector = score(asked.config, data, asked.folder, state, inspected=True)
    behind = inspector.measured() if inspector is not None else []
    thresholds = inspector.thresholds if inspector is not None else {}
    shown = (*TESTS, *UNSEEN)
    summary = {"name": asked.config.name, **{section: summarize(context.history, section) for section in shown}}
    table = result_table(summary, None, width, behind)
    if unseen := unseen_table(summary, width):
        table += f"\n\n{unseen}\n\n{fill(tables.UNSEEN, width)}"
    return title(asked.config, state["round"]), table, behind, thresholds


def _elsewhere(asked: _Asked, data: FederatedData, state: dict[str, Any], width: int | None) -> _Scored:
    """The scores on the test sets of datasets that the run never saw."""
    from fedreid_pl.reporting.inspection import read_thresholds
    from fedreid_pl.reporting.tables import transfer_table
    from fedreid_pl.transfer import transfer

    heading = f"{title(load_config(asked.folder / 'config.yaml'), state['round'])}, tested on {asked.config.data.name}"
    heading += f", splits 0 to {asked.splits - 1}" if asked.splits else ""
    behind = transfer(asked.config, data, asked.folder, state, range(asked.splits))
    return heading, transfer_table(behind, width), behind, read_thresholds(asked.folder, state["round"])


def _thresholds(thresholds: Mapping[str, Mapping[str, Any]]) -> str:
    """What the calibrated thresholds are, or how to get one."""
    if not thresholds:
        return "no threshold: data.val_ids=0.1 in training holds out validation persons, who calibrate one"
    lines = []
    for model, entry in thresholds.items():
        persons = f"validation persons of {entry['clients']} client{'s' * (entry['clients'] > 1)}"
        lines.append(
            f"threshold of the {model} model: cosine similarity {entry['value']:.4f} ({entry['far']:.0%} false alarms "
            f"in {entry['queries']} searches for {persons}, at most {entry['persons']} in a gallery)"
        )
    return "; ".join(lines)
