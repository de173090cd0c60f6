"""Makers of altered payloads: a signed file and its envelope with one change, for both directions.

An attacker on the network alters the file under the honest signature or signs with another key. A hostile sender signs
arbitrary content with its own valid key. Receivers must refuse the output of every maker except `flip`.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import math
import pickle
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fedreid_pl.engines.silos.keys import SigningKey
from fedreid_pl.engines.silos.payload import DOMAIN, MOST_HEADER, Envelope, Payload, digest_of

STRANGER = SigningKey.new()
"""A key that no party knows."""
ODD: list[Any] = [
    *(None, True, -1, 0, 2**63, 10**400, 0.5, 1e308, "", " ", "x" * 400, "../../etc/passwd", "a\x00b", "\x1b[2J", "‮"),
    *("\ud800", [], {}, [[]], {"a": {"b": []}}, "__import__('os').system('true')", "!!python/object:os.system", "*"),
]
"""Values of all types, to replace a value of another type."""


@dataclass
class File:
    """A safetensors file, split into its parts."""

    header: dict[str, Any]
    table: dict[str, Any]
    data: bytes
    text: str | None = field(default=None)  # replaces the header's text

    @classmethod
    def read(cls, path: Path) -> File:
        raw = path.read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        table = json.loads(raw[8 : 8 + size])
        header = json.loads(table.pop("__metadata__")["header"])
        return cls(header, table, raw[8 + size :])

    def bytes(self) -> bytes:
        text = self.text if self.text is not None else json.dumps(self.header, sort_keys=True, separators=(",", ":"))
        return packed(json.dumps({"__metadata__": {"header": text}, **self.table}).encode()) + self.data

    def names(self) -> list[str]:
        return list(self.table)


class Altered(NamedTuple):
    """Altered bytes and their signer: `sender`, `stranger`, or `nobody` (the honest envelope is used)."""

    what: str
    data: bytes
    signed: str = "sender"


Maker = Callable[[random.Random, File], Altered]


def packed(table: bytes) -> bytes:
    return struct.pack("<Q", len(table)) + table


# an attacker on the network


def on_the_way(draws: random.Random, file: File) -> Altered:
    """Changes, removes or adds bytes under the honest signature."""
    raw = bytearray(file.bytes())
    place = draws.randrange(len(raw))
    kind = draws.choice(["bit", "cut", "more", "swapped"])
    if kind == "bit":
        raw[place] ^= 1 << draws.randrange(8)
    elif kind == "cut":
        del raw[place:]
    elif kind == "more":
        raw += draws.randbytes(draws.choice([1, 100, 10_000]))
    else:
        raw[place : place + 4] = bytes(255 - value for value in raw[place : place + 4])
    return Altered(f"{kind} at {place}", bytes(raw), "nobody")


def stranger(draws: random.Random, file: File) -> Altered:
    """Signs the honest content with another key."""
    return Altered("another key", file.bytes(), "stranger")


# a hostile sender


def _address(draws: random.Random, file: File) -> Altered:
    """Changes a field of the address: sender, receiver, federation, experiment or session."""
    name = draws.choice(["sender", "addressee", "federation", "experiment", "session", "kind", "format"])
    before = file.header[name]
    another = [] if name == "session" else ["f" * 16]  # another session id would be a valid new run
    others = [*another, "0" * 64, "b", "coordinator", "update", "joined", 2, *ODD]
    file.header[name] = draws.choice([value for value in others if value != before])
    return Altered(f"{name} = {str(file.header[name])[:40]!r}", file.bytes())


def _number(draws: random.Random, file: File) -> Altered:
    """Sets an impossible round or attempt."""
    name = draws.choice(["round", "attempt"])
    odd = [-1, 0, 10**7, 10**400, 2**63, 1.0, True, "1", None, [1], -(10**30)]
    file.header[name] = draws.choice([value for value in odd if value != file.header[name] or type(value) is not int])
    return Altered(f"{name} = {str(file.header[name])[:40]}", file.bytes())


def _fields(draws: random.Random, file: File) -> Altered:
    """Removes or adds a field, or makes a header of another kind."""
    kind = draws.choice(["missing", "more", "list", "code"])
    if kind == "missing":
        file.header.pop(draws.choice(sorted(file.header)))
    elif kind == "more":
        file.header[draws.choice(["path", "code", "__class__", "to", ""])] = draws.choice(ODD)
    else:
        file.text = draws.choice(["[]", "null", '"header"', "1"]) if kind == "list" else repr(pickle.dumps(print))
    return Altered(f"{kind} field", file.bytes())


def _form(draws: random.Random, file: File) -> Altered:
    """Writes the header as text that is not canonical JSON."""
    plain = file.bytes()
    text = json.dumps(file.header, sort_keys=True, separators=(",", ":"))
    forms = [
        *(json.dumps(file.header), text[:-1], text + " ", text.replace(":", ": ", 1), f"\ufeff{text}", ""),
        *(text.replace("{", '{"kind":"fit",', 1), text.replace('"round":', '"round":0', 1), text[::-1]),
        *(text.replace('"values":', '"values":NaN,"x":', 1), text.replace('"values":', '"values":1e999,"x":', 1)),
    ]
    file.text = draws.choice(forms)
    assert file.bytes() != plain
    return Altered("not canonical", file.bytes())


def _deep(draws: random.Random, file: File) -> Altered:
    """Nests lists or objects deeply in the header, its values or the table of tensors."""
    depth = draws.choice([100, 1000, 10_000, 200_000])
    opening, closing = draws.choice([("[", "]"), ('{"a":', "}")])
    nested = opening * depth + "1" + closing * depth
    place = draws.choice(["header", "values", "table", "open"])
    text = json.dumps(file.header, sort_keys=True, separators=(",", ":"))
    if place == "table":
        table = json.dumps({"__metadata__": {"header": text}, **file.table})[:-1] + f',"x":{nested}}}'
        return Altered(f"{depth} deep in the table", packed(table.encode()) + file.data)
    values = f'"values":{nested},"x":' if place == "values" else ""
    file.text = {"header": nested, "values": text.replace('"values":', values, 1), "open": opening * depth}[place]
    return Altered(f"{depth} deep in the {place}", file.bytes())


def _large(draws: random.Random, file: File) -> Altered:
    """Makes an oversized header, or a header with a false length."""
    kind = draws.choice(["spaces", "lists", "texts", "names", "length"])
    if kind == "length":
        length = draws.choice([2**63, 2**64 - 1, MOST_HEADER + 1, 2**40, 0, 1, 7])
        return Altered(f"a header of {length} bytes", struct.pack("<Q", length) + file.bytes()[8:])
    if kind == "names":
        file.table |= {f"backbone/{number}": next(iter(file.table.values())) for number in range(30_000)}
    else:
        most = MOST_HEADER - 100_000
        texts = ",".join(f"9.{number:05}" for number in range(most // 8))
        file.text = {
            "spaces": " " * (MOST_HEADER + 1),
            "lists": "[" + "[]," * (most // 3) + "[]]",
            "texts": f"[{texts}]",
        }[kind]
    return Altered(f"large: {kind}", file.bytes())


def _values(draws: random.Random, file: File) -> Altered:
    """Makes invalid, duplicate or replaced plain values."""
    values = file.header["values"]
    kind = draws.choice(["nested", "twice", "object", "unnamed", "odd"])
    if kind == "twice":
        values.append(values[0])
    elif kind == "object":
        file.header["values"] = dict(values)
    elif kind == "unnamed":
        values.append([draws.choice([1, None, [], {}]), 1])
    elif kind == "nested":
        values.append(["more", draws.choice([[], {}, None, [1], {"a": 1}])])
    else:
        file.header["values"] = draws.choice([1, "values", None, [1], [[]], [["a"]], [["a", 1, 2]]])
    return Altered(f"values: {kind}", file.bytes())


def _table(draws: random.Random, file: File) -> Altered:
    """Sets an impossible offset, dtype or shape of a tensor in the file's table."""
    name = draws.choice(file.names())
    entry = file.table[name] = copy.deepcopy(file.table[name])
    start, end = entry["data_offsets"]
    kind = draws.choice(["offsets", "shape", "dtype", "entry"])
    if kind == "offsets":
        odd = [[end, start], [start, end + 8], [-8, end], [start, 2**63], [start], "all", [start + 1, end + 1]]
        entry["data_offsets"] = draws.choice(odd)
    elif kind == "shape":
        shape = entry["shape"]
        entry["shape"] = draws.choice([[*shape, 2], [2**62, 4], [0], [-1], "x", None, [1] * 70 + shape, [*shape, 1]])
    elif kind == "dtype":
        odd_types = ["F4", "F6_E2M3", "F8_E8M0", "F8_E5M2", "C64", "I32", "F16", "U64", "code", 7, None]
        entry["dtype"] = draws.choice(odd_types)
    else:
        file.table[name] = draws.choice([None, [], {}, 1, {"dtype": "F32"}])
    return Altered(f"table: {kind}", file.bytes())


