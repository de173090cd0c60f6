"""The commands `fedreid-pl embed`, `search` and `export`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import fedreid_pl
from fedreid_pl.cli import main
from fedreid_pl.retrieval.features import Features

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def people(tiny_root: Path, tmp_path: Path) -> Path:
    """Creates images by person and camera; the first person's name is markup."""
    for file in sorted((tiny_root / "mini-viper" / "bounding_box_test").glob("*")):
        person, camera = file.name.split("_")[0], file.name.split("_c")[1][0]
        name = "<b>&ann" if person == "0001" else person
        (tmp_path / "people" / name / camera).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "people" / name / camera / file.name)
    return tmp_path / "people"


def test_embed(run: Path, people: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "f.safetensors"
    (people / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    assert main(["embed", str(run), str(people), f"out={out}", "flip=false", "batch_size=7"]) == 0
    said = capsys.readouterr()
    assert "broken.jpg" in said.err and str(out) in said.out
    found, model = Features.load(out), fedreid_pl.load(run)
    files = [people / name for name in found.names]
    torch.testing.assert_close(found.values, model.embed(files, flip=False))
    assert found.header["model"]["sha256"] == model.card.sha256 and found.header["flip"] is False


def test_search_finds_the_query_image(run: Path, people: Path, tmp_path: Path, capsys: Capture) -> None:
    query = next((people / "<b>&ann").rglob("*.*"))
    page, kept = tmp_path / "found.html", tmp_path / "people.db"
    assert main(["search", str(run), str(people), str(query), "k=3", f"page={page}", f"save={kept}"]) == 0
    first = capsys.readouterr().out
    rows = re.findall(r"^ +(\d+) +(-?[0-9.]+) +(\S+)", first, re.M)
    assert [row[0] for row in rows] == ["1", "2", "3"] and rows[0][1:] == ("1.0000", "<b>&ann")
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,/9j/") == 4 and "<b>&ann" not in text and "&lt;b&gt;&amp;ann" in text
    assert main(["search", str(run), str(kept), str(query), "k=3"]) == 0
    assert re.findall(r"^ +(\d+) +(-?[0-9.]+) +(\S+)", capsys.readouterr().out, re.M) == rows
    assert main(["search", str(run), str(people), str(query), "k=2", "group=person", "rerank=true"]) == 0
    assert "distance" in capsys.readouterr().out


def test_search_prints_whether_the_person_is_in_the_gallery(
    run: Path, people: Path, tmp_path: Path, capsys: Capture
) -> None:
    query = next((people / "<b>&ann").rglob("*.*"))
    (people / "bob").mkdir()
    (people / "bob" / "torn.jpg").write_bytes(b"\xff\xd8\xff nothing")
    page, words = tmp_path / "found.html", ["search", str(run), str(people), str(query), "k=2"]
    assert main([*words, "threshold=0.999", f"page={page}"]) == 0
    said = capsys.readouterr()
    assert "the person is in the gallery: the best similarity 1.0000 is above" in said.out
    assert "warning: bob/torn.jpg" in said.err and "no threshold" not in said.err
    assert "The best match" in page.read_text() and "the person is in the gallery" in page.read_text()
    shutil.rmtree(people / "<b>&ann")
    query = tmp_path / "query.png"
    Image.new("RGB", (32, 64), (250, 240, 10)).save(query)
    assert main(["search", str(run), str(people), str(query), "threshold=0.9999", "group=person"]) == 0
    said = capsys.readouterr()
    assert "the person is not in the gallery: no similarity is above the threshold 0.9999" in said.out
    assert main([*words[:3], str(query), "threshold=0.5", "rerank=true"]) == 0
    said = capsys.readouterr()
    assert "in the gallery" not in said.out and "it does not fit re-ranked distances" in said.err
    assert main([*words[:3], str(query)]) == 0
    assert "has no calibrated threshold" in capsys.readouterr().err


def test_export(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["export", str(run), f"out={tmp_path / 'm.safetensors'}"]) == 0
    assert "m.safetensors" in capsys.readouterr().out and (tmp_path / "m.safetensors").stat().st_size > 300_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["embed", "RUN", "PEOPLE"], "give the file to write"),
        (["embed", "RUN", "PEOPLE", "out=x.csv"], "must end with"),
        (["embed", "RUN", "nowhere", "out=x.npz"], "no such picture"),
        (["embed", "RUN", "out=x.npz"], "usage: fedreid-pl embed RUN FOLDER"),
        (["embed", "RUN", "PEOPLE", "out=x.npz", "flip=yes"], "flip=yes: give true or false"),
        (["embed", "RUN", "PEOPLE", "out=x.npz", "batchsize=3"], "did you mean 'batch_size'"),
        (["embed", "PEOPLE", "PEOPLE", "out=x.npz"], "is not a run folder"),
        (["search", "RUN", "PEOPLE", "PEOPLE", "k=0"], "k=0: give a whole number"),
        (["search", "RUN", "PEOPLE", "PEOPLE", "group=all"], "group=all: give row or person"),
        (["search", "RUN", "PEOPLE", "PEOPLE", "threshold=1.5"], "threshold=1.5: give a cosine similarity"),
        (["search", "RUN", "PEOPLE", "PEOPLE", "index=fais"], "did you mean 'faiss'"),
        (["search", "RUN", "nowhere", "PEOPLE"], "nowhere: no such file or folder"),
        (["export", "RUN"], "give the file to write"),
        (["export", "RUN", "out=m.onnx", "int8=true"], "pictures=FOLDER"),
        (["export", "RUN", "out=m.engine"], "must end with .onnx"),
    ],
)
def test_invalid_words_are_refused(
    run: Path, people: Path, tmp_path: Path, capsys: Capture, words: list[str], said: str
) -> None:
    places = {"RUN": str(run), "PEOPLE": str(people)}
    before = sorted(tmp_path.rglob("*"))
    assert main([places.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1] and error[-1].startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before
