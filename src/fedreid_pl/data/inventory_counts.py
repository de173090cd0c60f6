"""Counts of the files in a dataset's folder: read, skipped, unread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedreid_pl.errors import counted, printable

SHOWN = 10  # number of names in a log line; splits.json and `data check json=FILE` contain all names
KINDS = {"system": "files of an operating system", "text": "text files", "empty": "empty files"}


@dataclass(frozen=True)
class Inventory:
    """Counts of the files in a dataset's folder. Each file is counted once, and `present` is the sum of all.

    Args:
        read: number of files in the table.
        lists: number of lists, tables and MATLAB files from which the reader took names, splits or images.
        unused: number of images that the protocol of the layout leaves out, such as frames that were not drawn.
        skipped: number of files that are skipped on purpose, by kind: `system`, `text` or `empty`.
        unread: path below the folder, and reason, of every other file.
    """

    read: int = 0
    lists: int = 0
    unused: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def present(self) -> int:
        """Number of all files in the folder, at any depth."""
        return self.read + self.lists + self.unused + sum(self.skipped.values()) + len(self.unread)

    def as_dict(self) -> dict[str, Any]:
        """Returns the counts as plain values for JSON."""
        return {
            "present": self.present,
            "read": self.read,
            "lists": self.lists,
            "unused": self.unused,
            "skipped": dict(self.skipped),
            "unread": [{"path": path, "reason": reason} for path, reason in self.unread],
        }

    def counted(self) -> str:
        """Returns one line about the files that are skipped on purpose; empty if there are none."""
        parts = [f"{count:,} {KINDS[kind]}" for kind, count in self.skipped.items()]
        if self.unused:
            parts.append(f"{counted(self.unused, 'picture')} that the layout's protocol does not use")
        return ", ".join(parts)

    def named(self) -> str:
        """Returns one line with the names of unread files; empty if there are none."""
        if not self.unread:
            return ""
        names = ", ".join(f"{printable(path)} ({reason})" for path, reason in self.unread[:SHOWN])
        more = f", and {len(self.unread) - SHOWN:,} more" if len(self.unread) > SHOWN else ""
        files = "file is" if len(self.unread) == 1 else "files are"
        return f"{len(self.unread):,} {files} not read: {names}{more}"
