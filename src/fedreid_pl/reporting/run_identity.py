"""Assigns a wandb run to a run folder, so that a copy of the folder never logs to the original's wandb run."""

from __future__ import annotations

import hashlib
import platform
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from fedreid_pl.bounded import read_text_inside
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import write_text

NAME = "wandb/run_id"
CONTENT = re.compile(r"([A-Za-z0-9]{1,64})(?: ([0-9a-f]{32}) ([0-9a-f]{32}))?\s*")


class RunIdentity(NamedTuple):
    """Id of a wandb run, and whether the id is new because the folder is a copy."""

    id: str
    copied: bool = False


def run_identity(folder: Path) -> RunIdentity:
    """Returns the id in the folder; draws a new id if the folder is new, starts again, or is a copy.

    The file also holds two digests: one of the folder's inode, which does not change if the folder is renamed or moved,
    and one of machine and path, which do not change if the folder is restored. In a copy both differ. The digests
    reveal no names.

    Raises:
        FedReIDError: if the folder cannot be written.
    """
    try:
        known = re.fullmatch(
            r"([A-Za-z0-9]{1,64})(?: ([0-9a-f]{32}) ([0-9a-f]{32}))?\s*", read_text_inside(folder, NAME, 4096)
        )
    except (OSError, FedReIDError):
        known = None
    if known is None:
        return _drawn(folder, copied=False)
    number, place = _marks(folder, known[1])
    if known[2] is None or known[2] == number or known[3] == place:
        if (known[2], known[3]) != (number, place):
            _write(folder, known[1])
        return RunIdentity(known[1])
    return _drawn(folder, copied=True)


def _drawn(folder: Path, copied: bool) -> RunIdentity:
    drawn = secrets.token_hex(4)
    _write(folder, drawn)
    return RunIdentity(drawn, copied)


def _write(folder: Path, run_id: str) -> None:
    write_text(folder / NAME, " ".join([run_id, *_marks(folder, run_id)]) + "\n")


def _marks(folder: Path, run_id: str) -> tuple[str, str]:
    """Returns digests of the folder's inode, and of machine and path."""
    place = folder.resolve()
    texts = (str(place.stat().st_ino), f"{platform.node()}\0{place}")
    number, path = (
        hashlib.sha256(f"{run_id}\0{text}".encode("utf-8", "surrogateescape")).hexdigest()[:32] for text in texts
    )
    return number, path
