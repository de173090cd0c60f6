"""Random damaged, foreign or hostile files; the reader must refuse each with one line."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fedreid_pl.config import ModelConfig
from fedreid_pl.data.decoding import decode
from fedreid_pl.data.layouts import ReadOptions, find_layouts
from fedreid_pl.federation.messages import ClientUpdate, from_bytes, to_bytes
from fedreid_pl.federation.server.checkpoint import read_checkpoint
from fedreid_pl.federation.storage import write_state
from fedreid_pl.models.weights import build_backbone

Action = Callable[[], Any]
STATE = {
    **{name: {} for name in ("assignment", "rejected", "history", "costs", "callbacks")},
    "round": 3,
    "models": {"global": {"w": torch.arange(60.0).view(6, 10), "n": torch.tensor(4)}},
}


def noise(draws: random.Random, most: int = 400) -> bytes:
    """Returns at least one random byte."""
    return draws.randbytes(draws.randrange(1, most))


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def with_header(data: bytes, **changed: Any) -> bytes:
    header = {"format": "fedreid_pl", "version": 1, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return json.dumps({**header, **changed}).encode() + b"\n" + data


def squeezed(content: Any) -> bytes:
    """Returns the archive compressed; a bomb consists of such data."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(content))) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


@functools.cache
def whole(folder: Path) -> bytes:
    write_state(folder / "whole.ckpt", STATE)
    return (folder / "whole.ckpt").read_bytes()


def checkpoint(draws: random.Random, folder: Path) -> tuple[str, Action]:
    good, file = whole(folder), folder / "file.ckpt"
    start = good.index(b"\n") + 1
    place, part = draws.randrange(start, len(good)), draws.choice(list(STATE))
    name, content = draws.choice(
        [
            ("truncated", good[: draws.randrange(len(good))]),
            ("a bit flipped", good[:place] + bytes([good[place] ^ 1 << draws.randrange(8)]) + good[place + 1 :]),
            ("longer", good + noise(draws)),
            ("noise", noise(draws)),
            ("no header", good[start:]),
            ("newer", with_header(good[start:], version=draws.randrange(2, 10**6))),
            ("another checksum", with_header(good[start:], sha256=draws.randbytes(32).hex())),
            ("a wrong header", with_header(good[start:], **{draws.choice(["format", "bytes", "version"]): [1]})),
            ("compressed", with_header(squeezed(STATE))),
            ("a pickle", with_header(pickle.dumps([1]))),
            ("a part missing", with_header(saved({k: v for k, v in STATE.items() if k != part}))),
            (
                "another type",
                with_header(saved({**STATE, part: draws.choice([None, 1.5, [1], "x"])})),
            ),
            ("no state", with_header(saved(draws.choice([[1], "x", 3, torch.zeros(2)])))),
        ]
    )
    file.write_bytes(content)
    return name, lambda: read_checkpoint(file)


def message(draws: random.Random, folder: Path) -> tuple[str, Action]:
    fields: dict[str, Any] = {"round": 1, "client": "a", "backbone": {"w": torch.zeros(3)}, "num_samples": 3}
    good = to_bytes(ClientUpdate(**fields, metrics={"train/loss": 0.5}))
    name, data = draws.choice(
        [
            ("truncated", good[: draws.randrange(len(good))]),
            ("noise", noise(draws)),
            ("compressed", squeezed({"kind": "ClientUpdate", **fields, "metrics": {}})),
            ("an unknown kind", saved({"kind": draws.choice(["os", "", 3, None]), **fields})),
            ("a field missing", saved({"kind": "ClientUpdate", **fields})),
            ("an extra field", saved({"kind": "ClientUpdate", **fields, "metrics": {}, "head": torch.zeros(3)})),
            ("text for a number", saved({"kind": "ClientUpdate", **fields, "metrics": {"path": "x.jpg"}})),
            ("a list for tensors", saved({"kind": "ClientUpdate", **{**fields, "backbone": [1]}, "metrics": {}})),
        ]
    )
    return name, lambda: from_bytes(data)


@functools.cache
def trunk_state() -> dict[str, torch.Tensor]:
    return build_backbone(ModelConfig(name="small", weights="none")).trunk.state_dict()


