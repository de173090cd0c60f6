"""Prints the introduction of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fedreid_pl.config import Config, departures
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.layouts import find_layouts
from fedreid_pl.errors import counted
from fedreid_pl.functional.schedule import frozen_share, run_factors
from fedreid_pl.reporting.tables import text_table
from fedreid_pl.reporting.terminal import columns, fill, say


def introduce(config: Config, data: FederatedData, folder: Path) -> None:
    """Prints what the run trains and where, remarks on the data, and settings that differ from the paper."""
    say(_introduction(config, data, folder))
    for name, bad in data.left_out.items():
        say(f"{name}: {len(bad):,} unreadable images are skipped, such as {bad[0].path} ({bad[0].reason})")
    for table in data.datasets:
        if table.inventory is not None and (counted := table.inventory.counted()):
            say(f"{table.name}: files skipped on purpose: {counted}")
    layouts = find_layouts()
    drawn = [table for table in data.datasets if table.layout in layouts and layouts[table.layout].drawn]
    notes = tuple(note for table in drawn for note in table.remarks)  # a drawn split is described, nothing is wrong
    for remark in data.remarks:
        say(remark if notes and remark.endswith(notes) else f"warning: {remark}")
    if data.unvalidated:
        say(
            "these clients have no validation set, because no training persons are left that two cameras show: "
            f"{', '.join(data.unvalidated)}"
        )
    if data.unseen:
        say(f"data.leave_out: no client trains on {', '.join(data.unseen)}; the models are tested there")
    share = frozen_share(run_factors(config.optim, config.rounds, config.epochs_per_round))
    if share > 0.25:
        say(
            f"warning: optim.schedule={config.optim.schedule}: in {share:.0%} of the rounds the learning rates are "
            "below a thousandth of the configured values, so training hardly changes the weights; set "
            "optim.schedule=constant to avoid this"
        )
    idle = [name for name, client in data.clients.items() if len(client.train) < config.batch_size]
    if idle and config.data.incomplete_batches == "skip":
        say(
            f"warning: data.incomplete_batches=skip: clients with fewer than batch_size={config.batch_size} training "
            f"images never train: {', '.join(idle)}"
        )
    if rows := departures(config):
        _say_departures(rows)


def _introduction(config: Config, data: FederatedData, folder: Path) -> str:
    """Returns one line: experiment, number of clients, images and rounds, seed, folder."""
    images = sum(len(client.train) for client in data.clients.values())
    return introduction_line(config, counted(len(data.clients), "client"), images, folder)


def introduction_line(config: Config, parties: str, images: int, folder: Path) -> str:
    """Returns the first line of a run: experiment, clients or silos, training images, rounds, seed and folder."""
    kind = ", synthetic data" if config.data.synthetic else ""
    return (
        f"{config.name}: {parties}, {counted(images, 'training image')}{kind}, {counted(config.rounds, 'round')}, "
        f"seed {config.seed}, folder {folder}"
    )


def _say_departures(rows: Sequence[tuple[str, ...]]) -> None:
    """Prints the departures from the paper as a table, or as sentences if the terminal is too narrow."""
    width = columns(sys.stderr)
    text = text_table(["setting of the published code", "value", "paper", "meaning"], rows, left=4)
    if width is not None and max(map(len, text.splitlines())) > width:
        lines = [f"{name}={value} (paper: {paper}): {meaning}" for name, value, paper, meaning in rows]
        heading = "settings in which the run follows the published code instead of the paper:"
        text = "\n".join(fill(line, width) for line in [heading, *lines])
    print(text, file=sys.stderr, flush=True)
