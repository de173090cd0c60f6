"""The rows that a study keeps of its runs: one line per run, section and test set in a CSV."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from fedreid_pl import __version__
from fedreid_pl.comparison.plan import PlannedRun
from fedreid_pl.comparison.results import Result
from fedreid_pl.config import fingerprint
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.storage import write_text

MEAN = "mean"
Key = tuple[str, int, int, str]
"""Experiment, seed, rounds and fingerprint of the configuration: what a finished run is known by."""


@dataclass(frozen=True)
class Row:
    """Scores of one test set, or of their mean, in percent, and what the run cost.

    Attributes:
        section: `global`, the server's model, or `local`, the models of the clients.
        test: name of the test set; `mean` is the mean over all of them.
        images: training images of the client of that name; `None` for the mean and where there is no such client.
        rank1: of the last round, as `mAP`. `rank1_start`: before training. `rank1_best3`: mean of the three best
            evaluations, selected on test data.
        fluctuation: mean absolute change of Rank-1 between evaluations of the second half, in points.
        largest_drop: the most points that Rank-1 lost between two evaluations; in the mean, of any test set.
        seconds: of the run, with `threads` threads, beside other work.
        bytes: that clients sent and received.
        start: first digits of the SHA-256 of the pretrained weights, where this program made them.
    """

    experiment: str
    seed: int
    rounds: int
    section: str
    test: str
    images: int | None
    rank1: float | None
    mAP: float | None
    rank1_start: float | None
    mAP_start: float | None
    rank1_best3: float | None
    fluctuation: float | None
    largest_drop: float | None
    seconds: float
    bytes: int
    threads: int
    version: str
    start: str
    fingerprint: str

    @property
    def key(self) -> Key:
        """What the run is known by."""
        return self.experiment, self.seed, self.rounds, self.fingerprint


COLUMNS = tuple(field.name for field in fields(Row))
TEXTS = ("experiment", "section", "test", "version", "start", "fingerprint")
WHOLE = ("seed", "rounds", "images", "bytes", "threads")


def run_key(run: PlannedRun) -> Key:
    """Returns the key of the rows that a planned run will have."""
    return run.experiment, run.seed, run.config.rounds, fingerprint(run.config)


def rows_of(result: Result, threads: int) -> list[Row]:
    """Returns the rows of a complete run: of every section the test sets in their order, then their mean."""
    rows = []
    costs = result.costs
    for section in ("global", "local"):
        tests = result.tests(section)
        for test in (*tests, MEAN) if tests else ():
            mean = test == MEAN

            def score(metric: str, statistic: str, section: str = section, test: str = test) -> float | None:
                return result.score(section, test, metric, statistic)

            moved = result.fluctuation(section)
            rows.append(
                Row(
                    *(result.run.experiment, result.run.seed, result.rounds, section, test),
                    images=None if mean else result.clients.get(test),
                    rank1=score("rank1", "last"),
                    mAP=score("mAP", "last"),
                    rank1_start=score("rank1", "untrained"),
                    mAP_start=score("mAP", "untrained"),
                    rank1_best3=score("rank1", "best3"),
                    fluctuation=moved if mean or moved is None else score("rank1", "fluctuation"),
                    largest_drop=result.largest_drop(section) if mean else result.drop(section, test),
                    seconds=costs.seconds,
                    bytes=costs.bytes_down + costs.bytes_up,
                    threads=threads,
                    version=__version__,
                    start=(result.start or "")[:12],
                    fingerprint=fingerprint(result.run.config),
                )
            )
    return rows


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a CSV; none if there is no such file.

    Raises:
        FedReIDError: if it cannot be read or has other columns.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise FedReIDError(f"results={path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise FedReIDError(f"results={path}: is no table of a study; give another file, results=FILE.csv")
    try:
        return [Row(**{name: _value(name, cell) for name, cell in line.items()}) for line in reader]
    except (TypeError, ValueError) as error:
        raise FedReIDError(f"results={path}, line {reader.line_num}: {printable(str(error))}") from error


def add_rows(path: Path, rows: Sequence[Row]) -> bool:
    """Adds the rows of one run at the end of a CSV, unless they are there; returns whether they were added.

    The file is replaced as a whole, so that a reader never finds a part of a run. Processes that write to files of the
    same folder wait for each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        before = read_rows(path)
        if rows[0].key in {row.key for row in before}:
            return False
        write_text(path, to_csv([*before, *rows]))
        return True


def to_csv(rows: Iterable[Row]) -> str:
    """Returns the CSV with its header; numbers with four decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in astuple(row)] for row in rows)
    return text.getvalue()


def newest(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows without those of runs that were repeated later with other settings.

    A run is repeated where a new version changed a default: same experiment, seed and rounds, other fingerprint.
    """
    every = list(rows)
    last = {row.key[:3]: row.fingerprint for row in every}
    return [row for row in every if last[row.key[:3]] == row.fingerprint]


def _value(name: str, text: str | None) -> Any:
    if text is None:
        raise ValueError(f"{name}: the line ends before it")
    if name in TEXTS:
        return text
    return None if not text else int(text) if name in WHOLE else float(text)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4f}" if type(value) is float else str(value)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)
