"""The file of a gallery: an SQLite database in which every change is a transaction."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError

APPLICATION = 0x46524744  # identifies a gallery in the header of the file
FORMAT = 1
PATIENCE = 30.0  # seconds to wait for a change by another process
LARGEST = 1 << 14  # largest number of values of a feature

T = TypeVar("T")


class Row(NamedTuple):
    """Person, camera and source of a feature.

    Args:
        number: number of the row; numbers increase and are never reused.
        person, camera, source: names given by the caller; empty if unknown.
        expires_at: time in seconds since 1970 at which the row expires; `None`: never.
    """

    number: int
    person: str
    camera: str
    source: str
    expires_at: float | None = None


class GalleryFile:
    """Rows and features in a file, or in memory.

    Deleted rows are overwritten with zeros (`secure_delete`). Changes use SQLite's rollback journal, so that a single
    file contains all data while no process is writing.

    Args:
        path: the file, created if it is missing; `None` keeps the rows in memory.

    Raises:
        FedReIDError: if the file is not a gallery, has a newer format, or cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path or ":memory:", timeout=PATIENCE, isolation_level=None)
            self._prepare()
        except OSError as error:
            raise FedReIDError(f"{path}: cannot be created ({error.strerror})") from error
        except sqlite3.Error as error:
            raise FedReIDError(f"{path}: is not a gallery, or cannot be opened ({error})") from error

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def header(self) -> dict[str, Any]:
        """Returns the header of the model of the rows; empty if there is none."""
        (text,) = self._database.execute("SELECT value FROM about WHERE name = 'header'").fetchone()
        return json.loads(text)

    def check_header(self, header: dict[str, Any] | None) -> None:
        """Raises `FedReIDError` if both the gallery and `header` name a model, and they are not the same."""
        own = self.header()
        if not own or not header or own == header:
            return
        for part in ("model", "preprocessing", "flip", "dim"):
            if own.get(part) != header.get(part):
                raise FedReIDError(
                    f"{self.path or 'the gallery'}: its rows were made with another {part} ({_short(own.get(part))}) "
                    f"than these features ({_short(header.get(part))}); build the gallery again with this model"
                )

    def state(self) -> tuple[int, ...]:
        """Returns a value that changes with every change of the rows, by this process or another one."""
        (version,) = self._database.execute("PRAGMA data_version").fetchone()
        return version, self._database.total_changes

    def read(self) -> tuple[list[Row], Tensor]:
        """Returns all rows in the order of their addition, and their features `[N, D]` float32."""
        rows: list[Row] = []
        joined, sizes = bytearray(), set[int]()

        def take() -> None:
            for *values, feature in self._database.execute(
                "SELECT number, person, camera, source, expires_at, feature FROM rows ORDER BY number"
            ):
                rows.append(Row(*values))
                sizes.add(len(feature))
                joined.extend(feature)  # row by row, because a million features need gigabytes

        self._tried(take)
        if len(sizes) > 1:
            raise FedReIDError(f"{self.path}: is damaged (features of different sizes)")
        if not rows:
            return [], torch.empty(0, 0)
        return rows, torch.frombuffer(joined, dtype=torch.float32).view(len(rows), -1)

    def add(
        self, rows: Sequence[Row], features: Tensor, expires_at: float | None, header: dict[str, Any] | None
    ) -> None:
        """Adds rows with features `[N, D]` float32, all or none.

        Raises:
            FedReIDError: if the rows have another model or size than the existing rows.
        """
        if features.shape[1] > LARGEST:
            raise FedReIDError(f"a feature of {features.shape[1]} values is larger than a gallery takes ({LARGEST})")
        values = np.ascontiguousarray(features.numpy(), dtype="<f4")
        entries = [
            (row.person, row.camera, row.source, expires_at, value.tobytes())
            for row, value in zip(rows, values, strict=True)
        ]

        def change() -> None:
            held = self._database.execute("SELECT length(feature) FROM rows LIMIT 1").fetchone()
            if held and entries and held[0] != len(entries[0][4]):
                raise FedReIDError(
                    f"{self.path or 'the gallery'}: its features have {held[0] // 4} values, these have "
                    f"{features.shape[1]}; use the model that made the gallery"
                )
            if held:
                self.check_header(header)
            elif header:
                self._database.execute("UPDATE about SET value = ? WHERE name = 'header'", (json.dumps(header),))
            self._database.executemany(
                "INSERT INTO rows (person, camera, source, expires_at, feature) VALUES (?, ?, ?, ?, ?)", entries
            )

        self._changed(change)

    def remove(self, person: str | None, source: str | None) -> int:
        """Deletes the rows of a person and a source (of either, if one is `None`) and returns their number."""
        wanted = "(?1 IS NULL OR person = ?1) AND (?2 IS NULL OR source = ?2)"
        return self._changed(
            lambda: self._database.execute(f"DELETE FROM rows WHERE {wanted}", (person, source)).rowcount
        )

    def purge(self, now: float) -> int:
        """Deletes the rows that expire up to `now`, in seconds since 1970, and returns their number."""
        return self._changed(lambda: self._database.execute("DELETE FROM rows WHERE expires_at <= ?", (now,)).rowcount)

    def save(self, path: Path) -> Path:
        """Writes a copy to a file in one atomic step."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                temporary.unlink()
            target = sqlite3.connect(temporary)
            try:
                self._database.backup(target)
            finally:
                target.close()
            os.replace(temporary, path)
        except (OSError, sqlite3.Error) as error:
            raise FedReIDError(f"{path}: cannot be written ({error})") from error
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        return path

    def _prepare(self) -> None:
        execute = self._database.execute
        execute("PRAGMA secure_delete = ON")
        (application,) = execute("PRAGMA application_id").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == APPLICATION and version > FORMAT:
            raise FedReIDError(f"{self.path}: is of gallery format {version}, this fedreid_pl reads up to {FORMAT}")
        if application != APPLICATION and tables:
            raise FedReIDError(f"{self.path}: is a database of another program, not a gallery")
        if application == APPLICATION:
            return

        def create() -> None:
            execute(
                "CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY AUTOINCREMENT, person TEXT NOT NULL, "
                "camera TEXT NOT NULL, source TEXT NOT NULL, expires_at REAL, feature BLOB NOT NULL)"
            )
            execute("CREATE INDEX IF NOT EXISTS by_person ON rows (person)")
            execute("CREATE INDEX IF NOT EXISTS by_source ON rows (source)")
            execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            execute("INSERT OR IGNORE INTO about VALUES ('header', '{}')")
            execute(f"PRAGMA application_id = {APPLICATION}")
            execute(f"PRAGMA user_version = {FORMAT}")

        self._changed(create)

    def _changed(self, change: Callable[[], T]) -> T:
        """Runs `change` in one transaction, and rolls back after an exception."""

        def run() -> T:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                result = change()
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            return result

        return self._tried(run)

    def _tried(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            raise FedReIDError(f"{self.path or 'the gallery'}: cannot be read or changed ({error})") from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 160 else f"{text[:157]}..."