def weights(draws: random.Random, folder: Path) -> tuple[str, Action]:
    state, file = trunk_state(), folder / "weights.pth"
    wanted = [name for name in state if not name.endswith("num_batches_tracked")]
    key = draws.choice(wanted)
    name, content = draws.choice(
        [
            ("noise", noise(draws)),
            ("truncated", saved(state)[: draws.randrange(1, 5000)]),
            ("a pickle", pickle.dumps([1, 2])),
            ("a tensor missing", saved({name: value for name, value in state.items() if name != key})),
            ("another shape", saved({**state, key: torch.zeros(draws.randrange(1, 9), 2, 7)})),
            ("no tensors", saved(draws.choice([{}, {"a": 1}, [1], {1: torch.zeros(1)}, "text"]))),
        ]
    )
    file.write_bytes(content)
    return name, lambda: build_backbone(ModelConfig(name="small", weights=str(file)))


def picture(draws: random.Random, folder: Path) -> tuple[str, Action]:
    file, buffer = folder / draws.choice(["x.jpg", "x.png"]), io.BytesIO()
    Image.frombytes("RGB", (24, 48), draws.randbytes(24 * 48 * 3)).save(buffer, draws.choice(["JPEG", "PNG"]))
    good = buffer.getvalue()
    size = struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + struct.pack(">I", zlib.crc32(b"IHDR" + size)) + noise(draws)
    name, content = draws.choice(
        [
            ("truncated", good[: draws.randrange(len(good) // 2)]),
            ("noise", noise(draws)),
            ("empty", b""),
            ("an HTML error page", b"<html><body>404 Not Found</body></html>"),
            ("a picture of ten billion pixels", bomb),
        ]
    )
    file.write_bytes(content)
    return name, lambda: decode(str(file), 32, 16)


def dataset(draws: random.Random, folder: Path) -> tuple[str, Action]:
    """Makes a folder in the layout of Market-1501, or a table, with one defect."""
    root = folder / "dataset"
    shutil.rmtree(root, ignore_errors=True)
    if draws.random() < 0.5:
        layout, names = "market1501", {"bounding_box_train": 3, "query": 2, "bounding_box_test": 3}
        for part, count in names.items():
            (root / part).mkdir(parents=True)
            for number in range(count):
                (root / part / f"{number + 1:04d}_c{1 + number % 2}s1_{number:06d}_00.jpg").write_bytes(b"x")
        part = draws.choice(list(names))
        wrong = draws.choice(["missing", "empty", "name", "file"])
        if wrong in ("missing", "file"):
            shutil.rmtree(root / part)
        if wrong == "file":
            (root / part).write_bytes(b"")
        if wrong == "empty":
            for path in (root / part).iterdir():
                path.unlink()
        if wrong == "name":
            bad = draws.choice(
                ["person.jpg", "c1_person.jpg", "-2_c1.jpg", "0001.jpg", "0001_d1s1.png", "1" * 30 + "_c1.jpg"]
            )
            (root / part / bad).write_bytes(b"x")
    else:
        layout, wrong = "csv_table", "a line"
        root.mkdir()
        rows = [["a.jpg", "1", "1", "train"], ["b.jpg", "2", "1", "query"], ["c.jpg", "2", "2", "gallery"]]
        for row in rows:
            (root / row[0]).write_bytes(b"x")
        row = draws.choice(rows)
        column = draws.randrange(4)
        row[column] = draws.choice(
            [["nowhere.jpg", "", "sub/none.png"], ["-7", "x", "1.5", ""], ["-1", "x", ""], ["test", "", "Train2"]][
                column
            ]
        )
        header = draws.choice(["path,identity,camera,split"] * 6 + ["path,identity,camera", "a,b,c,d", ""])
        text = "\n".join([header, *(",".join(row) for row in rows)]).encode()
        (root / "samples.csv").write_bytes(text + draws.choice([b"", b"", b"\n\xff\xfe,1,1,train", b"\nshort"]))
    return f"{layout}, {wrong}", lambda: find_layouts()[layout].read(root, "dataset", ReadOptions())


FILES = [checkpoint, message, weights, picture, dataset]
