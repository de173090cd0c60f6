"""Reports and figures of real runs: written after training, rewritten on demand, and opened in a browser."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import browser as chromium
import pytest
import support
from PIL import Image

from fedreid_pl.cli import main
from fedreid_pl.config import load_config
from fedreid_pl.reporting.inspection import read_inspection

WIDTHS, SCHEMES = (390, 1280), ("light", "dark")


@pytest.fixture(scope="module")
def runs(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains three runs with reports, and writes one report of all runs to `all.html`."""
    folder = tmp_path_factory.mktemp("reported")
    for exp in ("local", "fedpav", "fedpav_rw"):
        assert main(["train", f"exp={exp}", *support.quick(tiny_root, folder / exp / "seed0", "report.queries=2")]) == 0
    cameras = support.quick(tiny_root, folder / "cameras", "data.scenario=by_camera", "report.queries=2")
    assert main(["train", "exp=fedpav_cc", *cameras, "data.datasets=[mini-market1501]"]) == 0
    places = [str(folder / exp / "seed0") for exp in ("local", "fedpav", "fedpav_rw")]
    assert main(["report", *places, f"out={folder / 'all.html'}"]) == 0
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    if reason := chromium.missing():
        pytest.skip(reason)
    with chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", ["all.html", "cameras/report.html"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_browser_shows_it_without_network_error_or_overflow(
    tab: chromium.Browser, runs: Path, name: str, width: int, scheme: str
) -> None:
    tab.open(runs / name, width, scheme)
    assert tab.requests() == [(runs / name).resolve().as_uri()]
    assert tab.complaints() == []
    tab.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    size = tab.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert size[0] <= size[1] == width, "the page is not wider than the window"
    dark = tab.run("return getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") is (scheme == "light")
    broken = "return [...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
    assert tab.run(broken) == 0 and tab.run("return document.images.length") > 0


def test_no_text_of_a_chart_is_cut_or_smaller_than_nine_pixels(tab: chromium.Browser, runs: Path) -> None:
    for width, name in itertools.product(WIDTHS, ("all.html", "cameras/report.html")):
        tab.open(runs / name, width, "light")
        cut = tab.run(
            """return [...document.querySelectorAll('figure > svg text')].filter(t => {
                 const a = t.getBoundingClientRect(), b = t.closest('svg').getBoundingClientRect();
                 return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
               }).map(t => t.textContent)"""
        )
        assert cut == []
        scales = tab.run(
            """return [...document.querySelectorAll('figure > svg')].map(s =>
                 s.getBoundingClientRect().width / s.viewBox.baseVal.width)"""
        )
        assert min(scales) * 10.5 > 9


