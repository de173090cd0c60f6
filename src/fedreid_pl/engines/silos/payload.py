"""What travels between coordinator and silos: one safetensors file with a canonical header, signed by its sender."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from fedreid_pl.engines.silos.keys import SigningKey, verified
from fedreid_pl.engines.silos.tensor_file import MappedTensors, memory_order, oddity, unshared
from fedreid_pl.federation.messages import Plain

FORMAT = 1
KINDS = ("experiment", "joined", "refused", "left", "fit", "evaluate", "update", "failure")
"""What a payload can be: the coordinator sends experiments and jobs, a silo answers with the others."""
PARTS = ("backbone", "extras")
"""The tensors of a message."""
MOST_HEADER = 2 * 2**20  # bytes of the table of tensors and of the header together
MOST_LISTS = 50_000  # lists and objects in a header: Python takes a second and 100 MiB for a million of them
PIECE = 2**20  # bytes that are read or sent at once
METRIC = "metric:"
"""What the names of an update's numbers begin with among the plain values."""
DOMAIN = b"fedreid_pl payload 1\0"  # a signature of something else is none of a payload


class BadPayload(Exception):
    """Bytes that are no payload, or whose sender is not who they should be from; the message says why."""


@dataclass(frozen=True)
class Envelope:
    """What a transport carries beside the content.

    Args:
        digest: SHA-256 of the content.
        size: its bytes.
        signature: of the digest, by the sender.
    """

    digest: str
    size: int
    signature: str

    def __post_init__(self) -> None:
        fits = type(self.digest) is str and re.fullmatch(r"[0-9a-f]{64}", self.digest)
        signed = type(self.signature) is str and re.fullmatch(r"[0-9a-f]{128}", self.signature)
        if not fits or not signed or type(self.size) is not int or self.size < 8:
            raise BadPayload("has an envelope that is none")


@dataclass(frozen=True)
class Payload:
    """A file and its envelope.

    Args:
        path: the file.
        envelope: of it.
        hashed: whoever wrote the file compared its digest with the envelope's while it was written.
    """

    path: Path
    envelope: Envelope
    hashed: bool = False


