"""Section: open-set measures, for persons who are not in the gallery, and scores after re-ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Sheet, paragraph
from fedreid_pl.reporting.records import Experiments, RunRecord
from fedreid_pl.reporting.tables import OPEN_SET, percent
from fedreid_pl.reporting.views import Line, inspected_numbers, lines_of

Numbers = Mapping[str, Mapping[str, Mapping[str, float]]]

RERANKED = {"rank1": "re-ranked R1", "rank5": "re-ranked R5", "rank10": "re-ranked R10", "mAP": "re-ranked mAP"}


def body(experiments: Experiments, standalone: RunRecord | None) -> Markup:
    """Returns open-set measures by test set and model, for runs that have them in inspection.json."""
    lines = lines_of(experiments, standalone)
    found = inspected_numbers(lines, "open_set")
    if not found:
        return Markup()
    columns = {name: title for name, title in OPEN_SET.items() if _has(found, name)}
    notes = [
        "TPR (true positive rate): share of the pairs of images of one person that are accepted, if the share FPR of "
        "the pairs of two different persons is accepted.",
        "DIR (detection and identification rate): share of the queries whose person is reported as found and named "
        "correctly, if the share FAR of the searches for absent persons reports a person as found. For FAR, every "
        "query is searched once in a gallery without its person. With fewer than 1 / FAR queries, no false alarm is "
        "allowed.",
        *_thresholds(lines),
    ]
    header = ["model", "test set", *columns.values()]
    sheet = Sheet("Open-set measures (%) of the last round", header, _rows(found, columns), left=2, notes=notes)
    said = "These measures show whether a model notices that a query's person is not in the gallery. In percent."
    return paragraph(said) + sheet.to_html()


def reranking(experiments: Experiments, standalone: RunRecord | None) -> Markup:
    """Returns scores after k-reciprocal re-ranking by test set and model, for runs whose inspection.json has them."""
    found = inspected_numbers(lines_of(experiments, standalone), "reranked")
    if not found:
        return Markup()
    said = (
        "Scores after k-reciprocal re-ranking (Zhong et al., CVPR 2017), which also compares the gallery images with "
        "each other and the queries with each other. All other tables and charts of this page are without re-ranking."
    )
    header = ["model", "test set", *RERANKED.values()]
    sheet = Sheet("Re-ranked scores (%) of the last round", header, _rows(found, RERANKED), left=2)
    return paragraph(said) + sheet.to_html()


def _rows(found: Numbers, columns: Mapping[str, str]) -> list[list[str]]:
    labels = dict.fromkeys(label for models in found.values() for label in models)
    return [
        [label, test, *(percent(models[label].get(name)) for name in columns)]
        for label in labels
        for test, models in found.items()
        if label in models
    ]


def _has(found: Numbers, name: str) -> bool:
    return any(name in numbers for models in found.values() for numbers in models.values())


def _thresholds(lines: Sequence[Line]) -> list[str]:
    """Returns notes on the calibrated thresholds and on the last two columns."""
    runs = list({run.folder: run for line in lines for run in line.runs if line.section == "global"}.values())
    said = []
    for run in runs:
        entry = ((run.inspection or {}).get("thresholds") or {}).get("global")
        if entry:
            name = f" of {run.config.name}, seed {run.config.seed}" if len(runs) > 1 else ""
            said.append(
                f"The threshold of the global model{name} is {entry['value']:.4f}. It was calibrated with validation "
                f"persons: {percent(entry['far'])} % false alarms in {entry['queries']} searches, with at most "
                f"{entry['persons']} persons in a gallery."
            )
    if not said:
        return ["No threshold was calibrated. Calibration needs validation persons: train with data.val_ids=0.1."]
    meaning = (
        "False alarms: share of searches for absent persons that report a person as found. Identified: share of "
        "present persons that are reported as found and named correctly. Both use the calibrated threshold."
    )
    return [meaning, *said]
