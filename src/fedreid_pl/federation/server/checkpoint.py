"""The server's checkpoints: one atomic file per round, the last two and the best are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.checkpoint_content import problem_of
from fedreid_pl.federation.storage import DamagedFile, read_state, write_state

PARTS = {
    "round": int,
    "models": dict,
    "assignment": dict,
    "rejected": dict,
    "history": dict,
    "costs": dict,
    "callbacks": dict,
}
"""What every checkpoint of the server holds."""

RELEASE = "release.pt"
"""The file of `Checkpoints.save_release`."""


def read_checkpoint(path: Path, lineage: str | None = None) -> dict[str, Any]:
    """A checkpoint of the server.

    Args:
        path: the file.
        lineage: of the run that it is wanted for, see `config.lineage`; `None`: any.

    Raises:
        FedReIDError: if it cannot be read, or belongs to a run of another configuration.
        DamagedFile: if it is damaged, or holds something else.
    """
    state = read_state(path)
    for name, kind in PARTS.items():
        if type(state.get(name)) is not kind:
            raise DamagedFile(f"{path}: is not a checkpoint of a server ('{name}' is missing or not a {kind.__name__})")
    if problem := problem_of(state):
        raise DamagedFile(f"{path}: is not a checkpoint of a server ({problem})")
    if lineage is not None and state.get("lineage", lineage) != lineage:
        raise ForeignCheckpoint(
            f"{path}: was made with another configuration than the run it is wanted for; give the run's own file"
        )
    return state


def check_models(models: Mapping[str, Any], like: Mapping[str, Tensor]) -> None:
    """Holds the models of a checkpoint against the network that they are for.

    Raises:
        FedReIDError: if a tensor is missing, is one too many, or has another shape or dtype.
    """
    wanted = {name: (value.shape, value.dtype) for name, value in like.items()}
    for model, state in models.items():
        tensors = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
        if not tensors or {name: (value.shape, value.dtype) for name, value in state.items()} != wanted:
            raise FedReIDError(f"the checkpoint's {model} model does not fit the network; use the run's own checkpoint")


class ForeignCheckpoint(FedReIDError):
    """A checkpoint of another configuration."""


class Checkpoints:
    """Files `round-00007.ckpt` in one folder.

    Args:
        folder: the run's `checkpoints` folder.
        writable: `False` on processes other than the first.
        keep: how many of the latest are kept beside the best.
        lineage: of the run; checkpoints of another one are refused, see `config.lineage`. `None`: none is.
    """

    def __init__(self, folder: Path, writable: bool = True, keep: int = 2, lineage: str | None = None) -> None:
        self.folder, self.writable, self.keep, self.lineage = folder, writable, keep, lineage

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
        write_state(self.path(round), state if self.lineage is None else {**state, "lineage": self.lineage})
        rounds = [number for number in self.rounds() if number <= round]
        kept = [number for number in rounds if number in rounds[-self.keep :] or number == best]
        for number in rounds:
            if number not in kept:
                self.path(number).unlink(missing_ok=True)
        return kept

    def save_release(self, round: int, state: dict[str, Any]) -> None:
        """Writes what has to be on the disk before the round's models leave the server, in place of the last one.

        Raises:
            FedReIDError: if it cannot be written.
        """
        if self.writable:
            write_state(self.folder / RELEASE, {"round": round, "callbacks": state, "lineage": self.lineage or ""})

    def release(self) -> tuple[int, dict[str, Any]]:
        """What `save_release` wrote last and its round; of a run of another configuration, or of none, `(0, {})`.

        Raises:
            FedReIDError: if it cannot be read, so that it is not known what was released.
        """
        path = self.folder / RELEASE
        if not path.exists():
            return 0, {}
        try:
            state = read_state(path)
            round, callbacks, lineage = state["round"], state["callbacks"], state["lineage"]
            if type(round) is not int or type(callbacks) is not dict:
                raise KeyError
        except (DamagedFile, KeyError) as error:
            raise FedReIDError(
                f"{path}: is damaged, so that it is not known which models were released; start anew with resume=never"
            ) from error
        return (round, callbacks) if lineage == (self.lineage or "") else (0, {})

    def latest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that can be read, and what was wrong with newer ones.

        Raises:
            DamagedFile: if there are checkpoints and none can be read.
            ForeignCheckpoint: if the newest that can be read belongs to another configuration.
        """
        problems: list[str] = []
        rounds = self.rounds()
        for number in reversed(rounds):
            try:
                state = read_checkpoint(self.path(number), self.lineage)
                if state["round"] == number:
                    return state, problems
                problems.append(f"{self.path(number)}: is of round {state['round']}")
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
