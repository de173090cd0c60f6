"""docs/results.md, its figures and the README's table from results/study.csv and results/study_persons.csv.gz.

    python benchmarks/results_page.py                                  # writes docs/results.md
    python benchmarks/results_page.py ROWS.csv PAGE.md                 # a page of other rows, such as of a small study

Every figure is computed from the rows. An answer without its rows says "not measured yet".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pages import NOTHING, between, claimed, difference_cells, markdown, mean_cell, section
from results_differences import FEDERATED, GLOBAL, KINDS, STANDALONE, cells_judged, tests_judged
from results_figures import figures
from results_rounds import longer, which_round

from fedreid_pl.comparison.study_file import read_study
from fedreid_pl.comparison.study_persons import persons_path, read_study_persons
from fedreid_pl.comparison.study_results import Models, StudyResults
from fedreid_pl.comparison.study_rows import MEAN, read_rows
from fedreid_pl.functional.paired import Difference, family, paired_difference

ROOT = Path(__file__).parent.parent
PAGE, ROWS, README = ROOT / "docs" / "results.md", ROOT / "results" / "study.csv", ROOT / "README.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
FIRST, RATES = "callbacks.backbone_sync.batch_norm=first", "optim.lr_backbone=0.01+optim.lr_head=0.1"
FACTORS = ("statistics of one client", "CDW", "KD", "double rates")
FRACTION = {
    "fedpav": (0, 0, 0, 0),
    "fedpav_kd_rw": (0, 1, 1, 0),
    f"fedpav_rw+{FIRST}": (1, 1, 0, 0),
    f"fedpav_kd+{FIRST}": (1, 0, 1, 0),
    f"fedpav+{FIRST}+{RATES}": (1, 0, 0, 1),
    f"fedpav_rw+{RATES}": (0, 1, 0, 1),
    f"fedpav_kd+{RATES}": (0, 0, 1, 1),
    f"fedpav_kd_rw+{FIRST}+{RATES}": (1, 1, 1, 1),
}
"""Runs of the half fraction and which factors each has."""
METHODS = ("fedpav_kd", "fedpav_rw", "fedpav_kd_rw", "fedpav_cc", "fedpav_cc_rw")
SHOWN = ("local", "centralized", "fedpav", "fedpav_rw", "fedpav_kd_rw")
"""Experiments in the README's table."""
NO_GAIN = "an interval on the other side of zero, or gains that do not fall with the number of training images"
NO_LOCAL_GAIN = "an interval below zero"
RATE = "optim.lr_backbone=0.02"
OTHERS = ("rates", "clients", "methods", "batch_norm", "code")
"""Groups of the study that are compared with FedPav in a table of their own."""
ONE = "data.datasets=[mini-market1501]"
CAMERA, IDENTITY = (f"fedpav+{ONE}+data.scenario={name}" for name in ("by_camera", "by_identity"))
EPOCHS = {
    "1": "fedpav",
    "5": "fedpav+local_epochs=5+rounds=6+evaluate_every=1",
    "10": "fedpav+local_epochs=10+rounds=3+evaluate_every=1",
}


def effects(results: StudyResults, score: str) -> dict[str, Difference]:
    """Main effect of each factor on the global model's mean: the four runs with it less the four without, by seed."""
    runs = {name: results.values((name, "global"), MEAN, score) for name in FRACTION}
    seeds = sorted(set.intersection(*(set(values) for values in runs.values())))
    found = {}
    for index, factor in enumerate(FACTORS if seeds else ()):
        signs = {name: 1 if levels[index] else -1 for name, levels in FRACTION.items()}
        found[factor] = paired_difference(
            [sum(signs[name] * runs[name][seed] for name in FRACTION) / (len(FRACTION) / 2) for seed in seeds]
        )
    return family(found)


def read_results(rows: Path) -> StudyResults:
    """Reads the rows of a study and the scores of persons beside them."""
    return StudyResults(read_rows(rows), read_study_persons(persons_path(rows)))


def measured(results: StudyResults, confirmed: StudyResults | None = None) -> str:
    """Returns the Markdown of all answers and of the table of all experiments.

    Args:
        results: results of the study `main`.
        confirmed: results of the study `imagenet`.
    """
    clients = [_who_gains, _who_gains_tuned, _local_or_global]
    settings = [_fluctuation, longer, _methods, _scenario, _epochs, which_round]
    found = [part(results) for part in [*clients, *settings]]
    found.append(_confirmation(confirmed or StudyResults([])))
    return "\n\n".join([*found, _others(results), _all(results)])


