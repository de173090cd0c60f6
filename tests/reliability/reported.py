"""Shared code of the scripts over altered inputs: parses their words, prints the table, saves the report."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def reported(
    make: Callable[[int, int, Path], dict[str, Any]], table: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """Makes the report, prints its table, and saves both if the words name files.

    Words: count=10000 seed=0 [json=FILE] [table=FILE].

    Args:
        make: a function of the number of cases, the seed and an empty folder that returns the report.
        table: a function that returns a report's table as Markdown.
    """
    options = {"count": "10000", "seed": "0", "json": "", "table": ""}
    options |= dict(word.split("=", 1) for word in sys.argv[1:])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = make(int(options["count"]), int(options["seed"]), Path(name))
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(report, indent=1))
    if options["table"]:
        Path(options["table"]).write_text(table(report) + "\n")
    print(table(report))
    return report
