"""docs/results.md contains the numbers of results/study.csv, computed as the page describes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedreid_pl.comparison.study_results import StudyResults
from fedreid_pl.comparison.study_rows import Row

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
page = pytest.importorskip("results_page")
from results_rounds import LONGER, REPORTED  # noqa: E402


def row(experiment: str, seed: int, section: str, test: str, rank1: float, moved: float = 1.0, images: int = 0) -> Row:
    return Row(
        *(experiment, seed, 30, section, test, images or None, rank1, rank1 / 2, 5.0, 2.5, rank1, moved, 3.0),
        *(60.0, 2_000_000, 1, "0", "", experiment),
    )


@pytest.fixture(scope="module")
def kept() -> StudyResults:
    """Returns the saved results; the page and its figures share the computed differences."""
    return page.read_results(ROOT / "results" / "study.csv")


def test_the_page_shows_the_saved_rows(kept: StudyResults) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page.with_results(text, kept, page.read_results(ROOT / "results" / "imagenet.csv")) == text


def test_the_figures_and_the_readme_show_the_saved_rows(kept: StudyResults) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.with_table(readme, kept) == readme
    for name, svg in page.figures(kept, page.METHODS).items():
        assert (ROOT / "docs" / "assets" / name).read_text(encoding="utf-8") == svg


def test_the_difference_of_means_is_over_the_test_sets_that_both_have() -> None:
    rows = []
    for test, gain in (("a", 3.0), ("b", 1.0)):
        rows.append(row("fedpav", 0, "global", test, 40.0))
        rows.append(row("fedpav_kd", 0, "global", test, 40.0 + gain))
    rows.append(row("fedpav", 0, "global", "c", 10.0))
    found = StudyResults(rows).difference(("fedpav_kd", "global"), ("fedpav", "global"), "mean")
    assert found is not None and found.mean == pytest.approx(2.0)
    assert StudyResults(rows).difference(("fedpav_kd", "local"), ("fedpav", "local"), "mean") is None


def test_without_rows_every_answer_is_not_measured_yet() -> None:
    text = page.measured(StudyResults([]))
    assert all(f"### ({letter})" in text for letter in "abcdefg") and text.count("ot measured yet") >= 7
    assert "better" not in text and "worse" not in text


def test_gains_of_clients_are_paired_by_seed_and_ordered_by_size() -> None:
    rows = []
    for seed in range(4):
        for test, images, gain in (("small", 30, 20.0), ("large", 900, 0.0)):
            rows.append(row("local", seed, "local", test, 40.0 + 9 * seed, images=images))
            own = 40.0 + 9 * seed + gain + (-1) ** seed * 0.5
            rows.append(row("fedpav", seed, "local", test, own, images=images))
    text = page.measured(StudyResults(rows))
    (large,) = [line for line in text.splitlines() if line.startswith("| large | 900")]
    (small,) = [line for line in text.splitlines() if line.startswith("| small | 30")]
    assert text.index(large) < text.index(small)
    assert "| +0.0 [" in large and large.endswith("| cannot tell |")
    assert "| +20.0 [" in small and small.endswith("| better |")
    assert "**Better: small; cannot tell: large.**" in text


def test_choices_of_the_round_are_compared_within_each_run() -> None:
    rows = []
    for seed in range(4):
        last = 40.0 + 9 * seed
        rows.append(row("fedpav", seed, "global", "mean", last))
        rows[-1] = replace(rows[-1], rank1_best3=last + 2.0 + 0.1 * (-1) ** seed)
        name = "fedpav+data.val_ids=0.1"
        rows.append(replace(row(name, seed, "global", "mean", last), rank1_best3=last, rank1_validated=last - 3.0))
    text = page.which_round(StudyResults(rows))
    assert "**FedPav: three best rounds on test data +2.0 [" in text and "], better; the validated round -3.0 [" in text
    (held_out,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` | 4 | 53.5 ± 11.6 | +0.0 [")]
    assert "-3.0 [-3.0, -3.0], worse |" in held_out


def test_the_half_fraction_is_balanced_and_finds_the_planted_effects() -> None:
    levels = list(page.FRACTION.values())
    assert len(set(levels)) == 8 and all(sum(level) % 2 == 0 for level in levels)
    put_in = (3.0, -1.0, 0.0, 0.5)
    rows = []
    for seed in range(3):
        for name, level in page.FRACTION.items():
            moved = 2.0 + 0.01 * seed + sum(one * on for one, on in zip(put_in, level, strict=True))
            rows.append(row(name, seed, "global", "mean", 50.0, moved))
    found = page.effects(StudyResults(rows), "fluctuation")
    assert [one.mean for one in found.values()] == pytest.approx(put_in)
    assert page.effects(StudyResults(rows[:-1]), "fluctuation")["KD"].seeds == 2, "incomplete seeds are skipped"
    assert page.effects(StudyResults(rows[:7]), "fluctuation") == {}


def test_the_experiments_of_the_page_are_those_of_the_study() -> None:
    from fedreid_pl.comparison.study_file import read_study

    trained = {name for group in read_study("main").groups for name in group.experiments}
    assert {
        *page.FRACTION,
        *page.METHODS,
        page.CAMERA,
        page.IDENTITY,
        *page.EPOCHS.values(),
        "local",
        LONGER,
        *REPORTED,
    } <= trained