def with_results(text: str, results: StudyResults, confirmed: StudyResults | None = None) -> str:
    """Returns the page's text with the answers from these results between the marks."""
    return between(text, BEGIN, END, measured(results, confirmed))


def with_table(text: str, results: StudyResults) -> str:
    """Returns the README's text with the scores of the main experiments between the marks."""
    lines = [["experiment", "seeds", "global Rank-1", "global mAP", "local Rank-1", "local mAP"]]
    lines.append(["---", *["---:"] * 5])
    for name in SHOWN:
        scores = [
            results.values((name, section), MEAN, score)
            for section in ("global", "local")
            for score in ("rank1", "mAP")
        ]
        if any(scores):
            lines.append([f"`{name}`", str(max(map(len, scores))), *(mean_cell(values) for values in scores)])
    return between(text, BEGIN, END, markdown(lines))


def _by_test(results: StudyResults, title: str, one: Models, other: Models, refuted: str, picture: str = "") -> str:
    judged, mean = tests_judged(results, one, other), results.difference(one, other, MEAN)
    if not judged and mean is None:
        return section(title, NOTHING, refuted)
    lines = [["client", "training images", "difference, points", "verdict"], ["---", "---:", "---:", "---"]]
    lines += [[name, f"{results.images(name):,}", *difference_cells(one_test)] for name, one_test in judged.items()]
    if mean is not None:
        lines.append(["mean", "", *difference_cells(mean)])
    said = [
        f"{word}: {', '.join(names)}"
        for word in ("better", "worse", "cannot tell")
        if (names := [name for name, one_test in judged.items() if one_test.verdict == word])
    ]
    return section(title, "; ".join(said), refuted, picture + markdown(lines))


def _who_gains(results: StudyResults) -> str:
    title = "(a) Who gains from federation? Local models of FedPav less standalone training, Rank-1"
    picture = "![Gain of each client in Rank-1, the largest client first](assets/results-gain.svg)\n\n"
    return _by_test(results, title, FEDERATED, STANDALONE, NO_GAIN, picture)


def _who_gains_tuned(results: StudyResults) -> str:
    title = "(a) with the rate that validation persons chose, lr_backbone=0.02, on both sides; local models, Rank-1"
    return _by_test(results, title, (f"fedpav+{RATE}", "local"), (f"local+{RATE}", "local"), "as above")


def _local_or_global(results: StudyResults) -> str:
    title = "(b) Are local models above the global one? FedPav, local less global, Rank-1"
    return _by_test(results, title, FEDERATED, GLOBAL, NO_LOCAL_GAIN)


def _fluctuation(results: StudyResults) -> str:
    title = "(c) Does the global model fluctuate, and what causes it?"
    fedpav = results.values(GLOBAL, MEAN, "fluctuation")
    said = f"FedPav: {mean_cell(fedpav)} points from one evaluation to the next" if fedpav else NOTHING
    lines = [["factor", "effect on fluctuation, points", "more or less"], ["---", "---:", "---"]]
    words = {"better": "more", "worse": "less", "cannot tell": "cannot tell"}
    found = effects(results, "fluctuation")
    for name, one in found.items():
        interval, verdict = difference_cells(one)
        lines.append([name, interval, words.get(verdict, verdict)])
    table = markdown(lines) if found else f"Factors: {NOTHING}."
    note = "Half fraction of sixteen runs: an effect is mixed with that of the other three factors together."
    return section(title, said, "an interval of another sign for a named factor", f"{table}\n\n{note}")


def _methods(results: StudyResults) -> str:
    title = "(d) Do KD, CDW and clustering help? Differences to FedPav, mean over the test sets"
    picture = "![Differences in Rank-1 of the global model to FedPav](assets/results-methods.svg)"
    return _against_fedpav(results, title, METHODS, picture)


def _others(results: StudyResults) -> str:
    title = "Other algorithms, clients, BatchNorm policies and settings: differences to FedPav"
    names = [name for group in read_study("main").groups if group.name in OTHERS for name in group.experiments]
    note = "With other clients, the mean is over the test sets of these clients."
    return _against_fedpav(results, title, names, note)


