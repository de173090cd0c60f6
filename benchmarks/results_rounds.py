"""Answers of docs/results.md about rounds: how flat the curve is, and which round is reported."""

from __future__ import annotations

from pages import NOTHING, claimed, difference_cells, markdown, mean_cell, section
from results_differences import GLOBAL, tests_judged

from fedreid_pl.comparison.study_results import StudyResults
from fedreid_pl.comparison.study_rows import MEAN
from fedreid_pl.functional.paired import Difference, family, paired_difference

LONGER = "fedpav+rounds=90"
VALIDATED = ("fedpav+data.val_ids=0.1", "fedpav_kd_rw+data.val_ids=0.1")
REPORTED = ("fedpav", "fedpav_rw", "fedpav_kd", "fedpav_kd_rw", *VALIDATED)
"""Experiments whose choice of the round is shown."""
CHOICES = {"rank1_best3": "mean of the three best rounds on test data", "rank1_validated": "validated round"}


def longer(results: StudyResults) -> str:
    """Returns the section on FedPav after 30 and after 90 rounds, one run each."""
    title = "(c) Do more rounds change the answer? FedPav, 90 rounds less 30, global model, one seed"
    refuted = "a difference of another sign with more seeds"
    lines = [["test set", "difference in Rank-1, points", "verdict"], ["---", "---:", "---"]]
    judged = tests_judged(results, (LONGER, "global"), GLOBAL)
    lines += [[name, *difference_cells(one)] for name, one in judged.items()]
    found = results.difference((LONGER, "global"), GLOBAL, MEAN)
    if found is None:
        return section(title, NOTHING, refuted)
    lines.append(["mean", *difference_cells(found)])
    means = [mean_cell({0: results.values((name, "global"), MEAN, "fluctuation")[0]}) for name in ("fedpav", LONGER)]
    note = f"Fluctuation from one evaluation to the next: {means[0]} points in 30 rounds, {means[1]} in 90."
    return section(title, claimed(found), refuted, f"{note}\n\n{markdown(lines)}")


def chosen_rounds(results: StudyResults) -> dict[tuple[str, str], Difference]:
    """Returns Rank-1 of a choice of rounds less that of the last round, after Holm's correction over all of them.

    The keys are experiment and column. The difference is within each run, so its interval is over seeds.
    """
    found = {}
    for name in REPORTED:
        last = results.values((name, "global"), MEAN, "rank1")
        for score in CHOICES:
            values = results.values((name, "global"), MEAN, score)
            if seeds := sorted(last.keys() & values.keys()):
                found[name, score] = paired_difference([values[seed] - last[seed] for seed in seeds])
    return family(found)


def which_round(results: StudyResults) -> str:
    """Returns the section on scores of the last round, of the three best rounds and of the validated round."""
    title = "(g) Which round is reported? Global model, Rank-1, mean over the test sets"
    refuted = "an interval of another sign"
    found = chosen_rounds(results)
    flattered, validated = found.get(("fedpav", "rank1_best3")), found.get((VALIDATED[0], "rank1_validated"))
    if flattered is None:
        return section(title, NOTHING, refuted)
    claim = f"FedPav: three best rounds on test data {claimed(flattered)}; the validated round {claimed(validated)}"
    lines = [["experiment", "seeds", "last round", *(f"{name}, less last" for name in CHOICES.values())]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for name in REPORTED:
        if last := results.values((name, "global"), MEAN, "rank1"):
            cells = [claimed(one) if (one := found.get((name, score))) else "-" for score in CHOICES]
            lines.append([f"`{name}`", str(len(last)), mean_cell(last), *cells])
    note = (
        "The paper reports the mean of the three best rounds, chosen on test data. The validated round is the best one "
        "on persons that `data.val_ids=0.1` holds out of training."
    )
    return section(title, claim, refuted, f"{note}\n\n{markdown(lines)}")
