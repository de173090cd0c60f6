"""Lists the files of a finished run, and the commands that show more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fedreid_pl.config import Config
from fedreid_pl.reporting.terminal import width_of


def where_next(config: Config, folder: Path, url: str | None = None) -> list[tuple[str, str]]:
    """Returns pairs of a name and a file, address or command; only things that exist.

    Args:
        config: configuration of the run.
        folder: folder of the run.
        url: page of the run on a wandb server, if it was sent there.
    """
    quoted = shlex.quote(str(folder))
    rows = [("curves", f"{folder / 'metrics.csv'}"), ("all numbers", f"{folder / 'summary.json'}")]
    if (folder / "report.html").exists():
        rows.append(("report", f"{folder / 'report.html'}"))
    if config.logger == "tensorboard" and (folder / "tensorboard").exists():
        rows.append(("tensorboard", f"tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}"))
    if config.logger == "wandb":
        offline = sorted(folder.glob("wandb/offline-run-*"))
        if url:
            rows.append(("wandb", url))
        elif offline:
            rows.append(("upload", f"wandb sync {shlex.quote(str(offline[-1]))}"))
        if url or offline:
            rows.append(("dashboard", f"fedreid-pl dashboard run={quoted}"))
    return rows


def where_next_text(rows: Sequence[tuple[str, str]], width: int | None = None) -> str:
    """Returns one line per pair, or two lines if the terminal is too narrow; paths and commands are never broken.

    >>> print(where_next_text([("report", "runs/a/report.html"), ("upload", "wandb sync runs/a")]))
    report  runs/a/report.html
    upload  wandb sync runs/a
    >>> print(where_next_text([("report", "runs/a/report.html")], 20))
    report
      runs/a/report.html
    """
    label = max((width_of(name) for name, _ in rows), default=0)
    lines = [f"{name:<{label}}  {text}" for name, text in rows]
    if width is not None and any(width_of(line) > width for line in lines):
        lines = [part for name, text in rows for part in (name, f"  {text}")]
    return "\n".join(lines)
