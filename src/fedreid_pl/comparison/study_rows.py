"""Reads and writes the results of a study: a CSV with one row for each run, section and test set."""

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
"""Key of a finished run: experiment, seed, rounds and fingerprint of its configuration."""


@dataclass(frozen=True)
class Row:
    """Scores of one test set or of the mean over test sets, in percent, with the costs of the run.

    Attributes:
        section: `global` for the server's model, `local` for the models of the clients.
        test: name of the test set; `mean` for the mean over all test sets.
        images: number of training images of the client with this name; `None` for the mean or without such a client.
        rank1, mAP: scores of the last round.
        rank1_start, mAP_start: scores before training.
        rank1_best3: mean of the three best evaluations, selected on test data.
        fluctuation: mean absolute change of Rank-1 between evaluations in the second half of the run, in points.
        largest_drop: largest drop of Rank-1 between two evaluations, in points; for the mean, over all test sets.
        seconds: duration of the run with `threads` threads, on a machine that may do other work.
        bytes: bytes that clients sent and received.
        start: first digits of the SHA-256 of the pretrained weights if this program made them, otherwise empty.
        rank1_validated, mAP_validated: scores of the round that validation persons chose; `None` without them.
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
    rank1_validated: float | None = None
    mAP_validated: float | None = None

    @property
    def key(self) -> Key:
        """Returns the key of the row's run."""
        return self.experiment, self.seed, self.rounds, self.fingerprint


COLUMNS = tuple(field.name for field in fields(Row))
LATER = ("rank1_validated", "mAP_validated")
"""Last columns, which older tables do not have."""
TEXTS = ("experiment", "section", "test", "version", "start", "fingerprint")
WHOLE = ("seed", "rounds", "images", "bytes", "threads")


def run_key(run: PlannedRun) -> Key:
    """Returns the key of the rows that a planned run will have."""
    return run.experiment, run.seed, run.config.rounds, fingerprint(run.config)


def rows_of(result: Result, threads: int) -> list[Row]:
    """Returns the rows of a complete run: for each section the test sets in their order, then their mean."""
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
                    rank1_validated=result.validated(section, test, "rank1"),
                    mAP_validated=result.validated(section, test, "mAP"),
                )
            )
    return rows


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a CSV; an empty list if the file does not exist.

    Raises:
        FedReIDError: if the file cannot be read or has other columns.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise FedReIDError(f"results={path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) not in (COLUMNS, COLUMNS[: -len(LATER)]):
        raise FedReIDError(f"results={path}: is not a table of a study; give another file, results=FILE.csv")
    try:
        return [Row(**{name: _value(name, cell) for name, cell in line.items()}) for line in reader]
    except (TypeError, ValueError) as error:
        raise FedReIDError(f"results={path}, line {reader.line_num}: {printable(str(error))}") from error


def add_rows(path: Path, rows: Sequence[Row]) -> bool:
    """Appends the rows of one run to a CSV unless the CSV already has them; returns whether rows were added.

    The file is replaced as a whole, so that a reader never sees part of a run. Processes that write to files in the
    same folder wait for each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        before = read_rows(path)
        if rows[0].key in {row.key for row in before}:
            return False
        write_text(path, to_csv([*before, *rows]))
        return True


def to_csv(rows: Iterable[Row]) -> str:
    """Returns rows as CSV text with a header; numbers have four decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in astuple(row)] for row in rows)
    return text.getvalue()


def newest(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows without outdated runs.

    A run is outdated if a later run has the same experiment, seed and rounds, but another fingerprint. This happens
    after a new version has changed a default.
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
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process writes to the tables in a folder, and keeps others waiting."""
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)
