"""Hostile files in run folders, read by the commands that use them: one error line, or plain text in the output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser as chromium
import pytest
from made_runs import curves_of, history_of, write_run
from PIL import Image

from fedreid_pl.cli import main

TESTS = ("mini-viper", "mini-ilids")
MARKUP = '"><img src=http://203.0.113.9/x onerror="window.hit=1"><script>window.hit=1</script></title></svg>\'&'
ESCAPE = "a\x1b[2Jb\x07"
SECRET = "kittiwake-4711"


def inspection(image: str = "images/q.jpg") -> dict[str, Any]:
    """Returns an inspection with one ranked list and one plane of points."""
    content = curves_of(TESTS, 0.4)
    shot = {"identity": 7, "camera": 1, "image": image}
    entry = {"query": shot, "hardest": True, "average_precision": 0.5}
    ranked = [{**entry, "gallery": [{**shot, "score": 0.9, "correct": True}]}]
    tests = {test: {**found, "ranked": ranked} for test, found in content["tests"].items()}
    point = {"test": TESTS[0], "identity": 7, "camera": 1, "before": [0.0, 1.0], "after": [1.0, 0.0]}
    embedding = {"method": "PCA", "model": "global", "explained": {"before": 0.5, "after": 0.5}, "points": [point]}
    return {**content, "images": True, "tests": tests, "embedding": embedding}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Returns a run folder without checkpoints, with all files that the report reads."""
    history = history_of(2, TESTS, lambda section, round, test: 0.2 + 0.1 * round)
    folder = write_run(tmp_path / "run", ["exp=fedpav", "rounds=2"], history, TESTS, inspection())
    (folder / "images").mkdir()
    Image.new("RGB", (16, 32), (200, 30, 30)).save(folder / "images" / "q.jpg")
    (tmp_path / "secret.jpg").write_bytes((folder / "images" / "q.jpg").read_bytes())
    return folder


def changed(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / file).write_text(json.dumps(change(json.loads((folder / file).read_text()))))

    return spoil


