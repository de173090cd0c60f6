"""Writes and reads `status.json` in a federation's folder: the state of every silo. It needs no network port."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedreid_pl.bounded import read_bounded
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.storage import write_text

NAME, EVERY = "status.json", 1.0


@dataclass
class Traffic:
    """Traffic and current state of a silo since the coordinator started.

    Attributes:
        down: bytes sent to the silo.
        up: bytes received from the silo.
        refused: number of invalid answers.
        state: current state, for the operator.
    """

    down: int = 0
    up: int = 0
    refused: int = 0
    state: str = "-"


class StatusFile:
    """Writes the status file, at most once a second.

    Args:
        folder: folder of the federation.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self._written = folder / NAME, float("-inf")

    def write(
        self,
        session: str,
        round: int,
        traffic: Mapping[str, Traffic],
        seen: Mapping[str, float],
        over: bool = False,
    ) -> None:
        """Writes the current status; `over` marks the end of the coordinator's process."""
        if not over and time.monotonic() - self._written < EVERY:
            return
        self._written, now = time.monotonic(), time.time()
        silos = {
            name: {**asdict(entry), "seen": now - seen[name] if name in seen else None}
            for name, entry in traffic.items()
        }
        state = {
            "session": session,
            "round": round,
            "written": now,
            "process": 0 if over else os.getpid(),
            "silos": silos,
        }
        write_text(self.path, json.dumps(state, indent=2) + "\n")


def status_rows(folder: FederationFolder) -> tuple[str, list[list[str]]]:
    """Returns a line about the coordinator and a table row for every silo.

    Raises:
        FedReIDError: if the status file is damaged.
    """
    file = folder.path / NAME
    try:
        found: dict[str, Any] = json.loads(read_bounded(file, 2**20))
        silos = {name: dict(entry) for name, entry in found["silos"].items()}
        process, line = int(found["process"]), f"session {found['session']}, round {int(found['round'])}"
        rows = [_row(name, silos.get(name, {}), known.revoked) for name, known in folder.everybody.items()]
    except FileNotFoundError:
        return "no coordinator has run yet", [_row(name, {}, known.revoked) for name, known in folder.everybody.items()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FedReIDError(f"{file}: cannot be read; delete it, and the coordinator writes a new one") from error
    return f"{printable(line)}, the coordinator {'is running' if _runs(process) else 'is not running'}", rows


def _row(name: str, entry: dict[str, Any], revoked: bool) -> list[str]:
    seen = entry.get("seen")
    ago = "never" if seen is None else f"{max(time.time() - float(seen), 0.0):.0f} s ago"
    sizes = [f"{int(entry.get(key, 0)) / 2**20:.1f}" for key in ("down", "up")]
    state = "revoked" if revoked else printable(str(entry.get("state", "-")), 60)
    return [name, ago, state, *sizes, str(int(entry.get("refused", 0)))]


def _runs(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
