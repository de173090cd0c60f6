"""Person retrieval metrics over a query and a gallery set, gathered from all batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fedreid_pl.functional.randomness import generator
from fedreid_pl.functional.ranking import RetrievalResults, Ties, retrieval_results, summarize
from fedreid_pl.functional.single_shot import single_shot_cmc

_ROLE, _INDEX, _IDENTITY, _CAMERA, _DIM = range(5)


class RankedSets(NamedTuple):
    """The query and gallery lists of a test set, sorted by sample index, and the measures of every query."""

    query: Tensor  # [Q, D] float32
    query_identities: Tensor  # [Q] int64
    query_cameras: Tensor  # [Q] int64
    gallery: Tensor  # [G, D] float32
    gallery_identities: Tensor  # [G] int64
    gallery_cameras: Tensor  # [G] int64
    results: RetrievalResults


class ReIDRetrieval(Metric):
    """CMC, mAP and mINP of person re-identification, exact and the same for any number of processes.

    `update` accepts queries and gallery images in any order and in any batches. `compute` drops samples that a
    distributed sampler repeated and sorts the others by their indices, so that a given set of features always has the
    same result, bit for bit. Features are stored in float32 on the metric's device, 4 bytes a value, until `reset`.

    Call `update` and `compute`; `forward` would rank a single batch. `fedreid_pl.functional.ranking.retrieval_results`
    documents which gallery images are removed, and the treatment of ties and distractors.

    Args:
        ranks: ranks k for which `rank{k}` is returned.
        keep_unmatched: count queries without a match in the gallery as 0, instead of leaving them out.
        chunk: queries that are compared with the gallery at a time; bounds the memory.
        single_shot: number of random galleries with one image per person over which `single_shot_rank{k}` is averaged;
            0 disables it.
        seed: seed of the random galleries.
        ties: `"expected"` returns the expectation over all orders of equal scores; with `"order"` the earlier row is
            first.
        inspect: function that `compute` calls with the ranked sets; it must be the same in every process.
        kwargs: arguments of `torchmetrics.Metric`.

    >>> metric = ReIDRetrieval(ranks=(1,))
    >>> features, camera = torch.eye(3), torch.tensor([0, 0, 0])
    >>> metric.update(features[:1], torch.tensor([4]), camera[:1], torch.tensor([0]), query=True)
    >>> metric.update(features, torch.tensor([4, 5, 6]), camera + 1, torch.tensor([0, 1, 2]), query=False)
    >>> metric.compute()
    {'rank1': 1.0, 'mAP': 1.0, 'mAP_trapezoid': 1.0, 'mINP': 1.0, 'queries': 1.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    # Both are flat: an empty vector can be concatenated with any other, so a process without samples needs no shape.
    features: list[Tensor]  # float32, samples x features
    columns: list[Tensor]  # int64, samples x (role, index, identity, camera, feature size)

    def __init__(
        self,
        ranks: Sequence[int] = (1, 5, 10),
        keep_unmatched: bool = False,
        chunk: int = 256,
        single_shot: int = 0,
        seed: int = 0,
        ties: Ties = "expected",
        inspect: Callable[[RankedSets], None] | None = None,
        **kwargs: Any,
    ) -> None:
        # With the cache, a process without new samples would skip the synchronisation, and the others would hang.
        super().__init__(**{"compute_with_cache": False, **kwargs})
        if any(k < 1 for k in ranks) or chunk < 1:
            raise ValueError(f"ranks and chunk must be at least 1, got {tuple(ranks)} and {chunk}")
        if single_shot < 0:
            raise ValueError(f"single_shot must be at least 0, got {single_shot}")
        if ties not in get_args(Ties):
            raise ValueError(f"ties must be {' or '.join(get_args(Ties))}, got {ties}")
        self.ranks = tuple(ranks)
        self.keep_unmatched = keep_unmatched
        self.chunk = chunk
        self.single_shot, self.seed = single_shot, seed
        self.ties: Ties = ties
        self.tied = 0.0  # share of queries whose first match ties with an image of another person; set by `compute`
        self.inspect = inspect
        self.add_state("features", default=[], dist_reduce_fx="cat")
        self.add_state("columns", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, identities: Tensor, cameras: Tensor, indices: Tensor, query: bool) -> None:
        """Adds one batch of queries or of gallery images.

        Args:
            features: `[B, D]` floating point, L2-normalised for cosine similarity.
            identities: `[B]` integers; in the gallery -1 is junk and any other negative identity is a distractor.
            cameras: `[B]` integers.
            indices: `[B]` integers >= 0, each sample's position in its query or gallery list.
            query: `True` for queries, `False` for gallery images.

        Raises:
            ValueError: if a shape or dtype does not fit.
        """
        if features.dim() != 2 or not features.is_floating_point():
            raise ValueError(f"features must be [B, D] floating point, got {list(features.shape)}")
        named = {"identities": identities, "cameras": cameras, "indices": indices}
        for name, column in named.items():
            if column.shape != features.shape[:1] or column.is_floating_point():
                raise ValueError(f"{name} must be [{len(features)}] integers, got {list(column.shape)}")
        role, dim = (torch.full_like(indices, value) for value in (int(not query), features.shape[1]))
        columns = (role, indices, identities, cameras, dim)
        self.columns.append(torch.stack([c.to(features.device, torch.int64) for c in columns], 1).flatten())
        self.features.append(features.detach().float().flatten())

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Synchronises the states; a process without samples takes part with empty states, or the others would hang."""
        if isinstance(self.columns, list) and not self.columns:
            self.columns.append(torch.empty(0, dtype=torch.int64, device=self.device))
            self.features.append(torch.empty(0, dtype=torch.float32, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, float]:
        """Returns `rank{k}`, `mAP`, `mAP_trapezoid`, `mINP` in [0, 1], and the number of `queries` with a match.

        With `single_shot` the result also has `single_shot_rank{k}` over the same queries.

        Raises:
            ValueError: if there is no query or no gallery sample, if two different samples have the same index, if no
                query has a match and `keep_unmatched` is false, or if a feature is NaN or infinite.
        """
        columns = dim_zero_cat(self.columns).view(-1, 5) if len(self.columns) else torch.empty(0, 5)
        if len(columns) == 0:
            raise ValueError("the query is empty: there are no samples; call update before compute")
        dims = torch.unique(columns[:, _DIM]).tolist()
        if len(dims) > 1:
            raise ValueError(f"features must have one size, got sizes {dims}")
        features = dim_zero_cat(self.features).view(len(columns), dims[0])
        sides = [self._side(features, columns, role) for role in (0, 1)]
        results = retrieval_results(*sides[0], *sides[1], chunk=self.chunk, ties=self.ties)
        scores = summarize(results, self.ranks, self.keep_unmatched)
        if self.single_shot:
            draws = generator(self.seed, "single_shot")
            hits = single_shot_cmc(*sides[0], *sides[1], draws, self.single_shot, self.ranks, self.chunk, self.ties)
            total = len(hits) if self.keep_unmatched else scores["queries"]
            means = (hits.sum(0) / total).tolist()
            scores |= {f"single_shot_rank{k}": mean for k, mean in zip(self.ranks, means, strict=True)}
        self.tied = float(results.tied_first().sum()) / max(1, int(results.valid.sum()))
        if self.inspect is not None:
            self.inspect(RankedSets(*sides[0], *sides[1], results))
        return scores

    @staticmethod
    def _side(features: Tensor, columns: Tensor, role: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns features, identities and cameras of one list, in index order and without repeats."""
        name = ("query", "gallery")[role]
        rows = (columns[:, _ROLE] == role).nonzero().squeeze(1)
        rows = rows[columns[rows, _INDEX].argsort(stable=True)]
        sample = columns[rows][:, [_INDEX, _IDENTITY, _CAMERA]]
        repeat = sample[1:, 0] == sample[:-1, 0]
        if bool((repeat[:, None] & (sample[1:] != sample[:-1])).any()):
            raise ValueError(f"two different {name} samples have the same index")
        rows = rows[torch.cat([repeat.new_zeros(min(1, len(rows))), repeat]).logical_not()]
        return features[rows], columns[rows, _IDENTITY], columns[rows, _CAMERA]
