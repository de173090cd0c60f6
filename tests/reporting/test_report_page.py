"""The report page: no external content, a table for every chart, and names as plain text."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_runs import curves_of, history_of, write_run
from PIL import Image

from fedreid_pl.comparison.report import report_of
from fedreid_pl.reporting.html.report import Report, report_of_run, write_report
from fedreid_pl.reporting.records import group_runs, read_run

TESTS = ("mini-viper", "mini-ilids")
VOID = {"meta", "link", "img", "br", "circle", "path", "rect", "line", "polygon"}


class Page(HTMLParser):
    """Checks nesting, and collects tags, attributes, tables and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID or tag in ("circle", "path", "rect", "polygon"):
            self.stack.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.stack and self.stack[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def score(section: str, round: int, test: str) -> float:
    return (0.3 + 0.1 * round) / (1 + (test == "mini-ilids"))


def single(folder: Path, *words: str, inspection: dict[str, Any] | None = None, name: str = "exp=fedpav") -> Path:
    history = history_of(3, TESTS, score, weights=name != "exp=local")
    return write_run(folder, [name, "rounds=3", *words], history, TESTS, inspection)


def with_lists(folder: Path) -> dict[str, Any]:
    """Returns an inspection with one list and writes its images."""
    content = curves_of(TESTS, 0.4)
    images = {
        name: {"identity": 7 + index, "camera": index, "image": f"images/{name}.jpg"}
        for index, name in enumerate("qab")
    }
    gallery = [
        {**images["a"], "score": 0.9, "correct": False},
        {**images["b"], "identity": 7, "score": 0.8, "correct": True},
    ]
    entry = {"query": images["q"], "hardest": True, "average_precision": 0.5, "gallery": gallery}
    confusion = [{"identity": 7, "mistaken_for": 8, "count": 3}, {"identity": 7, "mistaken_for": -2, "count": 1}]
    content["tests"] = {TESTS[0]: {**content["tests"][TESTS[0]], "ranked": [entry], "confusions": confusion}}
    points = [{"test": TESTS[0], "identity": 7, "camera": c, "before": [c, 0.0], "after": [0.0, c]} for c in (0, 1, 2)]
    explained = {"before": 0.5, "after": 0.25}
    content["embedding"] = {"method": "PCA", "model": "global", "explained": explained, "points": points}
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate("qab"):
        Image.new("RGB", (8, 16), (80 * number, 10, 200)).save(folder / "images" / f"{name}.jpg", comment=b"kittiwake")
    return {**content, "images": True}


def test_the_page_requests_no_other_file(tmp_path: Path) -> None:
    single(tmp_path / "local" / "seed0", name="exp=local")
    text = report_of_run(single(tmp_path / "fedpav" / "seed0", inspection=curves_of(TESTS, 0.4))).to_html()
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text


def test_every_chart_has_a_text_alternative_and_every_figure_a_table(tmp_path: Path) -> None:
    single(tmp_path / "local" / "seed0", name="exp=local")
    page = Page(report_of_run(single(tmp_path / "fedpav" / "seed0", inspection=curves_of(TESTS, 0.4))).to_html())
    pictures = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) >= 8 and all(len(attributes.get("aria-label") or "") > 20 for attributes in pictures)
    sections = {a["id"] for t, a in page.tags if t == "section"}
    assert {"results", "accuracy", "weights", "gap", "cmc", "cost", "reproduce"} <= sections
    links = {a["href"] for t, a in page.tags if t == "a"}
    assert {f"#{name}" for name in sections} <= links
    scrolls = [a for t, a in page.tags if t == "div" and a.get("class") == "scroll"]
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolls)
    headings = [rows[0] for rows in page.tables]
    assert ["test set", "round", "global model", "local models", "standalone"] in headings
    assert ["experiment", "round", *TESTS] in headings


