"""Which gallery rows match a query: the same person, seen by another camera."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class QueryMatches(NamedTuple):
    """Gallery rows sorted by identity, then camera: the rows of a query's person are a range with a hole in it.

    The range holds the query's identity. The hole, rows of the query's own camera, is removed. The rest of the range
    are the query's matches.
    """

    sorted_rows: Tensor  # [G]
    start: Tensor  # [Q] first place of the identity
    hole: Tensor  # [Q] first place of the identity's own camera
    hole_size: Tensor  # [Q]
    total: Tensor  # [Q] matches

    def rows(self, part: Tensor) -> Tensor:
        """Returns gallery rows of the matches, `[len(part), most matches]`; past a query's count, any row."""
        start, hole, hole_size = (column[part, None] for column in (self.start, self.hole, self.hole_size))
        width = int(self.total[part].max())
        place = start + torch.arange(width, device=start.device)
        place += hole_size * (place >= hole)
        return self.sorted_rows[place.clamp_(max=len(self.sorted_rows) - 1)]

    def removed(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Returns pairs (position in part, gallery row) of the same identity and camera."""
        size = self.hole_size[part]
        position = torch.arange(len(part), device=part.device).repeat_interleave(size)
        within = torch.arange(len(position), device=part.device) - (size.cumsum(0) - size)[position]
        return position, self.sorted_rows[self.hole[part][position] + within]


def query_matches(
    query_identities: Tensor, query_cameras: Tensor, gallery_identities: Tensor, gallery_cameras: Tensor
) -> QueryMatches:
    """Returns where each query's matches are; all arguments are integers, `[Q]`, `[Q]`, `[G]` and `[G]`."""
    identities = torch.cat([query_identities, gallery_identities]).unique(return_inverse=True)[1]
    known_cameras, cameras = torch.cat([query_cameras, gallery_cameras]).unique(return_inverse=True)
    identities *= len(known_cameras)
    keys, queries = identities + cameras, len(query_identities)
    sorted_keys, sorted_rows = keys[queries:].sort(stable=True)
    start, end = (torch.searchsorted(sorted_keys, identities[:queries] + shift) for shift in (0, len(known_cameras)))
    hole, hole_end = (torch.searchsorted(sorted_keys, keys[:queries] + shift) for shift in (0, 1))
    return QueryMatches(sorted_rows, start, hole, hole_end - hole, end - start - (hole_end - hole))