def _against_fedpav(results: StudyResults, title: str, names: Sequence[str], note: str) -> str:
    judged = cells_judged(results, names)
    if not judged:
        return section(title, NOTHING, "an interval of another sign")
    kinds = {kind: f"{kind[0]} {'Rank-1' if kind[1] == 'rank1' else kind[1]}" for kind in KINDS}
    lines = [["experiment", *kinds.values()], ["---", *["---:"] * len(KINDS)]]
    for name in names:
        own = [judged.get((name, kind)) for kind in KINDS]
        if any(own):
            lines.append([f"`{name}`", *(", ".join(difference_cells(one)) if one else "-" for one in own)])
    clear = [f"{name}, {kinds[kind]}" for (name, kind), one in judged.items() if one.verdict != "cannot tell"]
    said = f"clear after Holm's correction over the {len(judged)} cells: {'; '.join(clear) or 'none'}"
    calm = "For fluctuation better means higher, so worse means calmer."
    return section(title, said, "an interval of another sign", f"{note}\n\n{markdown(lines)}\n\n{calm}")


def _scenario(results: StudyResults) -> str:
    title = "(e) Does it matter how one dataset is shared out? By identity less by camera, global model, Rank-1"
    found = results.difference((IDENTITY, "global"), (CAMERA, "global"), MEAN)
    return section(title, claimed(found), "an interval at or below zero")


def _epochs(results: StudyResults) -> str:
    title = "(f) What does communication buy? Thirty epochs in rounds of E = 1, 5, 10, global model"
    lines = [["E", "MB", "Rank-1", "less E = 1, points", "verdict"], ["---:", "---:", "---:", "---:", "---"]]
    for epochs, name in EPOCHS.items():
        if values := results.values((name, "global"), MEAN, "rank1"):
            size = fmean(results.values((name, "global"), MEAN, "bytes").values()) / 1e6
            found = results.difference((name, "global"), GLOBAL, MEAN) if epochs != "1" else None
            lines.append(
                [epochs, f"{size:.1f}", mean_cell(values), *(difference_cells(found) if found else ("-", "-"))]
            )
    if len(lines) < 4:
        return section(title, NOTHING, "an interval above zero for a larger E")
    return section(title, "see the table", "an interval above zero for a larger E", markdown(lines))


def _confirmation(results: StudyResults) -> str:
    """The answers (a) and (b) from ImageNet weights."""
    title = "(a) from ImageNet weights: MobileNetV2, local models of FedPav less standalone training, Rank-1"
    gains = _by_test(results, title, FEDERATED, STANDALONE, NO_GAIN)
    title = "(b) from ImageNet weights: MobileNetV2, FedPav, local less global, Rank-1"
    local = _by_test(results, title, FEDERATED, GLOBAL, NO_LOCAL_GAIN)
    return f"{gains}\n\n{local}"


def _all(results: StudyResults) -> str:
    names = list(dict.fromkeys(row.experiment for row in results.rows))
    if not names:
        return f"### All experiments\n\n{NOTHING.capitalize()}."
    columns: list[tuple[str, str, str]] = [
        ("global Rank-1", "global", "rank1"),
        ("global mAP", "global", "mAP"),
        ("local Rank-1", "local", "rank1"),
        ("local mAP", "local", "mAP"),
        ("fluctuation", "global", "fluctuation"),
        ("largest drop", "global", "largest_drop"),
    ]
    lines = [["experiment", "seeds", *(name for name, _, _ in columns), "MB", "seconds"]]
    lines.append(["---", *["---:"] * (len(columns) + 3)])
    for name in names:
        own = {row.seed: row for row in results.rows if row.experiment == name}
        cells = [mean_cell(results.values((name, section), MEAN, score)) for _, section, score in columns]
        size, seconds = fmean(row.bytes for row in own.values()) / 1e6, fmean(row.seconds for row in own.values())
        lines.append([f"`{name}`", str(len(own)), *cells, f"{size:.1f}", f"{seconds:.0f}"])
    note = (
        "Synthetic data; percent, mean ± sample standard deviation over seeds, last round. Seconds beside other work."
    )
    return f"### All experiments\n\n{note}\n\n{markdown(lines)}"


def main(words: Sequence[str]) -> int:
    """Writes the page, its figures and, for docs/results.md, the README's table."""
    rows, page = (Path(word) for word in words) if words else (ROWS, PAGE)
    results, confirmed = read_results(rows), read_results(rows.with_name("imagenet.csv"))
    (page.parent / "assets").mkdir(parents=True, exist_ok=True)
    page.write_text(with_results(PAGE.read_text(encoding="utf-8"), results, confirmed), encoding="utf-8")
    for name, svg in figures(results, METHODS).items():
        (page.parent / "assets" / name).write_text(svg, encoding="utf-8")
    if page == PAGE:
        README.write_text(with_table(README.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
