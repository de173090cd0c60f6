"""Ranked lists: what a model finds for single queries, and whom it mistakes for whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Sheet, data_table, folded, paragraph
from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.inspection import shows_images
from fedreid_pl.reporting.records import Experiments, RunRecord
from fedreid_pl.reporting.thumbnails import data_address, thumbnail

SHARED = 2
"""Queries per test set that a comparison shows, each with the list of every experiment."""

Entry = Mapping[str, Any]


def body(experiments: Experiments) -> Markup:
    """The lists of a run; of several experiments the same queries under each other, from the first run of each."""
    first = {label: runs[0] for label, runs in experiments.items()}
    looked = {label: run for label, run in first.items() if run.inspection}
    known = {label: run for label, run in looked.items() if any(entry["ranked"] for entry in _tests(run).values())}
    if not known:
        return _withheld(first) if looked else Markup()
    said = (
        "Query, then the first ten gallery images; those of its person seen by its own camera are left out, as in the "
        "scores. ✓ and a full green frame: the same person. ✗ and a broken red frame: another one. "
        "cam: camera. AP: average precision of the query."
    )
    said += "" if any(run.config.data.synthetic for run in known.values()) else " These are pictures of real persons."
    if len(experiments) > 1:
        return paragraph(said) + _shared(known)
    (run,) = known.values()
    tests = enumerate(_tests(run).items())
    return joined([paragraph(said), *(_test(run, test, entry, not index) for index, (test, entry) in tests)])


def _tests(run: RunRecord) -> Mapping[str, Entry]:
    return run.inspection["tests"] if run.inspection else {}


def _withheld(runs: Mapping[str, RunRecord]) -> Markup:
    run = next(iter(runs.values()))
    why = "they were not written" if shows_images(run.config) else "report.images is off, as it is for real pictures"
    return paragraph(
        f"Left out: {why}. Ranked lists, identities and features of single images are written with report.images=true."
    )


def _test(run: RunRecord, test: str, entry: Entry, opened: bool) -> Markup:
    whose = "the server's model" if entry["model"] == "global" else f"the model of {entry['model']}"
    lists = [_list(run.folder, item, "hardest" if item["hardest"] else "drawn") for item in entry["ranked"]]
    return folded(f"{test}, {whose}", joined([*lists, _confusions(test, entry)]), "lists", opened)


def _shared(runs: Mapping[str, RunRecord]) -> Markup:
    """Queries that were drawn in all runs, below each other."""
    parts: list[Markup] = []
    tests = dict.fromkeys(test for run in runs.values() for test in _tests(run))
    for test in tests:
        by_query: dict[str, list[tuple[str, RunRecord, Entry]]] = {}
        for label, run in runs.items():
            for item in _tests(run).get(test, {}).get("ranked", []):
                by_query.setdefault(item["query"]["image"], []).append((label, run, item))
        chosen = sorted(by_query.values(), key=lambda entries: -len(entries))[:SHARED]
        lists = joined(_list(run.folder, item, label) for entries in chosen for label, run, item in entries)
        if lists:
            parts.append(folded(test, lists, "lists", opened=not parts))
    return joined(parts)


def _list(folder: Path, entry: Entry, label: str) -> Markup:
    query = entry["query"]
    precision = f"AP {100 * entry['average_precision']:.1f} %"
    head = paragraph(f"{label}: identity {query['identity']}, camera {query['camera']}, {precision}", "note")
    shots = [_shot(folder, image, rank) for rank, image in enumerate(entry["gallery"], 1)]
    name = f"query: identity {query['identity']}, camera {query['camera']}"
    image = _image(folder, query["image"], name)
    shot = element("div", image, element("b", "query"), f"cam {query['camera']}", class_="shot")
    return joined([head, element("div", shot, element("ol", *shots), class_="ranked")])


def _shot(folder: Path, image: Entry, rank: int) -> Markup:
    right = image["correct"]
    who = f"identity {image['identity']}" if image["identity"] >= 0 else "a distractor"
    name = f"rank {rank}: {'the same person' if right else 'another person'}, {who}, camera {image['camera']}"
    name += f", score {image['score']:.2f}"
    picture, sign = _image(folder, image["image"], name), element("b", f"{'✓' if right else '✗'} {rank}")
    return element("li", picture, sign, f"cam {image['camera']}", class_=f"shot {'right' if right else 'wrong'}")


def _image(folder: Path, path: str, name: str) -> Markup:
    jpeg = thumbnail(folder, path)
    if not jpeg:
        return element("span", "no picture", title=name)
    return element("img", alt=name, title=name, src=data_address(jpeg))


def _confusions(test: str, entry: Entry) -> Markup:
    rows = [
        [
            str(pair["identity"]),
            str(pair["mistaken_for"]) if pair["mistaken_for"] >= 0 else "distractor",
            str(pair["count"]),
        ]
        for pair in entry["confusions"]
    ]
    if not rows:
        return Markup()
    sheet = Sheet(
        f"Who is mistaken for whom on {test}",
        ["identity of the query", "identity ranked first", "queries"],
        rows,
        notes=["The ten most frequent pairs among the queries whose first rank is wrong."],
    )
    return data_table(sheet)
