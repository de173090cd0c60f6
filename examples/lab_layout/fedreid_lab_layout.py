"""The layout of a laboratory: `lab.txt` lists `split person camera path`, one picture per line.

lab.txt
train 7 0 frames/000123.png
query 12 1 frames/000456.png
gallery 12 0 frames/000789.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedreid_pl import FedReIDError, Layout, ReadOptions, SampleTable

SPLITS = ("train", "query", "gallery")


def is_lab(folder: Path) -> bool:
    """Returns whether a folder has this layout."""
    return (folder / "lab.txt").is_file()


def read_lab(folder: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns the pictures that `lab.txt` lists.

    Raises:
        FedReIDError: for a line that cannot be read.
    """
    rows: list[tuple[str, int, int, int]] = []
    for number, line in enumerate((folder / "lab.txt").read_text(encoding="utf-8").splitlines(), 1):
        try:
            split, person, camera, path = line.split(maxsplit=3)
            row = (path, int(person), int(camera), SPLITS.index(split))
        except ValueError as error:
            raise FedReIDError(
                f"{folder / 'lab.txt'}: line {number} is '{line}'; expected SPLIT PERSON CAMERA PATH with a split of "
                f"{', '.join(SPLITS)}"
            ) from error
        if row[3] == 0 or not options.train_only:
            rows.append(row)
    paths, persons, cameras, splits = zip(*sorted(rows), strict=True) if rows else ((), (), (), ())
    return SampleTable(
        name,
        folder,
        tuple(paths),
        np.array(persons, dtype=np.int64),
        np.array(cameras, dtype=np.int64),
        np.array(splits, dtype=np.uint8),
    )


LAYOUT = Layout(
    key="lab",
    title="Our laboratory's list",
    expects="lab.txt with lines SPLIT PERSON CAMERA PATH",
    recognise=is_lab,
    read=read_lab,
)
