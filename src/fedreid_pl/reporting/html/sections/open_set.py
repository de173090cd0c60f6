"""Whether models notice that a person is not in the gallery, and what re-ranking adds."""

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
    """Open-set measures by test set and model, of the runs that have them in inspection.json."""
    lines = lines_of(experiments, standalone)
    found = inspected_numbers(lines, "open_set")
    if not found:
        return Markup()
    columns = {name: title for name, title in OPEN_SET.items() if _has(found, name)}
    notes = [
        "TPR: accepted pairs of one person, where the share FPR of the pairs of two persons is accepted.",
        "DIR: queries whose person is found and named, where the share FAR of absent persons is reported as found; "
        "every query plays an absent person once. With fewer than 1 / FAR queries no false alarm is allowed.",
        *_thresholds(lines),
    ]
    header = ["model", "test set", *columns.values()]
    sheet = Sheet("Open-set measures (%) of the last round", header, _rows(found, columns), left=2, notes=notes)
    return paragraph("Is the person in the gallery at all? In percent; last round.") + sheet.to_html()


def reranking(experiments: Experiments, standalone: RunRecord | None) -> Markup:
    """Scores after k-reciprocal re-ranking by test set and model, of the runs that have them in inspection.json."""
    found = inspected_numbers(lines_of(experiments, standalone), "reranked")
    if not found:
        return Markup()
    said = (
        "Scores after k-reciprocal re-ranking (Zhong et al., CVPR 2017), which compares the gallery images and the "
        "queries with each other as well. No other table or chart of this page holds re-ranked scores."
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
    """Says which thresholds were calibrated, and what the last two columns are."""
    runs = list({run.folder: run for line in lines for run in line.runs if line.section == "global"}.values())
    said = []
    for run in runs:
        entry = ((run.inspection or {}).get("thresholds") or {}).get("global")
        if entry:
            name = f" of {run.config.name}, seed {run.config.seed}" if len(runs) > 1 else ""
            said.append(
                f"Threshold of the global model{name}: {entry['value']:.4f}, {percent(entry['far'])} % false alarms in "
                f"{entry['queries']} searches for validation persons, at most {entry['persons']} of them in a gallery."
            )
    if not said:
        return ["No threshold was calibrated: data.val_ids=0.1 in training holds out validation persons for it."]
    meaning = (
        "False alarms: absent persons reported as found. Identified: present persons found and named. Both at the "
        "threshold that validation persons gave."
    )
    return [meaning, *said]
