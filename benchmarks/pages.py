"""Shared code of the scripts that write pages: a part between two marks, Markdown tables, cells of differences."""

from __future__ import annotations

from collections.abc import Sequence

from fedreid_pl.functional.paired import Difference


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
