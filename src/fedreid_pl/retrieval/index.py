"""Search indexes over a gallery's features: exact, or approximate by an external library."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError, nearest
from fedreid_pl.functional.nearest import nearest_rows


class Index(Protocol):
    """Finds the most similar rows of a fixed matrix of features."""

    def __init__(self, features: Tensor) -> None:
        """Builds the index over features `[G, D]` float32, of length 1."""
        ...

    def search(self, queries: Tensor, k: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns scores and rows `[Q, min(k, G)]`, best first; missing results have score -inf and row -1.

        Args:
            queries: `[Q, D]` float32, of length 1.
            k: number of rows per query.
            allowed: `[G]` bool, rows that may be found; `None` allows all rows.
        """
        ...


class ExactIndex:
    """Exact search: every row is compared, as in tests."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def search(self, queries: Tensor, k: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns scores and rows, see `Index.search`; equal scores are in the order of the rows."""
        return nearest_rows(queries, self.features, k, allowed)


class FaissIndex:
    """A graph of neighbours (HNSW) by faiss; `pip install faiss-cpu`. Approximate: a row may be missed."""

    def __init__(self, features: Tensor) -> None:
        faiss = _library("faiss", "faiss-cpu")
        self._index = faiss.IndexHNSWFlat(features.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction, self._index.hnsw.efSearch = 100, 128
        self._count = len(features)
        self._index.add(features.numpy())

    def search(self, queries: Tensor, k: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Index.search`."""

        def ask(wanted: int) -> tuple[np.ndarray, np.ndarray]:
            self._index.hnsw.efSearch = max(128, 2 * wanted)
            return self._index.search(queries.numpy(), wanted)

        return _filtered(ask, min(k, self._count), self._count, allowed)


class UsearchIndex:
    """A graph of neighbours (HNSW) by usearch; `pip install usearch`. Approximate: a row may be missed."""

    def __init__(self, features: Tensor) -> None:
        library = _library("usearch.index", "usearch")
        self._index = library.Index(
            ndim=features.shape[1], metric="ip", dtype="f32", expansion_add=128, expansion_search=128
        )
        self._count = len(features)
        self._index.add(np.arange(self._count), features.numpy())

    def search(self, queries: Tensor, k: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Index.search`."""

        def ask(wanted: int) -> tuple[np.ndarray, np.ndarray]:
            found = self._index.search(queries.numpy(), wanted)
            keys, distances = np.atleast_2d(found.keys), np.atleast_2d(found.distances)
            scores = np.full((len(queries), wanted), -np.inf, np.float32)
            rows = np.full((len(queries), wanted), -1, np.int64)
            counts = np.atleast_1d(np.asarray(getattr(found, "counts", keys.shape[1])))
            for query, count in enumerate(counts.tolist()):
                rows[query, :count], scores[query, :count] = keys[query, :count], 1 - distances[query, :count]
            return scores, rows

        return _filtered(ask, min(k, self._count), self._count, allowed)


INDEXES: dict[str, type[Index]] = {"exact": ExactIndex, "faiss": FaissIndex, "usearch": UsearchIndex}


def check_index(name: str) -> None:
    """Raises `FedReIDError` if there is no index of this name."""
    if name not in INDEXES:
        raise FedReIDError(f"index={name}: no such index{nearest(name, list(INDEXES))}")


def build_index(name: str, features: Tensor) -> Index:
    """Returns an index over features `[G, D]`; raises `FedReIDError` if its library is not installed."""
    return INDEXES[name](features)


def _library(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FedReIDError(f"index={package}: the library is not installed; pip install {package}") from error


def _filtered(ask: Any, k: int, count: int, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns the best `k` allowed rows; requests more rows until there are enough, or until all were requested."""
    wanted = k if allowed is None else min(count, 2 * k + 32)
    while True:
        scores, rows = (torch.from_numpy(np.ascontiguousarray(part)) for part in ask(wanted))
        rows = rows.long()
        kept = rows >= 0
        if allowed is not None:
            kept &= allowed[rows.clamp(min=0)]
        enough = int(kept.sum(1).min()) >= k if len(rows) else True
        if enough or wanted >= count:
            break
        wanted = min(count, 4 * wanted)
    scores = scores.masked_fill(~kept, -torch.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    scores, rows = scores.gather(1, order), rows.gather(1, order)
    return scores, rows.masked_fill(scores == -torch.inf, -1)
