"""Where the files in a dataset's folder went, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedreid_pl.errors import printable

SHOWN = 10  # names in a log; splits.json and `data check json=FILE` name all
KINDS = {"system": "files of an operating system", "text": "text files", "empty": "empty files"}


@dataclass(frozen=True)
class Inventory:
    """The files in a dataset's folder, each counted once: `present` is the sum of all.

    Args:
        read: files in the table.
        lists: lists, tables and MATLAB files that the reader took names, splits or pictures from.
        unused: pictures that the layout's protocol leaves out, such as frames that were not drawn.
        skipped: files skipped on purpose, by kind: `system`, `text` or `empty`.
        unread: path below the folder, and reason, of every other file.
    """

    read: int = 0
    lists: int = 0
    unused: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def present(self) -> int:
        """All files in the folder, at any depth."""
        return self.read + self.lists + self.unused + sum(self.skipped.values()) + len(self.unread)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "present": self.present,
            "read": self.read,
            "lists": self.lists,
            "unused": self.unused,
            "skipped": dict(self.skipped),
            "unread": [{"path": path, "reason": reason} for path, reason in self.unread],
        }

    def counted(self) -> str:
        """One line about what is skipped on purpose; empty if nothing is."""
        parts = [f"{count:,} {KINDS[kind]}" for kind, count in self.skipped.items()]
        if self.unused:
            parts.append(f"{self.unused:,} pictures that the layout's protocol does not use")
        return ", ".join(parts)

    def named(self) -> str:
        """One line that names the files that are not read; empty if all are."""
        if not self.unread:
            return ""
        names = ", ".join(f"{printable(path)} ({reason})" for path, reason in self.unread[:SHOWN])
        more = f", and {len(self.unread) - SHOWN:,} more" if len(self.unread) > SHOWN else ""
        files = "file is" if len(self.unread) == 1 else "files are"
        return f"{len(self.unread):,} {files} not read: {names}{more}"