def test_text_has_enough_contrast(tab: chromium.Browser, runs: Path) -> None:
    """WCAG contrast on the page and on panels: at least 4.5 for text, at least 3 for lines and marks."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    script = """const made = document.createElement('i'); document.body.append(made); const found = {};
      for (const name of arguments[0]) {
        made.style.color = `var(--${name})`; found[name] = getComputedStyle(made).color; }
      made.remove(); return found"""
    lines = [f"c{index}" for index in range(9)]
    names = ["ground", "panel", "ink", "quiet", "link", "right", "wrong", *lines]
    for scheme in SCHEMES:
        tab.open(runs / "all.html", 1280, scheme)
        colours = {name: luminance(value) for name, value in tab.driver.execute_script(script, names).items()}
        for ground in ("ground", "panel"):
            for name in names[2:]:
                dark, light = sorted((colours[ground], colours[name]))
                assert (light + 0.05) / (dark + 0.05) >= (3 if name in lines else 4.5), (scheme, ground, name)


def test_training_writes_a_report_that_compares_with_the_standalone_run(runs: Path) -> None:
    text = (runs / "fedpav" / "seed0" / "report.html").read_text()
    summary = json.loads((runs / "fedpav" / "seed0" / "summary.json").read_text())
    for name in support.TINY:
        assert f"<td>{100 * summary['global'][name]['rank1']['last']:.1f}</td>" in text
    assert "standalone R1" in text and "Synthetic data" in text and "data:image/jpeg;base64," in text
    assert "fedreid-pl train exp=fedpav" in text


def test_images_can_be_removed_from_the_report_and_restored(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "fedpav" / "seed0"
    shutil.copytree(runs / "fedpav" / "seed0", folder)
    before = read_inspection(folder)
    assert before is not None
    assert main(["report", str(folder), "report.images=false"]) == 0
    after, text = read_inspection(folder), (folder / "report.html").read_text()
    assert after is not None and not (folder / "images").exists() and "base64" not in text
    for test, entry in after["tests"].items():
        assert entry["ranked"] == [] and entry["cmcs"] == before["tests"][test]["cmcs"], "local curves are kept"
    assert load_config(folder / "config.yaml").report.images is False
    assert main(["report", str(folder), "report.images=true"]) == 0
    again = read_inspection(folder)
    assert again is not None
    assert again["tests"] == before["tests"] and again["embedding"] == before["embedding"], "the models did not change"
    assert (folder / "images").is_dir() and "base64" in (folder / "report.html").read_text()
    assert capsys.readouterr().out.endswith(f"report in {folder / 'report.html'}\n")


@pytest.mark.system
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_two_processes_give_the_inspection_of_one(runs: Path, tiny_root: Path, tmp_path: Path) -> None:
    words = ("trainer.strategy=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "report.queries=2")
    done = support.run_cli(
        "train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "run", *words), OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    by_two = read_inspection(tmp_path / "run")
    assert by_two is not None and (tmp_path / "run" / "report.html").is_file()
    assert (
        main(["report", str(tmp_path / "run"), "report.queries=2", "trainer.devices=1", "trainer.strategy=auto"]) == 0
    )
    by_one = read_inspection(tmp_path / "run")
    assert by_one is not None and by_one["tests"] == by_two["tests"]


def test_figures_have_the_width_of_one_or_two_columns(runs: Path, tmp_path: Path) -> None:
    assert main(["figure", *(str(runs / exp / "seed0") for exp in ("local", "fedpav")), f"out={tmp_path}"]) == 0
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == {f"{name}{wide}" for name in ("accuracy", "cmc", "weights", "gap") for wide in ("", "-wide")}
    assert names == {path.stem for path in tmp_path.glob("*.pdf")}
    for path in tmp_path.glob("*.png"):
        inches = Image.open(path).width / 300
        assert inches == pytest.approx(7.16 if path.stem.endswith("-wide") else 3.5, abs=0.01)
    assert all(path.read_bytes().startswith(b"%PDF") for path in tmp_path.glob("*.pdf"))


def test_figures_without_matplotlib_give_one_error_line(
    runs: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["figure", str(runs / "fedpav" / "seed0")]) == 2
    assert capsys.readouterr().err.startswith("error: figure: needs matplotlib; install it with")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "report: give the folder of a run or of a comparison"),
        (["report", "nowhere"], "nowhere: no such folder"),
        (["report", "EMPTY"], "is not a run folder: it has no config.yaml"),
        (["report", "RUN", "report.image=true"], "unknown key 'report.image'"),
        (["report", "RUN", "RUN2", "report.images=true"], "applies to a single run only"),
        (["report", "RUN", "rounds=3"], "rounds=3: report evaluates a trained run, on which this key has no effect"),
        (["report", "RUN", "optim.lr_head=0.1"], "optim.lr_head=0.1: report evaluates a trained run"),
        (["report", "RUN", "data=fedreidbench"], "data.root"),
        (["report", "RUN", "out=RUN/config.yaml/x.html"], "cannot be written"),
        (["report", "BROKEN"], "metrics.csv: has another format than a run writes"),
        (["figure", "RUN", "columns=3"], "columns=3: must be 1 or 2"),
        (["figure", "RUN", "rounds=3"], "rounds=3: unknown word"),
    ],
)
def test_a_mistake_prints_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    (tmp_path / "EMPTY").mkdir()
    shutil.copytree(runs / "fedpav" / "seed0", tmp_path / "BROKEN")
    (tmp_path / "BROKEN" / "metrics.csv").write_text("round,section\nno,table\n")
    places = {name: tmp_path / name for name in ("EMPTY", "BROKEN")}
    places |= {"RUN2": runs / "local" / "seed0", "RUN": runs / "fedpav" / "seed0"}
    real = []
    for word in words:
        for name, place in places.items():
            word = re.sub(rf"\b{name}\b", str(place), word)
        real.append(word)
    report = (runs / "fedpav" / "seed0" / "report.html").read_bytes()
    assert main(real) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and message in said[0], said
    assert (runs / "fedpav" / "seed0" / "report.html").read_bytes() == report
