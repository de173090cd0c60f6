"""Measures the time of the exact ranking relative to the matrix product that it requires.

    python benchmarks/ranking.py                          # Market-1501's size
    python benchmarks/ranking.py --size msmt17 --repeats 1

Features are random around one centre per identity; the numbers of images per identity are skewed as in the real
datasets. Product and ranking alternate, so that a busy machine slows both. Peak memory is the process's resident size
during a first ranking minus the size before it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from figures import Report
from torch import Tensor
from torch.nn.functional import normalize

from fedreid_pl.functional.ranking import RetrievalResults, retrieval_results, summarize
from fedreid_pl.functional.single_shot import single_shot_cmc


class Size(NamedTuple):
    queries: int
    gallery: int
    identities: int
    cameras: int
    distractors: int
    junk: int


SIZES = {
    "market1501": Size(3_368, 19_732, 750, 6, 2_798, 3_819),
    "msmt17": Size(11_659, 82_161, 3_060, 15, 0, 0),
    "small": Size(300, 2_000, 80, 6, 200, 100),
}


def generate(size: Size, dim: int, noise: float, device: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Returns query and gallery, each as `(features, identities, cameras)`."""
    generator = torch.Generator().manual_seed(0)
    # Log-normal: most persons have a few images, some a hundred.
    weights = torch.randn(size.identities, generator=generator).mul(0.6).exp()
    centres = torch.randn(size.identities, dim, generator=generator)
    sides = []
    for number, others in ((size.queries, (0, 0)), (size.gallery, (size.junk, size.distractors))):
        identities = torch.multinomial(weights, number, replacement=True, generator=generator)
        features = torch.randn(number, dim, generator=generator).mul_(noise).add_(centres[identities])
        shuffled = torch.randperm(number, generator=generator)
        identities[shuffled[: others[0]]] = -1
        identities[shuffled[others[0] : sum(others)]] = -2
        cameras = torch.randint(size.cameras, (number,), generator=generator)
        sides.append(tuple(column.to(device) for column in (normalize(features), identities, cameras)))
    return sides[0], sides[1]


def seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """Returns the seconds of one call."""
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def extra_peak(function: Callable[[], RetrievalResults], device: str) -> tuple[RetrievalResults, float | None]:
    """Returns the function's result and its peak memory above the memory before, in bytes; `None` if unknown."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        return function(), torch.cuda.max_memory_allocated() - held
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return function(), None
    reset.write_text("5", encoding="utf-8")  # resets the peak to the current resident size

    def peak() -> float:
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    held = peak()
    return function(), peak() - held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="market1501")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--noise", type=float, default=2.5, help="spread of an identity's features; more: harder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's default")
    parser.add_argument("--single-shot", action="store_true", help="measure the single-gallery-shot CMC as well")
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    size = SIZES[args.size]
    query, gallery = generate(size, args.dim, args.noise, args.device)
    buffer = torch.empty(args.chunk, size.gallery, device=args.device)

    def product() -> None:
        for part in query[0].split(args.chunk):
            torch.mm(part, gallery[0].T, out=buffer[: len(part)])

    def ranking() -> RetrievalResults:
        return retrieval_results(*query, *gallery, chunk=args.chunk)

    def single_shot() -> Tensor:
        return single_shot_cmc(*query, *gallery, torch.Generator().manual_seed(0), 10, chunk=args.chunk)

    report = Report(f"ranking, {args.size}")
    report.note(f"{args.size}: {size.queries} x {size.gallery}, {args.dim} values, chunk {args.chunk}")
    results, peak = extra_peak(ranking, args.device)
    seconds(product, args.device)
    times = [(seconds(product, args.device), seconds(ranking, args.device)) for _ in range(args.repeats)]
    pairs = size.queries * size.gallery / 1e9
    report.add(f"matrix product, {args.size}", [bare for bare, _ in times], unit="s")
    report.add(f"ranking, {args.size}", [ours for _, ours in times], unit="s")
    report.add(f"ranking, {args.size}, per 1e9 pairs", [ours / pairs for _, ours in times], unit="s")
    bound = "at most 2.0" if args.size == "market1501" and args.device == "cpu" else ""
    bound = "at most 1.5" if args.size == "msmt17" and args.device == "cuda" else bound
    report.add(f"ranking / matrix product, {args.size}", [ours / bare for bare, ours in times], bound)
    if peak is not None:
        report.add(f"memory above the features, {args.size}", [peak / 2**20], "under 954 MiB (1 GB)", "MiB")
    if args.single_shot:
        shots = [(seconds(product, args.device), seconds(single_shot, args.device)) for _ in range(args.repeats)]
        report.add(
            f"single-shot CMC, 10 galleries / matrix product, {args.size}", [ours / bare for bare, ours in shots]
        )
    matches = {name: round(value, 4) for name, value in summarize(results).items()}
    report.note(f"result: {matches}")
    report.finish(args.json)


if __name__ == "__main__":
    main()
