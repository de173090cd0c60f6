"""Formats the result of `fedreid-pl data check` as text."""

from __future__ import annotations

from collections.abc import Sequence

from fedreid_pl.data.catalogue import Counts
from fedreid_pl.data.check import DataCheck, DatasetCheck
from fedreid_pl.errors import visible
from fedreid_pl.reporting.tables import text_table

HEADER = ("train ids", "images", "query ids", "images", "gallery ids", "images")
SHOWN = 10  # unreadable files of one dataset
USES = {"client": "client", "unseen": "left out", "public": "public set", "none": "not used"}


def check_text(check: DataCheck) -> str:
    """Returns tables of counts and folders, how persons and cameras were found, notes, and problems to solve."""
    parts = [f"{check.root}{' (synthetic)' if check.synthetic else ''}", _counts(check), _places(check)]
    found = [f"{dataset.name}: {dataset.found}" for dataset in check.datasets if dataset.found]
    notes = [line for dataset in check.datasets for line in _notes(dataset)] + check.remarks
    wrong = [line for dataset in check.datasets for line in _wrong(dataset)]
    wrong += [check.problem] if check.problem else []
    parts += _list("How persons and cameras were found", found)
    parts += _list("Notes", list(dict.fromkeys(notes)))
    parts += _list("Problems, and what to do", wrong)
    return "\n\n".join(parts)


def _list(heading: str, lines: Sequence[str]) -> list[str]:
    return ["\n".join([f"{heading}:", *(f"  - {visible(line)}" for line in lines)])] if lines else []


def verdict(check: DataCheck) -> str:
    """Returns one line that states whether the datasets are usable."""
    needed = [dataset for dataset in check.datasets if dataset.use != "none"]
    if check.ok:
        images = sum(dataset.images for dataset in needed)
        which = "the dataset is" if len(needed) == 1 else f"all {len(needed)} datasets are"
        return f"data={check.data}: {which} present and readable, {images:,} images"
    if check.faulty:
        names = ", ".join(dataset.name for dataset in check.faulty)
        return f"data={check.data}: of {len(needed)} datasets, {len(check.faulty)} cannot be used: {names}"
    return f"data={check.data}: the datasets cannot be used together: {check.problem}"


def state(dataset: DatasetCheck) -> str:
    """Returns the state of a dataset in a few words."""
    if dataset.folder is None:
        return "missing"
    if dataset.problem:
        return "not readable"
    if dataset.unreadable:
        return f"{len(dataset.unreadable):,} {'left out' if dataset.skipped else 'unreadable'}"
    if dataset.differences:
        return "differs from Table 1"
    return "equals Table 1" if dataset.table1 else "ok"


def _counts(check: DataCheck) -> str:
    rows = []
    for dataset in check.datasets:
        cells = _cells(dataset.counts(), dataset.table1)
        rows.append([dataset.name, state(dataset), *cells])
    table = text_table(["dataset", "state", "cameras", *HEADER], rows, left=2)
    differs = any(dataset.table1 not in (None, dataset.counts()) for dataset in check.datasets)
    return table + ("\n\nIn brackets: the number in the paper's Table 1, if it differs." if differs else "")


def _cells(counts: Counts | None, table1: Counts | None) -> list[str]:
    if counts is None:
        return ["-"] * len(Counts._fields)
    theirs = table1 or counts
    return [
        f"{mine:,}" if mine == other else f"{mine:,} ({other:,})" for mine, other in zip(counts, theirs, strict=True)
    ]


def _places(check: DataCheck) -> str:
    rows = []
    for dataset in check.datasets:
        folder = "-"
        if dataset.folder is not None:
            below = dataset.folder.is_relative_to(check.root)
            folder = str(dataset.folder.relative_to(check.root) if below else dataset.folder)
        numbers = [f"{dataset.images:,}", f"{dataset.seconds:.1f}"]
        rows.append([dataset.name, USES[dataset.use], folder, dataset.layout or "-", *numbers])
    return text_table(["dataset", "use", "folder", "layout", "images read", "seconds"], rows, left=4)


def _named(dataset: DatasetCheck, text: str) -> str:
    return text if f"{dataset.name} " in text else f"{dataset.name}: {text}"


def _notes(dataset: DatasetCheck) -> list[str]:
    explained = [line for line in dataset.differences if line.endswith(")")]  # the table shows the others
    return [f"{dataset.name}: {line}" for line in (*explained, *dataset.notes)]


def _wrong(dataset: DatasetCheck) -> list[str]:
    lines = [_named(dataset, dataset.problem)] if dataset.problem else []
    lines += [f"{dataset.name}: {path}: {reason}" for path, reason in dataset.unreadable[:SHOWN]]
    if len(dataset.unreadable) > SHOWN:
        total = len(dataset.unreadable)
        lines.append(
            f"{dataset.name}: {total:,} images are unreadable, {SHOWN} of them are listed here; json=FILE lists all"
        )
    if dataset.unreadable:
        lines.append(
            f"{dataset.name}: replace or remove the unreadable files, or train without them (data.on_bad_image=skip)"
        )
    return lines
