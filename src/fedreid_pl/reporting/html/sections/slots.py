"""Section: use of the slots of an engine with several processes."""

from __future__ import annotations

from collections import Counter

from markupsafe import Markup

from fedreid_pl.federation.server.history import History
from fedreid_pl.reporting.html.elements import Sheet, paragraph
from fedreid_pl.reporting.html.markup import joined
from fedreid_pl.reporting.records import Experiments, RunRecord

PASSES = {"fit": "training", "evaluate": "evaluation"}
BUSY, LONGEST, PEAK = "busy_seconds", "longest_fit_seconds", "peak_memory_bytes"


def body(experiments: Experiments) -> Markup:
    """Returns seconds by pass with their lower bound, and the busy share of every slot, for runs with several slots."""
    runs = [(label, run) for label, group in experiments.items() for run in group if _sum(run.timings, "slots")]
    if not runs:
        return Markup()
    name = lambda label, run: f"{label}, seed {run.config.seed}"  # noqa: E731
    passes = [[name(label, run), *row] for label, run in runs for row in _passes(run)]
    slots = [[name(label, run), *row] for label, run in runs for row in _slots(run)]
    said = (
        "Clients trained and were evaluated in parallel, in several slots (processes). The bound is the shortest time "
        "that is possible: in each round, the larger of the sum of the clients' times divided by the number of slots "
        "and the time of the longest client; summed over rounds."
    )
    header = ["run", "pass", "sum of clients (s)", "duration (s)", "bound (s)", "speed-up", "largest speed-up"]
    note = (
        "Speed-up: compared with one slot. Largest speed-up: with any number of slots, limited by the longest client."
    )
    first = Sheet(
        "Seconds by pass", header, passes, left=2, notes=[note, *filter(None, map(_longest, (r for _, r in runs)))]
    )
    second = Sheet("Slots", ["run", "slot", "busy (s)", "busy share", "peak memory (MB)"], slots, left=2)
    return joined([paragraph(said), first.to_html(), second.to_html()])


def _passes(run: RunRecord) -> list[list[str]]:
    rows = []
    for kind, title in PASSES.items():
        total, clock, bound = (
            _sum(run.timings, "slots", f"{kind}_{part}_seconds") for part in ("sum", "clock", "bound")
        )
        longest = sum(record.value for record in run.timings.records if record.metric == f"longest_{kind}_seconds")
        if clock and longest:
            numbers = [
                f"{total:,.1f}",
                f"{clock:,.1f}",
                f"{bound:,.1f}",
                f"{total / clock:.2f}",
                f"{total / longest:.2f}",
            ]
            rows.append([title, *numbers])
    return rows


def _slots(run: RunRecord) -> list[list[str]]:
    clock = sum(_sum(run.timings, "slots", f"{kind}_clock_seconds") for kind in PASSES)
    rows = []
    for slot in _names(run.timings, BUSY):
        busy = _sum(run.timings, slot, BUSY)
        peak = max(run.timings.series("system", slot, PEAK).values(), default=0.0)
        rows.append([slot, f"{busy:,.1f}", f"{100 * busy / clock:.0f} %" if clock else "-", f"{peak / 1e6:,.0f}"])
    return rows


def _longest(run: RunRecord) -> str | None:
    """Returns a note on the client that was most often the longest, `None` without timings."""
    rounds: Counter[str] = Counter()
    for client in _names(run.timings, LONGEST):
        rounds[client] += len(run.timings.series("system", client, LONGEST))
    if not rounds:
        return None
    client, count = rounds.most_common(1)[0]
    share = _sum(run.timings, client, LONGEST) / _sum(run.timings, "slots", "fit_sum_seconds")
    return (
        f"{run.config.name}, seed {run.config.seed}: client {client} took longest in {count} of "
        f"{sum(rounds.values())} rounds; these turns are {100 * share:.0f} % of the training time of all clients."
    )


def _names(timings: History, metric: str) -> list[str]:
    return timings.names("system", metric)


def _sum(timings: History, name: str, metric: str = "fit_clock_seconds") -> float:
    return sum(timings.series("system", name, metric).values())
