"""What each client keeps between its turns, at the client, apart from the server's checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from fedreid_pl.bounded import OutsideFolder
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.storage import DamagedFile, encode, read_state, write_encoded


class LostState(FedReIDError):
    """What a client kept cannot be read, and there is no earlier copy of it."""


class KeptState(Protocol):
    """Where the clients of one worker keep their state: heads, own parts of the backbone, the callbacks' state."""

    def load(
        self, client: str, before: int, fitted: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> dict[str, Any] | None:
        """The client's state after its last turn in a round below `before`, `None` if it had none.

        `fitted` returns the state to use, and raises a ValueError for a state that does not belong to the client.
        """
        ...

    def newest(self, client: str) -> int | None:
        """The last round that the client has a state of, `None` if it has none."""
        ...

    def save(self, client: str, round: int, state: dict[str, Any]) -> None:
        """Keeps the client's state after its turn in `round`."""
        ...

    def drop(self, client: str, after: int, keeps: Iterable[int]) -> None:
        """Deletes states of rounds above `after`, and those that no resume from the rounds `keeps` would read."""
        ...

    def place(self, client: str) -> str:
        """Where the client's state is, for a message to the user."""
        ...


class ClientStore:
    """One folder per client with one file per turn: head, own backbone if nothing is exchanged, callbacks' state.

    Files are named by round, so that a run resumed at round r reads what the client had after its last turn up
    to r, whatever was written later and lost. Nothing is held in memory.

    Args:
        folder: the run's `clients` folder.
        writable: `False` on processes other than the first; they read what the first wrote.
        tell: takes a line for the screen where the client is.
    """

    def __init__(self, folder: Path, writable: bool = True, tell: Callable[[str], None] | None = None) -> None:
        self.folder, self.writable = folder, writable
        self.tell = tell or (lambda text: None)
        self._told: set[str] = set()

    def load(
        self, client: str, before: int, fitted: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> dict[str, Any] | None:
        """The client's state after its last turn in a round below `before`, `None` if it had none.

        Where that file is damaged the file of an earlier turn is used, and `tell` names client and files.

        Args:
            client: its name.
            before: the round.
            fitted: returns the state to use for a stored one; raises a ValueError that says why a state does not belong
                to the client. `None`: every state is used as it is.

        Raises:
            LostState: if there are files and none can be used; a new state never takes their place.
            NewerFormat: if a newer fedreid_pl wrote the file.
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
                    self._say(f"client {client}: {problems[0]}; what it kept in round {number} is used instead")
                return state
        if problems:
            raise LostState(
                f"client {client}: {problems[0]}; there is no earlier file that can be used: put it back, or begin "
                "anew with resume=never"
            )
        return None

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.tell(f"warning: {text}")

    def newest(self, client: str) -> int | None:
        """The last round that the client has a file of, `None` if it has none."""
        return max(self._rounds(client), default=None)

    def drop(self, client: str, after: int, keeps: Iterable[int]) -> None:
        """Deletes the client's files of rounds above `after`, and those that no resume from `keeps` would read."""
        if not self.writable:
            return
        for number in self._rounds(client):
            if number > after:
                self._path(client, number).unlink(missing_ok=True)
        if kept := set(keeps):
            self.prune(client, kept | {after})

    def place(self, client: str) -> str:
        """The client's folder."""
        return str(self.folder / client)

    def save(self, client: str, round: int, state: dict[str, Any]) -> None:
        """Writes the client's state after its turn in `round`, atomically."""
        if self.writable:
            self.save_encoded(client, round, encode(state))

    def save_encoded(self, client: str, round: int, data: bytes) -> None:
        """`save` for a state that another process has encoded."""
        if self.writable:
            write_encoded(self._path(client, round), data)

    def newest_up_to(self, client: str, round: int) -> int | None:
        """The last round up to `round` that the client has a file of, `None` if it has none."""
        return max((number for number in self._rounds(client) if number <= round), default=None)

    def prune(self, client: str, checkpoints: Iterable[int]) -> None:
        """Deletes the files that no resume from one of the given rounds would read."""
        if not self.writable:
            return
        rounds = self._rounds(client)
        needed = {max((number for number in rounds if number <= point), default=None) for point in checkpoints}
        for number in rounds:
            if number not in needed:
                self._path(client, number).unlink(missing_ok=True)

    def forget(self, after: int) -> None:
        """Deletes every client's files of rounds above `after`, which a resumed run will write anew."""
        if not self.writable or not self.folder.is_dir():
            return
        for folder in self.folder.iterdir():
            for number in self._rounds(folder.name):
                if number > after:
                    self._path(folder.name, number).unlink(missing_ok=True)

    def _path(self, client: str, round: int) -> Path:
        return self._place(client) / f"round-{round:05d}.pt"

    def _place(self, client: str) -> Path:
        """The client's folder; a name that leads elsewhere is refused."""
        if "/" in client or client in ("", ".", ".."):
            raise OutsideFolder(f"{self.folder}: {printable(client)!r} is no name of a client")
        return self.folder / client

    def _rounds(self, client: str) -> list[int]:
        folder = self._place(client)
        names = folder.iterdir() if folder.is_dir() else ()
        matches = (re.fullmatch(r"round-(\d+)\.pt", item.name) for item in names)
        return sorted(int(match[1]) for match in matches if match)