@dataclass(frozen=True)
class Header:
    """Says what a payload is; all of it is signed.

    Args:
        kind: one of `KINDS`.
        sender, addressee: names of silos, or `coordinator`.
        federation: number of the federation, hexadecimal.
        experiment: SHA-256 of the shared configuration.
        session, round, attempt: of the job, see `ClientJob`.
        answers: digest of the payload that this one answers; empty for what the coordinator sends.
        values: plain values.
    """

    kind: str
    sender: str
    addressee: str
    federation: str
    experiment: str
    session: str
    round: int = 0
    attempt: int = 1
    answers: str = ""
    values: dict[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = (self.kind, self.sender, self.addressee, self.federation, self.experiment, self.session, self.answers)
        if any(type(name) is not str for name in names) or self.kind not in KINDS:
            raise BadPayload("has a header with a field of the wrong type")
        if not re.fullmatch(r"[0-9a-f]{16}", self.session):
            raise BadPayload("is of a session that is none")
        if any(not re.fullmatch(r"[a-z0-9-]{1,63}", name) for name in (self.sender, self.addressee)):
            raise BadPayload("is from or for a name that no party has")
        if any(not re.fullmatch(r"[0-9a-f]{0,64}", text) for text in (self.federation, self.experiment, self.answers)):
            raise BadPayload("has a header with a number that is none")
        if type(self.round) is not int or type(self.attempt) is not int or type(self.values) is not dict:
            raise BadPayload("has a header with a field of the wrong type")
        if self.round < 0 or self.attempt < 1:
            raise BadPayload("is of a round or an attempt that cannot be")
        if any(type(value) not in (int, float, bool, str) for value in self.values.values()):
            raise BadPayload("has a header with a value that is not plain")


@dataclass(frozen=True)
class Opened:
    """A payload that was checked: its header and its tensors, which are mapped from the file when they are read."""

    header: Header
    backbone: Mapping[str, Tensor]
    extras: Mapping[str, Tensor]


def write_payload(
    path: Path,
    header: Header,
    key: SigningKey,
    backbone: Mapping[str, Tensor] | None = None,
    extras: Mapping[str, Tensor] | None = None,
) -> Payload:
    """Writes and signs a payload. Equal contents give equal bytes, on any machine.

    The order of names and of the tensors' memory (channels-last) travels in the header: sums depend on both in their
    last bits.

    Raises:
        ValueError: for NaN or infinite plain values.
    """
    tensors: dict[str, Tensor] = {}
    orders: dict[str, list[int]] = {}
    for part, state in zip(PARTS, (backbone or {}, extras or {}), strict=True):
        for name, value in state.items():
            order = memory_order(value)
            if order != sorted(order):
                orders[f"{part}/{name}"] = order
            tensors[f"{part}/{name}"] = value.detach().cpu().permute(order).contiguous()
    content = {"format": FORMAT, **asdict(header), "values": list(header.values.items()), "orders": orders}
    text = canonical(
        {**content, **{part: list(state or {}) for part, state in zip(PARTS, (backbone, extras), strict=True)}}
    )
    safetensors.torch.save_file(unshared(tensors), path, metadata={"header": text})
    digest, size = digest_of(path)
    return Payload(path, Envelope(digest, size, key.sign(DOMAIN + bytes.fromhex(digest))))


def open_payload(payload: Payload, public: str) -> Opened:
    """Checks signature, bounds and header of a payload.

    Args:
        payload: file and envelope.
        public: the key of the party that the payload should be from.

    Raises:
        BadPayload: saying what is wrong.
    """
    envelope = payload.envelope
    if not verified(public, envelope.signature, DOMAIN + bytes.fromhex(envelope.digest)):
        raise BadPayload("is not signed by its sender")
    hashed = payload.hashed or digest_of(payload.path)[0] == envelope.digest
    if os.path.getsize(payload.path) != envelope.size or not hashed:
        raise BadPayload("is not what was signed")
    content, file = _content(payload.path)
    parts = {part: _names(content, part) for part in PARTS}
    orders = content.pop("orders", None)
    named = {f"{part}/{name}" for part, names in parts.items() for name in names}
    if (odd := oddity(file, named, orders)) is not None:
        raise BadPayload(odd)
    if content.pop("format", None) != FORMAT:
        raise BadPayload("is of another format; use the same version of fedreid_pl at all parties")
    content["values"] = _values(content.get("values"))
    if set(content) != {item.name for item in fields(Header)}:
        raise BadPayload("has a header with other fields")
    header = Header(**content)
    return Opened(header, *(MappedTensors(file, part, names, orders) for part, names in parts.items()))


def read_backbone(path: Path) -> Mapping[str, Tensor]:
    """Returns the tensors of a payload that was checked before and is this party's own file by now.

    Raises:
        BadPayload: if it is none.
        OSError: if it cannot be read.
    """
    content, file = _content(path)
    return MappedTensors(file, "backbone", _names(content, "backbone"), content["orders"])


def canonical(content: Mapping[str, Any]) -> str:
    """Returns the one JSON text that stands for plain values; equal values give equal texts.

    >>> canonical({"b": 0.1, "a": "é"})
    '{"a":"\\\\u00e9","b":0.1}'
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(path: Path) -> tuple[str, int]:
    """Returns SHA-256 and size of a file."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
        return digest.hexdigest(), file.tell()


def _content(path: Path) -> tuple[dict[str, Any], Any]:
    """The header of a file and the open file."""
    try:
        with open(path, "rb") as start:
            if int.from_bytes(start.read(8), "little") > MOST_HEADER:
                raise BadPayload("has a header beyond all bounds")
        file: Any = safetensors.safe_open(path, framework="pt")
        return _parsed((file.metadata() or {})["header"]), file
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise BadPayload(f"is no payload ({type(error).__name__})") from error


def _parsed(text: str) -> dict[str, Any]:
    if text.count("[") + text.count("{") > MOST_LISTS:
        raise BadPayload("has a header of too many lists")
    try:
        content = json.loads(text)
        same = type(content) is dict and canonical(content) == text
    except (ValueError, RecursionError) as error:
        raise BadPayload("has a header that is no JSON") from error
    if not same:
        raise BadPayload("has a header that is not canonical")
    return content


def _values(pairs: Any) -> dict[str, Any]:
    """Plain values, whose order is kept: records are written in it."""
    named = type(pairs) is list and all(
        type(pair) is list and len(pair) == 2 and type(pair[0]) is str for pair in pairs
    )
    if not named or len({pair[0] for pair in pairs}) != len(pairs):
        raise BadPayload("has a header without values by name")
    return dict(pairs)


def _names(content: dict[str, Any], part: str) -> list[str]:
    names = content.pop(part, None)
    if type(names) is not list or any(type(name) is not str for name in names) or len(set(names)) != len(names):
        raise BadPayload("has a header without the names of its tensors")
    return names
