"""Measures one query in a gallery of a million rows relative to a matrix-vector product, and approximate indexes.

    python benchmarks/searching.py [--rows 1000000] [--dim 512] [--repeats 21]
    python benchmarks/searching.py --rows 100000 --index faiss usearch

`Gallery.search` checks whether another process changed the file, skips expired rows, compares all rows, and sorts and
names the best ten. The bare product is `features @ query` with the same numbers in the same process. Both alternate;
the figure is the median of the pairs' ratios. Recall of an index is the share of the exact ten that it finds, for 100
queries near random rows. Features are random: persons around 64 directions, five rows per person.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from figures import Report
from ranking import seconds
from torch import Tensor
from torch.nn.functional import normalize

from fedreid_pl.retrieval.gallery import Gallery

PART, K = 50_000, 10


def fill(path: Path, rows: int, dim: int, draws: torch.Generator) -> None:
    """Writes a gallery of random features, five rows a person."""
    gallery, directions = Gallery(path), torch.randn(64, dim, generator=draws) / 8
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        persons = torch.randn(-(-count // 5), 64, generator=draws) @ directions
        spread = 0.7 * torch.randn(count, 64, generator=draws) @ directions + 0.1 * torch.randn(
            count, dim, generator=draws
        )
        features = normalize(persons.repeat_interleave(5, 0)[:count] + spread)
        numbers = range(start, start + count)
        gallery.add(features, [f"p{number // 5}" for number in numbers], sources=[str(number) for number in numbers])
    gallery.close()


def near_rows(features: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Returns queries near random rows."""
    rows = torch.randint(len(features), (count,), generator=draws)
    return normalize(features[rows] + 0.05 * torch.randn(count, features.shape[1], generator=draws))


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--index", nargs="*", default=[], choices=["faiss", "usearch"])
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    args = parser.parse_args()
    report, draws = Report(f"searching {args.rows} rows"), torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "people.db"
        report.note(f"written in {seconds(lambda: fill(path, args.rows, args.dim, draws)):.0f} s")
        gallery = Gallery.load(path)
        report.note(f"read in {seconds(lambda: len(gallery)):.1f} s")
        features = gallery._held.features
        queries = near_rows(features, 100, draws)
        pairs = []
        for repeat in range(args.repeats + 1):
            query = queries[repeat % len(queries)]
            bare = seconds(lambda query=query: features @ query)
            ours = seconds(lambda query=query: gallery.search(query[None], k=K))
            if repeat:  # the first one allocates
                pairs.append((bare, ours))
        report.add(f"matrix-vector product, {args.rows} x {args.dim}", [bare for bare, _ in pairs], unit="s")
        report.add(f"search, {args.rows} rows", [ours for _, ours in pairs], unit="s")
        report.add("search / matrix-vector product", [ours / bare for bare, ours in pairs], "at most 1.5")
        exact = gallery.search(queries, k=K)
        for name in args.index:
            approximate = Gallery.load(path, index=name)
            report.note(f"{name}: built in {seconds(lambda near=approximate: near.search(queries[:1], k=K)):.1f} s")
            times = [seconds(lambda near=approximate, q=query: near.search(q[None], k=K)) for query in queries]
            report.add(f"{name}, search", times, unit="s")
            found = approximate.search(queries, k=K)
            shares = [
                len({match.source for match in left} & {match.source for match in right}) / K
                for left, right in zip(exact, found, strict=True)
            ]
            report.add(f"{name}, mean recall at {K}", [sum(shares) / len(shares)])
    report.finish(args.json)


if __name__ == "__main__":
    main()
