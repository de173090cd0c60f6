"""The rows of a gallery in memory, and which of them a search may find."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import torch
from torch import Tensor

from fedreid_pl.retrieval.gallery_file import Row


class HeldRows:
    """Rows of a gallery with their features, as they were at one moment.

    Args:
        rows: whom each row shows.
        features: `[G, D]` float32.
    """

    def __init__(self, rows: Sequence[Row] = (), features: Tensor | None = None) -> None:
        self.rows = list(rows)
        self.features = torch.empty(0, 0) if features is None else features
        self._codes = {name: code for code, name in enumerate(dict.fromkeys(row.camera for row in rows))}
        self._cameras = torch.tensor([self._codes[row.camera] for row in rows], dtype=torch.int64)
        ends = [float("inf") if row.expires_at is None else row.expires_at for row in rows]
        self._expires = torch.tensor(ends, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.rows)

    def allowed(self, camera: str | None) -> Tensor:
        """Returns `[G]` bool: rows that have not expired and are not of the camera that is left out."""
        alive = self._expires > datetime.now(timezone.utc).timestamp()
        return alive if camera is None else alive & (self._cameras != self._codes.get(camera, -1))