def holding(file: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def sparse(file: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / file, 1 << 30)


def pipe(file: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return spoil


def linked(file: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / file).rename(folder.parent / f"outside-{file}")
        (folder / file).symlink_to(folder.parent / f"outside-{file}")

    return spoil


def rows(*lines: str) -> str:
    return "\n".join(["round,section,name,metric,value", *lines]) + "\n"


DEEP = "[" * 10_000 + "]" * 10_000
SUMMARY, METRICS, SEEN = "summary.json", "metrics.csv", "inspection.json"
SPOILT: dict[str, tuple[str, Callable[[Path], None]]] = {
    "summary: a list": (SUMMARY, holding(SUMMARY, "[1]")),
    "summary: text for a score": (
        SUMMARY,
        changed(SUMMARY, lambda c: {**c, "global": {"a": {"rank1": {"last": "0.5"}}}}),
    ),
    "summary: NaN": (SUMMARY, holding(SUMMARY, '{"local": {"a": {"rank1": {"last": NaN}}}}')),
    "summary: a score of 1e300": (SUMMARY, holding(SUMMARY, '{"local": {"a": {"rank1": {"last": 1e300}}}}')),
    "summary: deep": (SUMMARY, holding(SUMMARY, '{"clients": ' + DEEP + "}")),
    "summary: clients": (SUMMARY, changed(SUMMARY, lambda c: {**c, "clients": {str(n): n for n in range(100_001)}})),
    "summary: a name with terminal control characters": (
        SUMMARY,
        changed(SUMMARY, lambda c: {**c, "clients": {ESCAPE: 1}}),
    ),
    "summary: costs": (SUMMARY, changed(SUMMARY, lambda c: {**c, "costs": {"seconds": {"fit": [1]}}})),
    "summary: a gigabyte": (SUMMARY, sparse(SUMMARY)),
    "summary: a pipe": (SUMMARY, pipe(SUMMARY)),
    "summary: a link": (SUMMARY, linked(SUMMARY)),
    "metrics: another table": (METRICS, holding(METRICS, "a,b\n1,2\n")),
    "metrics: text": (METRICS, holding(METRICS, rows("1,global,a,rank1,high"))),
    "metrics: NaN": (METRICS, holding(METRICS, rows("1,global,a,rank1,nan"))),
    "metrics: a score of 2": (METRICS, holding(METRICS, rows("1,global,a,rank1,2.0"))),
    "metrics: a round below 0": (METRICS, holding(METRICS, rows("-1,global,a,rank1,0.5"))),
    "metrics: too few values": (METRICS, holding(METRICS, rows("1,global,a"))),
    "metrics: a million names": (
        METRICS,
        holding(METRICS, rows(*(f"1,global,n{n},rank1,0.5" for n in range(1_000_000)))),
    ),
    "metrics: a line break in a name": (METRICS, holding(METRICS, rows('1,global,"a\nb",rank1,0.5'))),
    "metrics: a name with terminal control characters": (
        METRICS,
        holding(METRICS, rows(f"1,global,{ESCAPE},rank1,0.5")),
    ),
    "metrics: a long field": (METRICS, holding(METRICS, rows(f"1,global,{'x' * 200_000},rank1,0.5"))),
    "metrics: bytes": (METRICS, holding(METRICS, b"\xff\xfe\x00round")),
    "metrics: a gigabyte": (METRICS, sparse(METRICS)),
    "metrics: a pipe": (METRICS, pipe(METRICS)),
    "inspection: a list": (SEEN, holding(SEEN, "[]")),
    "inspection: deep": (SEEN, holding(SEEN, '{"version": 1, "tests": ' + DEEP + "}")),
    "inspection: text for a number": (
        SEEN,
        changed(SEEN, lambda c: {**c, "embedding": {**c["embedding"], "points": [1]}}),
    ),
    "inspection: a curve of another length": (
        SEEN,
        changed(
            SEEN, lambda c: {**c, "tests": {"a": {**c["tests"][TESTS[0]], "cmcs": {"global": [0.5], "b": [1, 1]}}}}
        ),
    ),
    "inspection: infinite": (SEEN, holding(SEEN, '{"version": 1, "round": 1, "tests": {"a": {"cmc": [Infinity]}}}')),
    "inspection: a newer version": (SEEN, changed(SEEN, lambda c: {**c, "version": 2})),
    "inspection: a gigabyte": (SEEN, sparse(SEEN)),
    "config: an anchor": ("config.yaml", holding("config.yaml", "callbacks: &a [*a]\n")),
    "config: a name that is a path": ("config.yaml", holding("config.yaml", 'name: "../../outside"\n')),
    "config: a name with terminal control characters": ("config.yaml", holding("config.yaml", 'name: "a\\x1b[2Jb"\n')),
    "config: a gigabyte": ("config.yaml", sparse("config.yaml")),
    "config: a pipe": ("config.yaml", pipe("config.yaml")),
}
READS = {"dashboard": ("config.yaml", METRICS), "report": ("config.yaml", METRICS, SUMMARY, SEEN)}
READS["figure"] = READS["report"]


def outcome(capfd: pytest.CaptureFixture, *words: str) -> tuple[int, str]:
    """Returns the exit code and the output; asserts that there is no traceback and no terminal control character."""
    capfd.readouterr()
    code = main(list(words))
    captured = capfd.readouterr()
    said = captured.out + captured.err
    assert "Traceback" not in said and not set(said) & set("\x1b\x07\x00\r")
    return code, said


@pytest.mark.parametrize("command", ["report", "figure", "dashboard"])
@pytest.mark.parametrize("name", SPOILT)
def test_one_error_line_names_an_invalid_file(
    command: str, name: str, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    file, spoil = SPOILT[name]
    if file not in READS[command]:
        pytest.skip(f"{command} does not read {file}")
    if command == "dashboard":
        pytest.importorskip("wandb_workspaces")
    spoil(run)
    words = {"report": [str(run)], "figure": [str(run)], "dashboard": [f"run={run}", f"out={tmp_path / 'w.json'}"]}
    code, said = outcome(capfd, command, *words[command])
    assert code == 2 and said.startswith("error: ") and len(said.splitlines()) == 1, said
    assert file.partition(".")[0] in said or "name=" in said or "is not a run folder" in said
    assert not (run / "report.html").exists() and not (run / "figures").exists() and not (tmp_path / "w.json").exists()


@pytest.mark.parametrize("name", [name for name in SPOILT if "gigabyte" not in name and "million" not in name])
def test_a_comparison_does_not_count_a_damaged_run_as_finished(
    name: str, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, spoil = SPOILT[name]
    place = tmp_path / "runs" / "market_layout" / "fedpav" / "seed0"
    place.parent.mkdir(parents=True)
    run.rename(place)
    spoil(place)
    monkeypatch.chdir(tmp_path)
    code, said = outcome(capfd, "compare", "exps=fedpav", "data=market_layout", f"data.root={tmp_path / 'none'}")
    assert code == 2 and "data.root" in said, "the command tries to train the run"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    if reason := chromium.missing():
        pytest.skip(reason)
    with chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_the_report_of_a_hostile_run_requests_and_executes_nothing(
    tab: chromium.Browser, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """Every text in the run's files contains markup; without the page's security policy it is still plain text."""
    name = MARKUP
    history = history_of(2, (name, TESTS[0]), lambda section, round, test: 0.5)
    content = inspection()
    content["tests"] = {name: {**content["tests"][TESTS[0]], "model": name}}
    content["embedding"] |= {"model": name, "points": [{**content["embedding"]["points"][0], "test": name}]}
    config = ["exp=fedpav", "rounds=2", "wandb.project=<script>window.hit=1</script>"]
    folder = write_run(tmp_path / "hostile", config, history, (name, TESTS[0]), content)
    (run / "images").rename(folder / "images")
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"best_by": name, "versions": {name: name}}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert outcome(capfd, "report", str(folder))[0] == 0
    page = (folder / "report.html").read_text()
    assert "Content-Security-Policy" in page
    start, _, rest = page.partition('<meta http-equiv="Content-Security-Policy"')
    (tmp_path / "bare.html").write_text(start + rest.partition(">")[2])
    for path in (folder / "report.html", tmp_path / "bare.html"):
        tab.open(path, 1280, "light")
        tab.run("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert tab.run("return window.hit") is None
        assert tab.run("return document.querySelectorAll('script, iframe, object, embed, form, base').length") == 0
        assert tab.run("return [...document.images].every(i => i.src.startsWith('data:image/jpeg;base64,'))")
        assert tab.requests() == [path.resolve().as_uri()]
        assert tab.complaints() == []
        assert name in tab.run("return document.body.textContent")


def jpeg_of_pixels(width: int, height: int) -> Callable[[Path], None]:
    return lambda path: Image.new("L", (width, height)).save(path, "JPEG")


PICTURES: dict[str, tuple[str, Callable[[Path], Any] | None]] = {
    "outside": ("../secret.jpg", None),
    "absolute": ("ABSOLUTE", None),
    "a link": ("images/link.jpg", lambda path: path.symlink_to(path.parents[2] / "secret.jpg")),
    "a folder that is a link": ("linked/secret.jpg", lambda path: path.parent.symlink_to(path.parents[2])),
    "a text": ("images/text.jpg", lambda path: path.write_text(SECRET)),
    "another format": ("images/other.jpg", lambda path: Image.new("RGB", (8, 8)).save(path, "PNG")),
    "a vector picture": ("images/v.jpg", lambda path: path.write_text("<svg onload='window.hit=1'/>")),
    "too many pixels": ("images/wide.jpg", jpeg_of_pixels(5_000, 5_000)),
    "a pipe": ("images/pipe.jpg", os.mkfifo),
    "a control character": ("images/q\x1b.jpg", None),
}


@pytest.mark.parametrize("name", PICTURES)
def test_images_outside_the_run_are_not_shown(
    name: str, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    image, make = PICTURES[name]
    if image == "ABSOLUTE":
        image = str(tmp_path / "secret.jpg")
    if make is not None:
        make(run / image)
    (run / "inspection.json").write_text(json.dumps(inspection(image)))
    code, said = outcome(capfd, "report", str(run))
    if name == "a control character":
        assert code == 2 and "inspection.json" in said
        return
    text = (run / "report.html").read_text()
    assert code == 0 and "<img" not in text and "no picture" in text and SECRET not in text


def test_links_in_a_folder_are_not_written_through(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """The lock, the folder of checkpoints and the report are links; their targets do not change."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text(SECRET)
    (run / "report.html").symlink_to(precious / "file")
    assert outcome(capfd, "report", str(run))[0] == 0
    (run / "checkpoints").symlink_to(precious)
    words = ["train", "exp=fedpav", "rounds=2", f"output_dir={run}", "data=market_layout", f"data.root={tmp_path}"]
    assert outcome(capfd, *words)[0] == 2
    assert {path.name for path in precious.iterdir()} == {"file"} and (precious / "file").read_text() == SECRET


def test_a_comparison_opens_no_run_outside_its_folder(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a" / "b" / "c" / "d" / "e" / "compare"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    (place / "runs.csv").write_text(f"experiment,seed,split,folder,complete,rounds\nfedpav,0,0,{run},True,2\n")
    code, said = outcome(capfd, "report", str(place))
    assert code == 2 and "which is elsewhere" in said and not (place / "report.html").exists()
    (place / "runs.csv").write_text("experiment,seed,split,folder,complete,rounds\nfedpav,x,0\n")
    assert "cannot be read as the runs of a comparison" in outcome(capfd, "report", str(place))[1]
