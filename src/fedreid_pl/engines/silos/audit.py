"""A silo's audit log: one line for every experiment, job and answer, chained by hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fedreid_pl.engines.silos.payload import canonical
from fedreid_pl.errors import FedReIDError

NAME = "audit.jsonl"
BEGINNING = "0" * 64


class AuditLog:
    """Appends lines to `audit.jsonl`.

    Each line contains the hash of the previous line. This reveals any change, removal or insertion of a line. To detect
    lines that were removed at the end, compare the last hash with a hash that you have noted earlier.

    After a kill or a power cut, the next start removes a half-written last line and logs this as `recovered`.

    Args:
        folder: folder of the silo.

    Attributes:
        listener: called with event and values of every line that was written.

    Raises:
        FedReIDError: if a line of the log was changed; the message names the line.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.listener: Callable[[str, Mapping[str, Any]], None] | None = None
        torn = _cut_torn_line(self.path)
        self.lines, self.last = check_log(self.path)
        if torn:
            self.add("recovered", bytes_cut=torn)

    def add(self, event: str, **values: Any) -> str:
        """Writes a line to the disk and returns its hash.

        Args:
            event: name of the event.
            values: plain values that describe the event.
        """
        line = {"event": event, "number": self.lines + 1, "time": _now(), **values, "before": self.last}
        digest = hashlib.sha256(canonical(line).encode()).hexdigest()
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(canonical({**line, "hash": digest}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FedReIDError(
                f"{self.path}: cannot be written ({error.strerror}); the silo sends no answer without the log"
            ) from error
        self.lines, self.last = self.lines + 1, digest
        if self.listener is not None:
            self.listener(event, values)
        return digest


def check_log(path: Path) -> tuple[int, str]:
    """Returns the number of lines of a log and the last hash.

    Raises:
        FedReIDError: if a line was changed; the message names the first such line.
    """
    number, last = 0, BEGINNING
    try:
        with open(path, encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                last = _hash_of(text, number, last)
    except FileNotFoundError:
        pass
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FedReIDError(
            f"{path}, line {number or 1}: was altered; keep the file as evidence and move it elsewhere"
        ) from error
    return number, last


def contains(path: Path, event: str) -> bool:
    """Returns whether a log has a line of this event; `False` if there is no log. The lines are not verified."""
    try:
        with open(path, encoding="utf-8") as file:
            return any(f'"event":"{event}"' in line for line in file)
    except FileNotFoundError:
        return False


def _hash_of(text: str, number: int, before: str) -> str:
    line = json.loads(text)
    digest = line.pop("hash")
    if line["before"] != before or line["number"] != number or canonical({**line, "hash": digest}) + "\n" != text:
        raise ValueError("chain")
    if hashlib.sha256(canonical(line).encode()).hexdigest() != digest:
        raise ValueError("hash")
    return str(digest)


def _cut_torn_line(path: Path) -> int:
    """Removes everything after the last line break; returns the number of removed bytes."""
    if not path.exists():
        return 0
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - 2**20)
        file.seek(start)
        end = start + file.read().rfind(b"\n") + 1
        if end < size:
            file.truncate(end)
        return size - end


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
