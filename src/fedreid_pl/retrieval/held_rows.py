"""The rows of a gallery in memory, with the filter of expired rows and cameras."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import torch
from torch import Tensor

from fedreid_pl.retrieval.gallery_file import Row


class HeldRows:
    """A snapshot of the rows of a gallery with their features.

    Args:
        rows: the rows.
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
        """Returns whether a row has not expired and is not from the excluded camera, `[G]` bool."""
        alive = self._expires > datetime.now(timezone.utc).timestamp()
        return alive if camera is None else alive & (self._cameras != self._codes.get(camera, -1))
