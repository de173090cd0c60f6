"""Writes the input of tests/trackers/feed.py: a trained model as ONNX, a frame with ten persons, and their features.

    python tests/trackers/prepare.py FOLDER

Runs in the project's environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support

import fedreid_pl
from fedreid_pl.cli import main

COLUMNS, ROWS, GAP = 5, 2, 8


def prepare(folder: Path) -> None:
    """Trains for one round on drawn images, exports the model, and places ten images of its size into one frame."""
    root, run, file = support.write_tiny(folder / "data"), folder / "run", folder / "people.onnx"
    assert main(["train", "exp=fedpav", *support.quick(root, run, "rounds=1")]) == 0
    assert main(["export", str(run), f"out={file}", "flip=true"]) == 0
    model = fedreid_pl.load(run)
    files = sorted((root / "mini-market1501" / "bounding_box_test").glob("*.jpg"))[: COLUMNS * ROWS]
    height, width = model.card.height, model.card.width
    crops = [np.asarray(Image.open(path).convert("RGB").resize((width, height))) for path in files]
    frame = np.full((ROWS * (height + GAP) + GAP, COLUMNS * (width + GAP) + GAP, 3), 90, np.uint8)
    boxes = []
    for number, crop in enumerate(crops):
        top = GAP + number // COLUMNS * (height + GAP)
        left = GAP + number % COLUMNS * (width + GAP)
        frame[top : top + height, left : left + width] = crop
        boxes.append([left, top, left + width, top + height])
    features = model.embed(crops).numpy()
    np.savez(folder / "persons.npz", frame=frame, boxes=np.array(boxes, np.float32), features=features)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
