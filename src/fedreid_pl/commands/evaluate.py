"""`fedreid-pl evaluate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedreid_pl.commands.embed import yes_or_no
from fedreid_pl.commands.words import complain, first_process, own_places, take, title
from fedreid_pl.config import lineage, load_config
from fedreid_pl.config.launch import check_launch
from fedreid_pl.errors import FedReIDError

OPEN_SET = (
    "Is the person in the gallery at all? TPR: accepted pairs of one person, at a false positive rate of pairs. DIR: "
    "queries whose person is found and named, at a rate of absent persons that are reported as found (FAR)."
)


def evaluate(words: list[str]) -> int:
    """Scores the models of a run on its own test sets, or on those of a dataset that the run never saw."""
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
    check_launch(config)
    from fedreid_pl.data.scenarios import load_federated_data
    from fedreid_pl.data.synthetic import with_found
    from fedreid_pl.experiment import evaluate as score
    from fedreid_pl.federation.server.checkpoint import read_checkpoint
    from fedreid_pl.federation.server.history import TESTS, summarize
    from fedreid_pl.reporting.inspection import read_thresholds
    from fedreid_pl.reporting.summary_file import read_splits, read_summary
    from fedreid_pl.reporting.tables import open_set_table, result_table, transfer_table
    from fedreid_pl.reporting.terminal import columns, fill
    from fedreid_pl.resume import find_checkpoint
    from fedreid_pl.transfer import trains_on, transfer

    width = columns(sys.stdout)
    path = folder if (which := options.get("checkpoint", "last")) == "last" else Path(os.path.expanduser(which))
    if which == "best":
        best = (read_summary(folder) or {}).get("best_round")
        path = folder / "checkpoints" / f"round-{best or 0:05d}.ckpt"
    state = read_checkpoint(find_checkpoint(path), lineage(load_config(folder / "config.yaml")))
    data = load_federated_data(config.data)
    config = with_found(config, data)
    heading = title(config, state["round"])
    if trains_on(folder, data):
        if splits:
            names = ", ".join(data.clients)
            raise FedReIDError(
                f"splits={splits}: the run was trained on {names}; other splits test on persons it knows"
            )
        for name, before in read_splits(folder).items():
            if name in data.digests and data.digests[name]["sha256"] != before.get("sha256"):
                complain(f"warning: {name} is not split as it was for training; persons may be tested on that it knows")
        context, inspector = score(config, data, folder, state, inspected=True)
        behind = inspector.measured() if inspector is not None else []
        thresholds = inspector.thresholds if inspector is not None else {}
        summary = {"name": config.name, **{section: summarize(context.history, section) for section in TESTS}}
        table = result_table(summary, None, width, behind)
    else:
        heading = f"{title(load_config(folder / 'config.yaml'), state['round'])}, tested on {config.data.name}"
        heading += f", splits 0 to {int(splits) - 1}" if splits else ""
        behind = transfer(config, data, folder, state, range(int(splits or 0)))
        thresholds = read_thresholds(folder, state["round"])
        table = transfer_table(behind, width)
    if first_process():
        print(f"{fill(heading, width)}\n")
        print(table)
        if behind:
            print(f"\n{fill(OPEN_SET, width)}\n\n{open_set_table(behind, width)}\n")
            print(fill(_thresholds(thresholds), width))
    return 0


def _thresholds(thresholds: Mapping[str, Mapping[str, Any]]) -> str:
    """What the calibrated thresholds are, or how to get one."""
    if not thresholds:
        return "no threshold: data.val_ids=0.1 in training holds out validation persons, who calibrate one"
    lines = []
    for model, entry in thresholds.items():
        persons = f"validation persons of {entry['clients']} client{'s' * (entry['clients'] > 1)}"
        lines.append(
            f"threshold of the {model} model: cosine similarity {entry['value']:.4f} ({entry['far']:.0%} false alarms "
            f"in {entry['queries']} searches for {persons})"
        )
    return "; ".join(lines)
