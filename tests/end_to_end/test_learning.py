"""The benchmark's difficulty comes from camera differences, and only training overcomes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedreid_pl.cli import main
from fedreid_pl.data.minireid import domains_of, write_benchmark

pytestmark = pytest.mark.system

DOMAIN = "mini-dukemtmcreid"


def raw_pixel_rank1(root: Path) -> float:
    """Returns Rank-1 of the nearest neighbour in pixel space, computed by an independent loop."""

    def load(folder: str) -> tuple[np.ndarray, list[str], list[str]]:
        files = sorted((root / folder).glob("*.jpg"))
        pixels = [np.asarray(Image.open(file).resize((32, 64)), dtype=np.float64).ravel() for file in files]
        unit = [row / np.linalg.norm(row) for row in pixels]
        return np.stack(unit), [file.name[:4] for file in files], [file.name[5:7] for file in files]

    queries, persons, cameras = load("query")
    gallery, others, places = load("bounding_box_test")
    hits = 0
    for query, person, camera in zip(queries, persons, cameras, strict=True):
        kept = [row for row in range(len(others)) if (others[row], places[row]) != (person, camera)]
        hits += others[kept[int(np.argmax(gallery[kept] @ query))]] == person
    return hits / len(persons)


def test_a_trained_client_is_far_above_raw_pixels(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "data", [domains_of(1)[DOMAIN]])
    words = [f"data.root={tmp_path / 'data'}", "data.source=folder", f"data.datasets=[{DOMAIN}]", "data.public=null"]
    words += [
        "exp=local",
        "data=minireid_v1",
        "rounds=15",
        "evaluate_every=15",
        "logger=none",
        f"output_dir={tmp_path / 'run'}",
    ]
    assert main(["train", *words]) == 0
    trained = json.loads((tmp_path / "run" / "summary.json").read_text())["local"][DOMAIN]["rank1"]["last"]
    pixels = raw_pixel_rank1(tmp_path / "data" / DOMAIN)
    assert pixels < 0.35
    assert trained > 0.5
    assert trained > 2 * pixels
