"""Marked data and weights that a search can find in files, messages and printed lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

PLACE = "canary-Ward7-Qz81"
"""A unique part of the images' path."""
RENAMED = re.compile(r"(\d{4})_c(\d+)")
PIECE = 32  # length of the searched piece of an image or of weights, in bytes


def mark(root: Path) -> None:
    """Renames the images of a benchmark: persons get numbers of nine digits, every file gets a unique name."""
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        match = RENAMED.match(path.name)
        if match is not None:
            path.rename(path.with_name(f"{734_190_000 + int(match[1])}_c{match[2]}s1_kittiwake{number:05d}.jpg"))


class Canaries:
    """Texts and byte sequences that a search must not find, with their kinds."""

    def __init__(self) -> None:
        self.needles: dict[bytes, str] = {}

    def add_text(self, what: str, *texts: str) -> None:
        """Adds texts of one kind."""
        self.needles |= {text.encode(): what for text in texts}

    def add_numbers(self, what: str, rows: torch.Tensor | np.ndarray) -> None:
        """Adds the beginning of every row of numbers as float32, float64 and as text in JSON and CSV."""
        array = np.asarray(rows, dtype=np.float32).reshape(len(rows), -1)[:, : PIECE // 4]
        for row in array:
            if np.unique(row).size < 4:
                continue
            self.needles[row.tobytes()] = what
            self.needles[row.astype(np.float64).tobytes()] = what
            self.needles[", ".join(map(repr, row[:3].tolist())).encode()] = what

    def add_pictures(self, root: Path, every: int) -> None:
        """Adds file names and persons of all images, and pixels and file content of every n-th image."""
        self.add_text("a path", PLACE)
        for number, path in enumerate(sorted(root.rglob("*.jpg"))):
            self.add_text("a path", path.stem)
            person = path.name.split("_")[0]
            if person != "-1":  # junk shows no person
                self.add_text("an identity", person)
                self.needles[int(person).to_bytes(8, "little")] = "an identity"
            if number % every:
                continue
            content = path.read_bytes()
            self.needles[content[len(content) // 2 : len(content) // 2 + PIECE]] = "an image file"
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))  # [H, W, 3]
            for order in (pixels, pixels.transpose(2, 0, 1)):
                row = np.ascontiguousarray(order).reshape(-1)[pixels.size // 3 :][:PIECE]
                if np.unique(row).size > 8:
                    self.needles[row.tobytes()] = "pixels"

    def find(self, places: Mapping[str, bytes]) -> list[tuple[str, str]]:
        """Returns (kind, place) of all finds, sorted."""
        found = set()
        for where, content in places.items():
            found |= {(what, where) for needle, what in self.needles.items() if needle in content}
        return sorted(found)


def files(folder: Path, but: Iterable[str] = ()) -> dict[str, bytes]:
    """Returns the content of all files below a folder by relative path, without paths that begin with one of `but`."""
    every = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in every.items() if not name.startswith(tuple(but))}


def watch(monkeypatch: Any, canaries: Canaries) -> dict[str, bytes]:
    """Collects heads, per-image features and logits as canaries, and all messages as places to search."""
    from fedreid_pl.client import ReIDClient
    from fedreid_pl.engines import sequential
    from fedreid_pl.engines.sequential import SequentialEngine
    from fedreid_pl.federation.client.store import ClientStore
    from fedreid_pl.federation.messages import ClientUpdate, to_bytes

    messages: dict[str, bytes] = {}
    forward, logits, save = ReIDClient.forward, ReIDClient.logits, ClientStore.save

    def seen_forward(self: Any, images: torch.Tensor) -> torch.Tensor:
        features = forward(self, images)
        canaries.add_numbers("a feature", features.detach())
        return features

    def seen_logits(self: Any, images: torch.Tensor) -> torch.Tensor:
        result = logits(self, images)
        canaries.add_numbers("logits", result.detach())
        return result

    def seen_save(self: Any, client: str, round: int, state: dict) -> None:
        for value in state["head"].values():
            canaries.add_numbers("a head", value if value.ndim > 1 else value[None])
        save(self, client, round, state)

    class Engine(SequentialEngine):
        def fit(self, jobs: Any) -> Any:
            for outcome in super().fit(jobs):
                assert isinstance(outcome, ClientUpdate)
                messages[f"update {outcome.round} of {outcome.client}"] = to_bytes(outcome)
                yield outcome

        def evaluate(self, jobs: Any) -> Any:
            for outcome in super().evaluate(jobs):
                assert isinstance(outcome, ClientUpdate)
                messages[f"scores {outcome.round} of {outcome.client}"] = to_bytes(outcome)
                yield outcome

    monkeypatch.setattr(ReIDClient, "forward", seen_forward)
    monkeypatch.setattr(ReIDClient, "logits", seen_logits)
    monkeypatch.setattr(ClientStore, "save", seen_save)
    monkeypatch.setattr(sequential, "SequentialEngine", Engine)
    return messages
