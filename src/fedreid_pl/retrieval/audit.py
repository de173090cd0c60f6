"""The audit file of a gallery: one line of JSON per search, with time, options and results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fedreid_pl.errors import FedReIDError
from fedreid_pl.retrieval.matching import Match


def write_audit(file: Path, answers: Iterable[list[Match]], **options: Any) -> None:
    """Appends a line with the time in UTC, `options`, and the persons found for every query, best first.

    Raises:
        FedReIDError: if the file cannot be written.
    """
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    found = [[match.person for match in matches] for matches in answers]
    try:
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"time": time, **options, "found": found}) + "\n")
    except OSError as error:
        raise FedReIDError(f"audit={file}: cannot be written ({error.strerror})") from error
