"""Section: the rounds in which each client was a member, took part, or was left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Sheet, paragraph
from fedreid_pl.reporting.html.markup import joined
from fedreid_pl.reporting.records import Experiments, RunRecord


def body(experiments: Experiments) -> Markup:
    """Returns a table per run whose clients joined or left, and of every run with silos."""
    runs = [(label, run) for label, group in experiments.items() for run in group if _is_shown(run)]
    if not runs:
        return Markup()
    said = "A client is a member from the round in which it joins until it leaves. It takes part in a round if its "
    said += "update is used for the average. It is left out if it failed, or if its update was not valid."
    sheets = [_sheet(f"{label}, seed {run.config.seed}", run).to_html(caption=len(runs) > 1) for label, run in runs]
    return joined([paragraph(said), *sheets])


def _is_shown(run: RunRecord) -> bool:
    members = run.summary.get("members", {})
    changed = any([(span["first"], span["last"]) for span in spans] != [(1, None)] for spans in members.values())
    return bool(members) and (changed or run.config.engine.name == "silos")


def _sheet(title: str, run: RunRecord) -> Sheet:
    done = int(run.summary.get("rounds", run.rounds))
    refused = run.summary.get("rejections", {})
    rows = []
    for client, spans in run.summary["members"].items():
        took_part = set(run.history.series("weights", client, "weight"))
        missed = {round for rounds in refused.get(client, {}).values() for round in rounds} - took_part
        for number, span in enumerate(spans or [{"first": 0, "last": 0, "images": 0}]):
            last = done if span["last"] is None else span["last"]
            own = range(span["first"], last + 1)
            rows.append(
                [
                    client if not number else "",
                    _membership(own, still=span["last"] is None),
                    f"{span['images']:,}",
                    rounds_text(took_part.intersection(own)),
                    rounds_text(missed.intersection(own)),
                ]
            )
    header = ["client", "member in", "training images", "took part in", "left out in"]
    return Sheet(title, header, rows, left=2)


def _membership(rounds: range, still: bool) -> str:
    text = rounds_text(set(rounds) - {0}) if rounds else f"from round {rounds.start}"
    return f"{text} (still a member)" if still else text


def rounds_text(numbers: Collection[int]) -> str:
    """Returns rounds as text with ranges, `-` for no round.

    >>> rounds_text({1, 2, 3, 7, 9, 10}), rounds_text({6}), rounds_text([])
    ('rounds 1 to 3, 7, 9 to 10', 'round 6', '-')
    """
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    if not parts:
        return "-"
    return f"round{'s' * (len(numbers) > 1)} " + ", ".join(_range(part) for part in parts)


def _range(part: Iterable[int]) -> str:
    return " to ".join(map(str, part))
