"""A table of the user's own images, which may be anywhere below the dataset's folder.

    ROOT/samples.csv      path,identity,camera,split
                          shots/monday/0007.jpg,12,3,train

The four columns may be in any order and among others, with these or other usual headings in any case (`file`, `image`,
`id`, `pid`, `person`, `cam`, `camera_id`, `set`, ...: `data.readers.tables`). Values are separated by commas,
semicolons or tabs. The file is UTF-8, with or without a byte order mark, or UTF-16. `path` is relative to the table's
folder, or absolute. `identity` is a number from 0, `-1` or `junk`, or `distractor`. `camera` is a number from 0, or for
example `cam1`. If no line has a number, both may be names. `split` is train, query or gallery. An image is in the table
once, or once as a query and once in the gallery. A table with another file name is read if it is the only one with
these columns.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from fedreid_pl.data.readers.cuhk03_mat import is_cuhk03_mat
from fedreid_pl.data.readers.dgd import is_dgd
from fedreid_pl.data.readers.fedreid_processed import is_fedreid_processed
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, make_table
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.readers.named import CODES
from fedreid_pl.data.readers.table_rows import Line, read_lines
from fedreid_pl.data.readers.tables import Table, find_tables, read_table
from fedreid_pl.data.samples import SPLITS, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

COLUMNS = ("path", "identity", "camera", "split")
EXPECTS = f"samples.csv (or one other *.csv) with the columns {','.join(COLUMNS)}"
OTHERS = (is_market1501, is_msmt17, is_fedreid_processed, is_dgd, is_cuhk03_mat)


def is_csv_table(root: Path) -> bool:
    """Returns whether a `*.csv` in `root` has the four columns, and `root` has none of the more specific layouts."""
    return bool(find_tables(root, COLUMNS)) and not any(recognise(root) for recognise in OTHERS)


def read_csv_table(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns the samples of the table in `root`, sorted by split and path.

    Raises:
        FedReIDError: if there is no table or more than one, or if lines are invalid. The message explains the first
            invalid line and lists the others.
    """
    table = read_table(the_table(root, COLUMNS, EXPECTS), COLUMNS, EXPECTS)
    lines = read_lines(table, root)
    rows: list[Row] = [(line.path, line.identity, line.camera or 0, line.split or 0) for line in lines]
    if options.train_only:
        rows = [row for row in rows if row[3] == TRAIN]
    if not rows:
        raise FedReIDError(f"{table.file}: contains no {'training ' if options.train_only else ''}image")
    return make_table(name, root, rows, found=how_found(table, lines[0]))


def the_table(root: Path, needed: tuple[str, ...], expects: str) -> Path:
    """Returns the table in `root`: `samples.csv`, or the only one with the needed columns.

    Raises:
        FedReIDError: if there is none, or more than one.
    """
    if os.path.isfile(root / "samples.csv"):
        return root / "samples.csv"
    tables = find_tables(root, needed)
    if len(tables) != 1:
        found = f"contains the tables {', '.join(tables)}; rename one to" if tables else "contains no table; expected"
        raise FedReIDError(f"{root}: {found} {'samples.csv' if tables else expects}")
    return root / tables[0]


def how_found(table: Table, line: Line) -> str:
    """Returns the columns of person and camera in a table, with one line as an example."""
    named = {"person": table.columns["identity"], "camera": table.columns.get("camera")}
    said = ", ".join(f"{meaning} from column {heading}" for meaning, heading in named.items() if heading)
    camera = "no camera" if line.camera is None else f"camera {line.camera}"
    return f"{said} of {table.file.name}; line {line.number}: {line.path}: person {line.identity}, {camera}"


def to_csv(table: SampleTable) -> str:
    """Returns the table as the text of a `samples.csv`; reading it gives the same samples."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    codes = {number: code for code, number in CODES.items()}
    names = {number: name for name, number in SPLITS.items()}
    columns = (column.tolist() for column in (table.identities, table.cameras, table.splits))
    for path, identity, camera, split in zip(table.paths, *columns, strict=True):
        writer.writerow([path, codes.get(identity, identity), camera, names[split]])
    return text.getvalue()


LAYOUT = Layout(
    "csv_table",
    "a CSV table of images",
    EXPECTS,
    is_csv_table,
    read_csv_table,
    found="person and camera from the table",
)
