"""What is said when a run begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fedreid_pl.config import Config, departures
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.functional.schedule import frozen_share, run_factors
from fedreid_pl.reporting.tables import text_table
from fedreid_pl.reporting.terminal import columns, fill, say


def introduce(config: Config, data: FederatedData, folder: Path) -> None:
    """Says what is trained and where, what is odd about the data, and where the run departs from the paper."""
    say(_introduction(config, data, folder))
    for name, bad in data.left_out.items():
        say(f"{name}: {len(bad):,} unreadable images are left out, such as {bad[0].path} ({bad[0].reason})")
    for table in data.datasets:
        if table.inventory is not None and (counted := table.inventory.counted()):
            say(f"{table.name}: skipped on purpose: {counted}")
    for remark in data.remarks:
        say(f"warning: {remark}")
    if data.unvalidated:
        say(f"no validation set, for want of persons seen by two cameras: {', '.join(data.unvalidated)}")
    if data.unseen:
        say(f"left out, to be tested on as unseen: {', '.join(data.unseen)}")
    share = frozen_share(run_factors(config.optim, config.rounds, config.epochs_per_round))
    if share > 0.25:
        say(
            f"warning: optim.schedule={config.optim.schedule}: the learning rates of {share:.0%} of the rounds are "
            "below 1e-3 of the configured ones, where training hardly moves weights; optim.schedule=constant avoids it"
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
    images = sum(len(client.train) for client in data.clients.values())
    kind = ", synthetic data" if config.data.synthetic else ""
    return (
        f"{config.name}: {len(data.clients)} clients, {images} training images{kind}, {config.rounds} rounds, "
        f"seed {config.seed}, folder {folder}"
    )


def _say_departures(rows: Sequence[tuple[str, ...]]) -> None:
    """A table, or sentences where that is too wide."""
    width = columns(sys.stderr)
    text = text_table(["where the run follows the published code", "is", "paper", "meaning"], rows, left=4)
    if width is not None and max(map(len, text.splitlines())) > width:
        lines = [f"{name} is {value} (paper: {paper}): {meaning}" for name, value, paper, meaning in rows]
        text = "\n".join(fill(line, width) for line in ["the run follows the published code:", *lines])
    print(text, file=sys.stderr, flush=True)
