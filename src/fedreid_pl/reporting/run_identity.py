"""Which wandb run a folder logs to: the folder's own, so that a copy of the folder never writes into the original's."""

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
    """The id of a wandb run, and whether it was drawn now because the folder is a copy."""

    id: str
    copied: bool = False


def run_identity(folder: Path) -> RunIdentity:
    """The id in the folder; a new one if the folder is new, begun anew, or a copy.

    Beside the id stand two digests: of the folder's number in its file system, which a renamed or moved folder keeps,
    and of machine and path, which a restored one has. A copy has neither. No name can be read from the digests.

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
    """Digests of the folder's number in its file system, and of machine and path."""
    place = folder.resolve()
    texts = (str(place.stat().st_ino), f"{platform.node()}\0{place}")
    number, path = (
        hashlib.sha256(f"{run_id}\0{text}".encode("utf-8", "surrogateescape")).hexdigest()[:32] for text in texts
    )
    return number, path
