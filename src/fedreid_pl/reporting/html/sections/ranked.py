"""Section: ranked lists, with the results of a model for single queries, and the persons that it confuses."""

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
"""Number of queries per test set in a comparison; each query has a list per experiment."""

Entry = Mapping[str, Any]


def body(experiments: Experiments) -> Markup:
    """Returns the lists of a run, or of several experiments the lists for the same queries from their first runs."""
    first = {label: runs[0] for label, runs in experiments.items()}
    looked = {label: run for label, run in first.items() if run.inspection}
    known = {label: run for label, run in looked.items() if any(entry["ranked"] for entry in _tests(run).values())}
    if not known:
        return _withheld(first) if looked else Markup()
    said = (
        "Each row shows a query and the first ten gallery images. Images of the query's person by the query's own "
        "camera are skipped, as in the scores. ✓ and a solid green frame: the same person. ✗ and a dashed red frame: "
        "another person. cam: camera. AP: average precision of the query."
    )
    said += "" if any(run.config.data.synthetic for run in known.values()) else " The pictures show real persons."
    if len(experiments) > 1:
        return paragraph(said) + _shared(known)
    (run,) = known.values()
    tests = enumerate(_tests(run).items())
    return joined([paragraph(said), *(_test(run, test, entry, not index) for index, (test, entry) in tests)])


def _tests(run: RunRecord) -> Mapping[str, Entry]:
    return run.inspection["tests"] if run.inspection else {}


def _withheld(runs: Mapping[str, RunRecord]) -> Markup:
    run = next(iter(runs.values()))
    why = "the run did not save them" if shows_images(run.config) else "report.images is off, the default for real data"
    return paragraph(
        f"This page has no ranked lists, identities or features of single images: {why}. To add them, run "
        "fedreid-pl report RUN_FOLDER report.images=true."
    )


def _test(run: RunRecord, test: str, entry: Entry, opened: bool) -> Markup:
    whose = "the server's model" if entry["model"] == "global" else f"the model of {entry['model']}"
    lists = [
        _list(run.folder, item, "hardest query" if item["hardest"] else "random query") for item in entry["ranked"]
    ]
    return folded(f"{test}, {whose}", joined([*lists, _confusions(test, entry)]), "lists", opened)


def _shared(runs: Mapping[str, RunRecord]) -> Markup:
    """Returns the lists for queries that all runs have, below each other."""
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
        f"Most frequent confusions on {test}",
        ["identity of the query", "identity ranked first", "queries"],
        rows,
        notes=["The ten most frequent pairs among the queries with a wrong image at rank 1."],
    )
    return data_table(sheet)
