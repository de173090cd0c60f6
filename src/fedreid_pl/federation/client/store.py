"""Stores each client's own state between its turns, at the client and separate from the server's checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from fedreid_pl.bounded import OutsideFolder
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.storage import DamagedFile, encode, read_state, write_encoded


class LostState(FedReIDError):
    """Raised if a client's saved state cannot be read and there is no usable earlier copy."""


class KeptState(Protocol):
    """Interface of the store of a worker's client states: heads, own parts of the backbone, the callbacks' state."""

    def load(
        self, client: str, before: int, fitted: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> dict[str, Any] | None:
        """Returns the client's state after its last turn in a round below `before`, `None` if there is none.

        `fitted` returns the state to use, and raises a ValueError for a state that does not belong to the client.
        """
        ...

    def newest(self, client: str) -> int | None:
        """Returns the last round for which there is a state of the client, `None` if there is none."""
        ...

    def save(self, client: str, round: int, state: dict[str, Any]) -> None:
        """Saves the client's state after its turn in `round`."""
        ...

    def drop(self, client: str, after: int, keeps: Iterable[int]) -> None:
        """Deletes states of rounds above `after`, and states that no resume from the rounds `keeps` would load."""
        ...

    def place(self, client: str) -> str:
        """Returns where the client's state is stored, for messages to the user."""
        ...


class ClientStore:
    """Stores one folder per client with one file per turn.

    A file holds the client's head, the client's own backbone if nothing is exchanged, and the callbacks' state. The
    round is part of the file name: a run that resumes at round r loads the state of the client's last turn up to r and
    ignores later files. The store keeps nothing in memory.

    Args:
        folder: the run's `clients` folder.
        writable: `False` on processes other than the first, which read the files of the first process.
        tell: function that prints a line at the client.
    """

    def __init__(self, folder: Path, writable: bool = True, tell: Callable[[str], None] | None = None) -> None:
        self.folder, self.writable = folder, writable
        self.tell = tell or (lambda text: None)
        self._told: set[str] = set()

    def load(
        self, client: str, before: int, fitted: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> dict[str, Any] | None:
        """Returns the client's state after its last turn in a round below `before`, `None` if there is none.

        If that file is damaged, the store uses the file of an earlier turn and calls `tell` with a warning.

        Args:
            client: name of the client.
            before: upper limit of the round, exclusive.
            fitted: returns the state to use for a stored state, and raises a ValueError with the reason if the state
                does not belong to the client. `None` uses every state unchanged.

        Raises:
            LostState: if there are files but none of them is usable. A new state never replaces them.
            NewerFormat: if a newer version of fedreid_pl wrote the file.
        """
        problems: list[str] = []
        for number in reversed([number for number in self._rounds(client) if number < before]):
            path = self._path(client, number)
            try:
                state = read_state(path)
                if fitted is not None:
                    state = fitted(state)
            except DamagedFile as error:
                problems.append(str(error))
            except ValueError as error:
                problems.append(f"{path}: {error}")
            else:
                if problems:
                    self._say(f"client {client}: {problems[0]}; the state of round {number} is used instead")
                return state
        if problems:
            raise LostState(
                f"client {client}: {problems[0]}; no earlier file is usable either. Restore the file from a backup, or "
                "start again with resume=never"
            )
        return None

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.tell(f"warning: {text}")

    def newest(self, client: str) -> int | None:
        """Returns the last round for which there is a file of the client, `None` if there is none."""
        return max(self._rounds(client), default=None)

    def drop(self, client: str, after: int, keeps: Iterable[int]) -> None:
        """Deletes the client's files of rounds above `after`, and files that a resume from `keeps` would not load."""
        if not self.writable:
            return
        for number in self._rounds(client):
            if number > after:
                self._path(client, number).unlink(missing_ok=True)
        if kept := set(keeps):
            self.prune(client, kept | {after})

    def place(self, client: str) -> str:
        """Returns the client's folder."""
        return str(self.folder / client)

    def save(self, client: str, round: int, state: dict[str, Any]) -> None:
        """Writes the client's state after its turn in `round`, atomically."""
        if self.writable:
            self.save_encoded(client, round, encode(state))

    def save_encoded(self, client: str, round: int, data: bytes) -> None:
        """Writes a state that another process has encoded, see `save`."""
        if self.writable:
            write_encoded(self._path(client, round), data)

    def newest_up_to(self, client: str, round: int) -> int | None:
        """Returns the last round up to `round` for which there is a file of the client, `None` if there is none."""
        return max((number for number in self._rounds(client) if number <= round), default=None)

    def prune(self, client: str, checkpoints: Iterable[int]) -> None:
        """Deletes the files that a resume from one of the given rounds would not load."""
        if not self.writable:
            return
        rounds = self._rounds(client)
        needed = {max((number for number in rounds if number <= point), default=None) for point in checkpoints}
        for number in rounds:
            if number not in needed:
                self._path(client, number).unlink(missing_ok=True)

    def forget(self, after: int) -> None:
        """Deletes every client's files of rounds above `after`; a resumed run writes them again."""
        if not self.writable or not self.folder.is_dir():
            return
        for folder in self.folder.iterdir():
            for number in self._rounds(folder.name):
                if number > after:
                    self._path(folder.name, number).unlink(missing_ok=True)

    def _path(self, client: str, round: int) -> Path:
        return self._place(client) / f"round-{round:05d}.pt"

    def _place(self, client: str) -> Path:
        """Returns the client's folder; raises `OutsideFolder` for a name that leads out of the store."""
        if "/" in client or client in ("", ".", ".."):
            raise OutsideFolder(f"{self.folder}: {printable(client)!r} is not a valid name of a client")
        return self.folder / client

    def _rounds(self, client: str) -> list[int]:
        folder = self._place(client)
        names = folder.iterdir() if folder.is_dir() else ()
        matches = (re.fullmatch(r"round-(\d+)\.pt", item.name) for item in names)
        return sorted(int(match[1]) for match in matches if match)
