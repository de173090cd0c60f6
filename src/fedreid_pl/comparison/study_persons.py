"""Reads and writes the scores of test persons of a study: a compressed CSV beside the rows of the study."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from fedreid_pl.comparison.persons import Persons
from fedreid_pl.comparison.results import Result
from fedreid_pl.comparison.study_rows import Key, alone, run_key
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.storage import write_bytes

COLUMNS = ("experiment", "seed", "rounds", "fingerprint", "section", "test", *Persons._fields)
DIGITS = 4  # decimals of a score
Place = tuple[Key, str, str]
"""A run, a section and a test set."""


def persons_path(results: Path) -> Path:
    """Returns the path of the persons' scores for the path of a study's rows.

    >>> persons_path(Path("results/study.csv")).as_posix()
    'results/study_persons.csv.gz'
    """
    return results.with_name(f"{results.stem}_persons.csv.gz")


def add_persons(path: Path, result: Result) -> None:
    """Adds the scores of persons of one run to a CSV, unless the CSV already has the run.

    A cell of `queries`, `rank1` or `mAP` has one number for each person, separated by spaces; scores have four
    decimals. The file is replaced as a whole. Equal content gives equal bytes.

    Raises:
        FedReIDError: if the file cannot be read or has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        before, own_key = read_study_persons(path), run_key(result.run)
        if any(key == own_key for key, _, _ in before):
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        own = {
            (own_key, section, test): persons
            for section, tests in result.persons.items()
            for test, persons in tests.items()
        }
        for (key, section, test), persons in {**before, **own}.items():
            columns = (" ".join(f"{round(value, DIGITS):g}" for value in column) for column in persons)
            writer.writerow([*key, section, test, *columns])
        write_bytes(path, gzip.compress(text.getvalue().encode(), mtime=0))


def read_study_persons(path: Path) -> dict[Place, Persons]:
    """Returns the scores of persons by run, section and test set; an empty dict if the file does not exist.

    Raises:
        FedReIDError: if the file cannot be read or has other columns.
    """
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FedReIDError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    lines = csv.reader(io.StringIO(text))
    if tuple(next(lines, ())) != COLUMNS:
        raise FedReIDError(f"{path}: has other columns than the scores of persons of a study; move the file away")
    try:
        return dict(_parsed(lines))
    except ValueError as error:
        raise FedReIDError(f"{path}, line {lines.line_num}: {printable(str(error))}") from error


def _parsed(lines: Iterator[list[str]]) -> Iterator[tuple[Place, Persons]]:
    for cells in lines:
        experiment, seed, rounds, mark, section, test, *columns = cells
        queries, *scores = (column.split() for column in columns)
        persons = Persons(tuple(map(int, queries)), *(tuple(map(float, column)) for column in scores))
        if len({*map(len, persons)}) > 1:
            raise ValueError("the columns queries, rank1 and mAP have different numbers of persons")
        yield ((experiment, int(seed), int(rounds), mark), section, test), persons
