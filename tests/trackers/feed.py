"""Feeds an exported ONNX file to two trackers and compares their features with this project's.

    python tests/trackers/feed.py FOLDER

Runs in an environment with boxmot, deep-sort-realtime and onnxruntime, on the folder that prepare.py wrote. The script
imports no module of this project: a tracker uses only the ONNX file and its side-car.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

LEAST = 0.999


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Returns the lowest cosine similarity of two lists of features, row by row."""
    left, right = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right))
    return float((left * right).sum(1).min())


def by_onnxruntime(file: Path, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the features of crops of the network's size, computed with onnxruntime only."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    crops = np.stack([frame[top:bottom, left:right] for left, top, right, bottom in boxes.astype(int)])
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return session.run(None, {"images": ((crops.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)})[0]


def check_boxmot(file: Path, frame: np.ndarray, boxes: np.ndarray, wanted: np.ndarray) -> None:
    """Checks the features that boxmot computes, and that BoT-SORT can track with them."""
    from boxmot import BotSort
    from boxmot.reid.core.runtime import ReID

    bgr = np.ascontiguousarray(frame[..., ::-1])
    lowest = cosine(ReID(file)(bgr, boxes=boxes), wanted)
    print(f"boxmot: lowest cosine similarity of {len(boxes)} persons {lowest:.6f}")
    assert lowest > LEAST
    tracker = BotSort(reid_weights=file)
    scores = np.tile(np.float32([0.9, 0]), (len(boxes), 1))
    found = [tracker.update(np.concatenate([boxes + shift, scores], 1), bgr) for shift in (0, 1, 2)]
    assert len(found[-1]) == len(boxes) and len({*np.asarray(found[-1])[:, 4]}) == len(boxes)


def check_deep_sort(embeds: np.ndarray, boxes: np.ndarray, wanted: np.ndarray) -> None:
    """Checks the features that deep-sort-realtime stores for its tracks."""
    from deep_sort_realtime.deepsort_tracker import DeepSort

    tracker = DeepSort(embedder=None, n_init=1)
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    detections = [(size.tolist(), 0.9, "person") for size in sizes]
    for _ in range(2):
        tracks = tracker.update_tracks(detections, embeds=list(embeds))
    places = np.stack([track.to_ltwh(orig=True) for track in tracks])
    order = [int(np.abs(sizes - place).sum(1).argmin()) for place in places]
    assert sorted(order) == list(range(len(boxes)))
    lowest = cosine(np.stack([track.get_feature() for track in tracks]), wanted[order])
    print(f"deep-sort-realtime: lowest cosine similarity of {len(boxes)} persons {lowest:.6f}")
    assert lowest > LEAST


def main(folder: Path) -> None:
    """Checks both trackers."""
    with np.load(folder / "persons.npz") as persons:
        frame, boxes, wanted = (persons[name] for name in ("frame", "boxes", "features"))
    check_deep_sort(by_onnxruntime(folder / "people.onnx", frame, boxes), boxes, wanted)
    check_boxmot(folder / "people.onnx", frame, boxes, wanted)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
