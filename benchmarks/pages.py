"""Shared code of the scripts that write pages: a part between two marks, Markdown tables, cells of differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from fedreid_pl.functional.paired import Difference

NOTHING = "not measured yet"


def between(text: str, begin: str, end: str, body: str) -> str:
    """Returns a page's text with another body between two marks."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{body}\n\n{end}{after}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Returns the lines of a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def difference_cells(found: Difference) -> tuple[str, str]:
    """Returns a difference with its interval, and the verdict."""
    if found.seeds == 1:
        return f"{found.mean:+.1f}", "one seed"
    return f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]", found.verdict


def section(title: str, claim: str, refuted: str, table: str = "") -> str:
    """Returns a section with a claim and what would refute it."""
    parts = [f"### {title}", f"**{claim[0].upper()}{claim[1:]}.** Refuted by: {refuted}."]
    return "\n\n".join([*parts, table] if table else parts)


def claimed(found: Difference | None) -> str:
    """Returns a difference, its interval and the verdict as a claim."""
    return NOTHING if found is None else ", ".join(difference_cells(found))


def mean_cell(values: Mapping[int, float]) -> str:
    """Returns the mean of the seeds' values with the sample standard deviation."""
    if not values:
        return "-"
    known = list(values.values())
    return f"{fmean(known):.1f}" + (f" ± {stdev(known):.1f}" if len(known) > 1 else "")