def _names(draws: random.Random, file: File) -> Altered:
    """Adds or renames tensors consistently in header and table, although they are not expected."""
    full = draws.choice([name for name in file.names() if name.startswith("backbone/")])
    name, kind = full.removeprefix("backbone/"), draws.choice(["missing", "renamed", "more", "extras", "twice"])
    odd = ["head.weight", "classifier.weight", "*", "../../x", "", "\x1b[2J", "a" * 10_000, "__reduce__", "\u202e"]
    listed = file.header["backbone"]
    if kind in ("missing", "renamed"):
        entry = file.table.pop(full)
        place = listed.index(name)
        if kind == "renamed":
            listed[place] = new = draws.choice(odd)
            file.table[f"backbone/{new}"] = entry
        else:
            del listed[place]
            start, end = entry["data_offsets"]
            file.data = file.data[:start] + file.data[end:]
            for other in file.table.values():
                if other["data_offsets"][0] >= end:
                    other["data_offsets"] = [place - (end - start) for place in other["data_offsets"]]
        file.header["orders"].pop(full, None)
    elif kind == "twice":
        listed.append(name)
    else:
        new, part = draws.choice(odd), "extras" if kind == "extras" else "backbone"
        file.header[part].append(new)
        place = len(file.data)
        file.table[f"{part}/{new}"] = {"dtype": "U8", "shape": [8], "data_offsets": [place, place + 8]}
        file.data += pickle.dumps(print)[:8].ljust(8)
    return Altered(f"names: {kind}", file.bytes())


