"""Tables of fluctuation, communication and aggregation weights."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from fedreid_pl.comparison.accuracy import Experiments, models_of
from fedreid_pl.comparison.results import Result, spread
from fedreid_pl.comparison.tables import Column, Table

MEGABYTE = 10**6


def fluctuation_table(experiments: Experiments, kind: str) -> Table:
    """Returns the table of the change of Rank-1 between evaluations, in points, with the number of evaluations."""
    table = Table(
        "fluctuation",
        f"Fluctuation of Rank-1 (points){kind}",
        ("models",),
        [
            Column("fluctuation", "rank1_fluctuation"),
            Column("evaluations (2nd half)", "evaluations", ".0f"),
            Column("largest drop", "rank1_largest_drop"),
            Column("evaluations (all)", "evaluations", ".0f"),
            Column("rounds apart", "rounds", ".0f"),
        ],
        notes=[
            "fluctuation: mean absolute change from one evaluation to the next in the second half of the run, "
            "mean over the test sets.",
            "largest drop: the most that one test set lost between two consecutive evaluations of the whole run.",
        ],
    )
    for models in models_of(experiments):
        results = experiments[models.experiment]
        counts = [result.evaluations(models.section) for result in results]
        if not min(counts):
            continue
        cells = [
            spread(result.fluctuation(models.section) for result in results),
            spread([min(count - count // 2 for count in counts)]),
            spread(result.largest_drop(models.section) for result in results),
            spread([min(counts)]),
            spread([results[0].run.config.evaluate_every]),
        ]
        table.add(models.label, cells)
    return table


def communication_table(experiments: Experiments, kind: str) -> Table:
    """Returns the table of the transferred megabytes (10^6 bytes) and the seconds of each experiment."""
    table = Table(
        "communication",
        f"Communication and time{kind}",
        ("experiment",),
        [
            Column("backbone MB", "megabytes", ",.3f"),
            Column("clients", "clients", ".0f"),
            Column("rounds", "rounds", ".0f"),
            Column("MB per client", "megabytes_down_and_up", ",.2f"),
            Column("MB in total", "megabytes_down_and_up", ",.2f"),
            Column("seconds", "seconds", ",.0f"),
        ],
        notes=["Megabytes go down and up over the whole run; seconds were taken beside whatever else was running."],
    )
    for label, results in experiments.items():
        total = [(result.costs.bytes_down + result.costs.bytes_up) / MEGABYTE for result in results]
        cells = [
            spread([results[0].costs.backbone_bytes / MEGABYTE]),
            spread([len(results[0].clients)]),
            spread([results[0].rounds]),
            spread(size / len(result.clients) for size, result in zip(total, results, strict=True)),
            spread(total),
            spread(result.costs.seconds for result in results),
        ]
        table.add(label, cells)
    return table


def weight_tables(experiments: Experiments, kind: str) -> list[Table]:
    """Returns tables of every client's aggregation weight: the mean over rounds and the last round.

    Experiments with the same clients share a table.
    """
    tables: dict[tuple[str, ...], Table] = {}
    for label, results in experiments.items():
        if not any(result.history.names("weights", "weight") for result in results):
            continue
        clients = tuple(results[0].clients)
        table = tables.setdefault(
            clients,
            Table(
                "weights",
                f"Aggregation weights{kind}",
                ("experiment", "when"),
                [Column(client, "weight", ".3f") for client in clients],
                notes=["mean: over the rounds in which the client took part."],
            ),
        )
        table.add((label, "mean"), [spread(_mean_weight(result, client) for result in results) for client in clients])
        table.add((label, "last round"), [spread(_last_weight(results, client)) for client in clients])
    return list(tables.values())


def _mean_weight(result: Result, client: str) -> float | None:
    series = result.history.series("weights", client, "weight")
    return fmean(series.values()) if series else None


def _last_weight(results: Sequence[Result], client: str) -> list[float | None]:
    return [result.history.series("weights", client, "weight").get(result.rounds) for result in results]
