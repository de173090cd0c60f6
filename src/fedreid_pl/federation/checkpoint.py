"""The server's checkpoints: one atomic file per round, the last two and the best are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fedreid_pl.federation.storage import DamagedFile, read_state, write_state


class Checkpoints:
    """Files `round-00007.ckpt` in one folder.

    Args:
        folder: the run's `checkpoints` folder.
        writable: `False` on processes other than the first.
        keep: how many of the latest are kept beside the best.
    """

    def __init__(self, folder: Path, writable: bool = True, keep: int = 2) -> None:
        self.folder, self.writable, self.keep = folder, writable, keep

    def rounds(self) -> list[int]:
        """Rounds that have a checkpoint, ascending."""
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        matches = (re.fullmatch(r"round-(\d+)\.ckpt", item.name) for item in names)
        return sorted(int(match[1]) for match in matches if match)

    def path(self, round: int) -> Path:
        """File of a round's checkpoint."""
        return self.folder / f"round-{round:05d}.ckpt"

    def save(self, round: int, state: dict[str, Any], best: int | None) -> list[int]:
        """Writes a round's checkpoint, then deletes those that are neither recent nor `best`.

        Returns:
            The rounds that are kept.

        Raises:
            FedReIDError: if it cannot be written; earlier checkpoints are intact.
        """
        if not self.writable:
            return []
        write_state(self.path(round), state)
        rounds = [number for number in self.rounds() if number <= round]
        kept = [number for number in rounds if number in rounds[-self.keep :] or number == best]
        for number in rounds:
            if number not in kept:
                self.path(number).unlink(missing_ok=True)
        return kept

    def latest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that can be read, and what was wrong with newer ones.

        Raises:
            DamagedFile: if there are checkpoints and none can be read.
        """
        problems: list[str] = []
        rounds = self.rounds()
        for number in reversed(rounds):
            try:
                return read_state(self.path(number)), problems
            except DamagedFile as error:
                problems.append(str(error))
        if rounds:
            raise DamagedFile(f"{self.folder}: no checkpoint can be read ({problems[0]}); start anew with resume=never")
        return None, problems

    def forget(self, after: int) -> None:
        """Deletes checkpoints of rounds above `after`, which a resumed run will write anew."""
        if self.writable:
            for number in self.rounds():
                if number > after:
                    self.path(number).unlink(missing_ok=True)