def _numbers(draws: random.Random, file: File) -> Altered:
    """Sets NaN or infinity at a random place of a tensor."""
    floats = [name for name, entry in file.table.items() if entry["dtype"] == "F32" and math.prod(entry["shape"])]
    start, end = file.table[draws.choice(floats)]["data_offsets"]
    place = draws.randrange(start, end, 4)
    number = draws.choice([math.nan, math.inf, -math.inf])
    file.data = file.data[:place] + struct.pack("<f", number) + file.data[place + 4 :]
    return Altered(f"{number} at {place}", file.bytes())


def _orders(draws: random.Random, file: File) -> Altered:
    """Sets invalid orders of dimensions."""
    name = draws.choice(file.names())
    dimensions = len(file.table[name]["shape"])
    odd = [
        [0] * (dimensions + 1),
        [-1],
        ["0"],
        "01",
        None,
        {"0": 1},
        [True],
        [*range(dimensions), dimensions],
        [10**400],
    ]
    file.header["orders"] = draws.choice([{name: draws.choice(odd)}, {"backbone/nothing": [0]}, [], "x", {"x": []}])
    return Altered("orders", file.bytes())


def _foreign(draws: random.Random, file: File) -> Altered:
    """Makes a file of another format."""
    archive = io.BytesIO()
    torch.save({"backbone": torch.ones(2)}, archive)
    zeros = gzip.compress(bytes(10**6))
    kinds = {
        "pickle": pickle.dumps(print),
        "torch.save": archive.getvalue(),
        "gzip": zeros,
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "YAML": b"a: &a [*a, *a]\n",
        "ELF": b"\x7fELF" + bytes(100),
        "8 bytes": bytes(8),
        "noise": draws.randbytes(draws.choice([8, 100, 10_000])),
    }
    name = draws.choice(list(kinds))
    return Altered(name, kinds[name])


def flip(draws: random.Random, file: File) -> Altered:
    """Changes bytes of header and table, signed by the sender; the result may be another well-formed payload."""
    raw = bytearray(file.bytes())
    end = len(raw) - len(file.data)
    for _ in range(draws.randint(1, 3)):
        raw[draws.randrange(8, end)] = draws.choice([*b'0123456789[]{}":,.-eE\\', draws.randrange(256)])
    return Altered("bytes of the header", bytes(raw))


MAKERS: dict[str, Maker] = {
    "changed in transit": on_the_way,
    "signed with another key": stranger,
    "addressed to others": _address,
    "another round or attempt": _number,
    "other fields": _fields,
    "not canonical": _form,
    "deeply nested": _deep,
    "oversize header": _large,
    "values": _values,
    "table of tensors": _table,
    "names of tensors": _names,
    "NaN and infinity": _numbers,
    "orders of dimensions": _orders,
    "another format": _foreign,
}
"""Makers by kind; both receivers must refuse their payloads."""


def altered(
    payload: Payload, path: Path, maker: Maker, draws: random.Random, sender: SigningKey
) -> tuple[str, Payload]:
    """Writes an altered copy of a payload; returns a description of the alteration, and the copy.

    Args:
        payload: an honest payload.
        path: the path of the copy.
        maker: the function that alters the payload.
        draws: random numbers for the alteration.
        sender: the honest sender's key.
    """
    made = maker(draws, File.read(payload.path))
    path.unlink(missing_ok=True)
    path.write_bytes(made.data)
    if made.signed == "nobody":
        size = draws.choice([payload.envelope.size, max(len(made.data), 8)])
        return made.what, Payload(path, replace(payload.envelope, size=size))
    digest, size = digest_of(path)
    key = sender if made.signed == "sender" else STRANGER
    return made.what, Payload(path, Envelope(digest, max(size, 8), key.sign(DOMAIN + bytes.fromhex(digest))))