def test_the_first_table_has_the_last_scores_and_the_differences_to_standalone(tmp_path: Path) -> None:
    write_run(
        tmp_path / "local" / "seed0",
        ["exp=local", "rounds=3"],
        history_of(3, TESTS, lambda section, round, test: 0.25, weights=False),
        TESTS,
    )
    page = Page(report_of_run(single(tmp_path / "fedpav" / "seed0")).to_html())
    assert page.tables[0][1] == ["mini-viper", "60.0", "48.0", "60.0", "48.0", "25.0", "+35.0", "+35.0"]
    assert page.tables[0][2][:2] == ["mini-ilids", "30.0"] and page.tables[0][2][-1] == "+5.0"
    assert page.tables[0][3][0] == "mean" and page.tables[0][3][-1] == "+20.0"


def test_ranked_lists_show_right_and_wrong_without_colour(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    content = with_lists(tmp_path / "kept")
    single(folder, inspection=content)
    (tmp_path / "kept" / "images").rename(folder / "images")
    text = report_of_run(folder).to_html()
    page = Page(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    pictures = [base64.b64decode(str(a["src"]).partition("base64,")[2]) for a in images]
    for number, picture in enumerate(pictures):
        with Image.open(io.BytesIO(picture)) as shown:
            red, green, blue = shown.convert("RGB").getpixel((4, 8))
        assert abs(red - 80 * number) < 6 and abs(green - 10) < 6 and abs(blue - 200) < 6
        assert b"kittiwake" not in picture, "the file contains only pixels"
    assert str(images[1]["alt"]).startswith("rank 1: another person, identity 8, camera 1")
    assert str(images[2]["alt"]).startswith("rank 2: the same person, identity 7, camera 2")
    assert "✗ 1" in page.words and "✓ 2" in page.words
    kinds = [a["class"] for t, a in page.tags if t == "li" and (a.get("class") or "").startswith("shot")]
    assert kinds == ["shot wrong", "shot right"]
    assert ["7", "distractor", "1"] in [row for rows in page.tables for row in rows]
    assert "before the initial network" not in text and "Before: the initial network" in text


def test_with_images_off_the_page_contains_no_data_of_single_images(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    content = with_lists(tmp_path / "kept")  # as if left from an earlier report
    single(folder, "report.images=false", inspection=content)
    (tmp_path / "kept" / "images").rename(folder / "images")
    text = report_of_run(folder).to_html()
    assert "<img" not in text and "base64" not in text
    for word in ("identity 7", "camera 1", "mistaken", "images/q"):
        assert word not in text
    assert "report.images is off" in text and "CMC curves" in text


def test_open_set_and_reranked_scores_have_separate_tables(tmp_path: Path) -> None:
    content = curves_of(TESTS, 0.4)
    measures = {"tpr@fpr=0.01": 0.5, "dir@far=0.01": 0.25, "false_alarms": 0.03, "identified": None, "queries": 9.0}
    for level, test in enumerate(TESTS):
        again = {"rank1": 0.9 - level / 10, "rank5": 0.95, "rank10": 0.96, "mAP": 0.7}
        entry = {"open_set": {"global": measures}, "reranked": {"global": again}}
        content["tests"] = {**content["tests"], test: {**content["tests"][test], **entry}}
    content["thresholds"] = {"global": {"value": 0.625, "far": 0.01, "queries": 40, "clients": 2, "persons": 50}}
    text = report_of_run(single(tmp_path / "run", inspection=content)).to_html()
    page = Page(text)
    open_set = next(rows for rows in page.tables if "false alarms" in rows[0])
    assert open_set[0] == ["model", "test set", "TPR, FPR 1 %", "DIR, FAR 1 %", "false alarms"]
    assert open_set[1] == ["global model", TESTS[0], "50.0", "25.0", "3.0"]
    assert "The threshold of the global model is 0.6250." in text and "1.0 % false alarms in 40 searches" in text
    reranked = next(rows for rows in page.tables if "re-ranked mAP" in rows[0])
    assert [row[2] for row in reranked[1:]] == ["90.0", "80.0"]
    assert not any("90.0" in row for rows in page.tables if rows is not reranked for row in rows)
    plain = report_of_run(single(tmp_path / "plain", inspection=curves_of(TESTS, 0.4))).to_html()
    assert "re-ranked" not in plain and "Persons who are not" not in plain


def test_participation_names_single_rounds_and_ranges(tmp_path: Path) -> None:
    folder = single(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    once, early, late = ({"first": first, "last": last, "images": 20} for first, last in ((3, None), (1, 2), (4, None)))
    summary["members"] = {TESTS[0]: [once], TESTS[1]: [early, late], "never": []}
    summary["rejections"] = {TESTS[0]: {"RuntimeError": [3]}, "never": {"RuntimeError": [2]}}
    (folder / "summary.json").write_text(json.dumps(summary))
    page = Page(report_of_run(folder).to_html())
    header, *rows = next(rows for rows in page.tables if "took part in" in rows[0])
    assert header == ["client", "member in", "training images", "took part in", "left out in"]
    assert rows == [
        [TESTS[0], "round 3 (still a member)", "20", "round 3", "-"],
        [TESTS[1], "rounds 1 to 2", "20", "rounds 1 to 2", "-"],
        ["", "from round 4 (still a member)", "20", "-", "-"],
        ["never", "-", "0", "-", "-"],
    ]


@pytest.mark.parametrize(("word", "shown"), [("report.images=false", "false"), ("report.images=true", "true")])
def test_a_run_without_an_inspection_shows_the_command(tmp_path: Path, word: str, shown: str) -> None:
    folder = single(tmp_path / "run", word)
    text = report_of_run(folder).to_html()
    assert f"computes them from the last checkpoint: fedreid-pl report RUN_FOLDER report.images={shown}" in text
    assert str(folder) not in text


@pytest.mark.parametrize(("words", "flagged"), [([], True), (["data=fedreidbench"], False)])
def test_synthetic_data_are_labelled(tmp_path: Path, words: list[str], flagged: bool) -> None:
    text = report_of_run(single(tmp_path / "run", *words)).to_html()
    assert ("Synthetic data" in text) is flagged


def test_an_unfinished_run_is_labelled(tmp_path: Path) -> None:
    history = history_of(2, TESTS, score)
    text = report_of_run(write_run(tmp_path / "run", ["exp=fedpav", "rounds=5"], history, TESTS)).to_html()
    assert "Incomplete run: fedpav, seed 0" in text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = '<img src=x onerror="alert(1)">&'
    history = history_of(2, (name, "b"), lambda section, round, test: 0.5)
    folder = write_run(tmp_path / "run", ["exp=fedpav", "rounds=2"], history, (name, "b"), curves_of((name,), 0.5))
    page = Page(report_of_run(folder).to_html())
    assert not [attributes for tag, attributes in page.tags if tag == "img" or "onerror" in attributes]
    assert name in "".join(page.words)


def test_a_run_without_scores_has_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["exp=fedpav"], history_of(0, (), score), ())
    (folder / "summary.json").unlink()
    page = Page(report_of_run(folder).to_html())
    assert "reproduce" in {a.get("id") for t, a in page.tags if t == "section"}


def test_experiments_and_sweeps_share_one_page(tmp_path: Path) -> None:
    folders = [single(tmp_path / f"b{size}", f"batch_size={size}") for size in (8, 16)]
    folders += [single(tmp_path / f"local{seed}", f"seed={seed}", name="exp=local") for seed in (0, 1)]
    report = report_of(folders)
    page = Page(report.to_html())
    assert list(report.experiments) == ["fedpav+batch_size=8", "fedpav+batch_size=16", "local"]
    sections = {a["id"] for t, a in page.tags if t == "section"}
    assert "settings" in sections
    assert ["fedpav", "mini-viper", "B=8", "60.0"] in [row for rows in page.tables for row in rows]


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    folder = single(tmp_path / "run", inspection=curves_of(TESTS, 0.4))
    first = write_report(Report(group_runs([read_run(folder)])), tmp_path / "a.html").read_bytes()
    assert write_report(Report(group_runs([read_run(folder)])), tmp_path / "b.html").read_bytes() == first
    assert not re.search(rb"\d{4}-\d\d-\d\d", first), "no date"
