"""Gallery rows that match a query: they show the same person from another camera."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class QueryMatches(NamedTuple):
    """The matches of every query, as ranges of the gallery rows sorted by identity and camera.

    All rows of a query's identity form one range. The rows of the query's own camera form a hole in this range. The
    rest of the range are the query's matches.
    """

    sorted_rows: Tensor  # [G]
    start: Tensor  # [Q] first place of the query's identity
    hole: Tensor  # [Q] first place of the query's identity and camera
    hole_size: Tensor  # [Q] gallery rows of the query's identity and camera
    total: Tensor  # [Q] number of matches

    def rows(self, part: Tensor) -> Tensor:
        """Returns the gallery rows of the matches, `[len(part), most matches]`; entries past a query's matches vary."""
        start, hole, hole_size = (column[part, None] for column in (self.start, self.hole, self.hole_size))
        width = int(self.total[part].max())
        place = start + torch.arange(width, device=start.device)
        place += hole_size * (place >= hole)
        return self.sorted_rows[place.clamp_(max=len(self.sorted_rows) - 1)]

    def removed(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Returns all pairs (position in `part`, gallery row) with the same identity and camera."""
        size = self.hole_size[part]
        position = torch.arange(len(part), device=part.device).repeat_interleave(size)
        within = torch.arange(len(position), device=part.device) - (size.cumsum(0) - size)[position]
        return position, self.sorted_rows[self.hole[part][position] + within]


def query_matches(
    query_identities: Tensor, query_cameras: Tensor, gallery_identities: Tensor, gallery_cameras: Tensor
) -> QueryMatches:
    """Returns the matches of every query; all arguments are integers, `[Q]`, `[Q]`, `[G]` and `[G]`."""
    identities = torch.cat([query_identities, gallery_identities]).unique(return_inverse=True)[1]
    known_cameras, cameras = torch.cat([query_cameras, gallery_cameras]).unique(return_inverse=True)
    identities *= len(known_cameras)
    keys, queries = identities + cameras, len(query_identities)
    sorted_keys, sorted_rows = keys[queries:].sort(stable=True)
    start, end = (torch.searchsorted(sorted_keys, identities[:queries] + shift) for shift in (0, len(known_cameras)))
    hole, hole_end = (torch.searchsorted(sorted_keys, keys[:queries] + shift) for shift in (0, 1))
    return QueryMatches(sorted_rows, start, hole, hole_end - hole, end - start - (hole_end - hole))
