"""The server's checkpoints: one atomic file per round; the newest two and the best are kept."""

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
"""Name and type of the parts that every checkpoint of the server contains."""

RELEASE = "release.pt"
"""The file of `Checkpoints.save_release`."""


def read_checkpoint(path: Path, lineage: str | None = None) -> dict[str, Any]:
    """Reads and checks a checkpoint of the server.

    Args:
        path: file of the checkpoint.
        lineage: lineage of the run that will use the checkpoint, see `config.lineage`; `None` accepts every run.

    Raises:
        FedReIDError: if the file cannot be read.
        ForeignCheckpoint: if the checkpoint belongs to a run with another configuration.
        DamagedFile: if the file is damaged or is not a checkpoint of a server.
    """
    state = read_state(path)
    for name, kind in PARTS.items():
        if type(state.get(name)) is not kind:
            raise DamagedFile(
                f"{path}: is not a checkpoint of a server ('{name}' is missing or is not a {kind.__name__})"
            )
    if problem := problem_of(state):
        raise DamagedFile(f"{path}: is not a checkpoint of a server ({problem})")
    if lineage is not None and state.get("lineage", lineage) != lineage:
        raise ForeignCheckpoint(
            f"{path}: belongs to a run with another configuration; use a checkpoint of the run itself"
        )
    return state


def check_models(models: Mapping[str, Any], like: Mapping[str, Tensor]) -> None:
    """Checks that the models of a checkpoint fit a network.

    Args:
        models: state dicts by name of the model.
        like: state dict of the network.

    Raises:
        FedReIDError: if a model misses a tensor, has an additional tensor, or has a tensor of another shape or dtype.
    """
    wanted = {name: (value.shape, value.dtype) for name, value in like.items()}
    for model, state in models.items():
        tensors = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
        if not tensors or {name: (value.shape, value.dtype) for name, value in state.items()} != wanted:
            raise FedReIDError(
                f"the checkpoint's {model} model does not fit the network of the configuration; use a checkpoint of "
                "this run and the model.* keys that the run was trained with"
            )


class ForeignCheckpoint(FedReIDError):
    """Raised for a checkpoint of a run with another configuration."""


class Checkpoints:
    """Manages the files `round-00007.ckpt` in one folder.

    Args:
        folder: the run's `checkpoints` folder.
        writable: `False` on processes other than the first.
        keep: number of newest checkpoints that are kept in addition to the best.
        lineage: lineage of the run, see `config.lineage`. Checkpoints of another lineage are refused; `None` accepts
            all.
    """

    def __init__(self, folder: Path, writable: bool = True, keep: int = 2, lineage: str | None = None) -> None:
        self.folder, self.writable, self.keep, self.lineage = folder, writable, keep, lineage

    def rounds(self) -> list[int]:
        """Returns the rounds that have a checkpoint, ascending."""
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        matches = (re.fullmatch(r"round-(\d+)\.ckpt", item.name) for item in names)
        return sorted(int(match[1]) for match in matches if match)

    def path(self, round: int) -> Path:
        """Returns the file of a round's checkpoint."""
        return self.folder / f"round-{round:05d}.ckpt"

    def save(self, round: int, state: dict[str, Any], best: int | None) -> list[int]:
        """Writes a round's checkpoint, then deletes checkpoints that are neither among the newest nor `best`.

        Args:
            round: round of the checkpoint.
            state: tensors and plain values.
            best: the best round so far, `None` without an evaluation.

        Returns:
            The rounds whose checkpoints are kept.

        Raises:
            FedReIDError: if the file cannot be written; earlier checkpoints are intact.
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
        """Writes the state that must be on disk before the round's models leave the server; replaces the last file.

        Raises:
            FedReIDError: if the file cannot be written.
        """
        if self.writable:
            write_state(self.folder / RELEASE, {"round": round, "callbacks": state, "lineage": self.lineage or ""})

    def release(self) -> tuple[int, dict[str, Any]]:
        """Returns round and state of the last `save_release`.

        The result is `(0, {})` if there is no file, or if the file belongs to a run with another configuration.

        Raises:
            FedReIDError: if the file cannot be read, so that the released models are unknown.
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
                f"{path}: is damaged, so it is unknown which models have left the server; restore the file from a "
                "backup, or start again with resume=never"
            ) from error
        return (round, callbacks) if lineage == (self.lineage or "") else (0, {})

    def latest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Returns the newest readable checkpoint, and one message for each newer checkpoint that is not usable.

        Raises:
            DamagedFile: if there are checkpoints but none of them is readable.
            ForeignCheckpoint: if the newest readable checkpoint belongs to a run with another configuration.
        """
        problems: list[str] = []
        rounds = self.rounds()
        for number in reversed(rounds):
            try:
                state = read_checkpoint(self.path(number), self.lineage)
                if state["round"] == number:
                    return state, problems
                problems.append(
                    f"{self.path(number)}: contains round {state['round']}, which differs from its file name"
                )
            except DamagedFile as error:
                problems.append(str(error))
        if rounds:
            raise DamagedFile(
                f"{self.folder}: no checkpoint is readable ({problems[0]}); restore a checkpoint from a backup, or "
                "start again with resume=never"
            )
        return None, problems

    def forget(self, after: int) -> None:
        """Deletes checkpoints of rounds above `after`; a resumed run writes them again."""
        if self.writable:
            for number in self.rounds():
                if number > after:
                    self.path(number).unlink(missing_ok=True)
