"""The payload that coordinator and silos exchange: a safetensors file with a canonical header and a signature."""

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
"""Kinds of payloads: the coordinator sends `experiment`, `fit` and `evaluate`, a silo answers with the others."""
PARTS = ("backbone", "extras")
"""The two groups of tensors in a payload."""
MOST_HEADER = 2 * 2**20  # bytes of the table of tensors and of the header together
MOST_LISTS = 50_000  # lists and objects in a header: Python takes a second and 100 MiB for a million of them
PIECE = 2**20  # largest number of bytes to read or send at once
METRIC = "metric:"
"""Prefix of an update's metrics among the plain values of the header."""
DOMAIN = b"fedreid_pl payload 1\0"  # part of the signed bytes: a signature of other content is invalid for a payload


class BadPayload(Exception):
    """Raised for bytes that are not a payload, or that another party has signed; the message gives the reason."""


@dataclass(frozen=True)
class Envelope:
    """Digest, size and signature that a transport carries with the content.

    Args:
        digest: SHA-256 of the content, hexadecimal.
        size: size of the content in bytes.
        signature: the sender's signature of the digest, hexadecimal.
    """

    digest: str
    size: int
    signature: str

    def __post_init__(self) -> None:
        fits = type(self.digest) is str and re.fullmatch(r"[0-9a-f]{64}", self.digest)
        signed = type(self.signature) is str and re.fullmatch(r"[0-9a-f]{128}", self.signature)
        if not fits or not signed or type(self.size) is not int or self.size < 8:
            raise BadPayload("the envelope needs a SHA-256 digest, a size in bytes and a signature")


@dataclass(frozen=True)
class Payload:
    """A file and its envelope.

    Args:
        path: the file.
        envelope: envelope of the file.
        hashed: whether the writer of the file has already compared its digest with the envelope's.
    """

    path: Path
    envelope: Envelope
    hashed: bool = False


@dataclass(frozen=True)
class Header:
    """Describes a payload; the signature covers all fields.

    Args:
        kind: one of `KINDS`.
        sender, addressee: names of silos, or `coordinator`.
        federation: number of the federation, hexadecimal.
        experiment: SHA-256 of the shared configuration.
        session, round, attempt: session, round and attempt of the job, see `ClientJob`.
        answers: digest of the payload that this payload answers; empty in payloads of the coordinator.
        values: plain values (numbers, booleans and strings) by name.
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
            raise BadPayload("a field of the header has the wrong type")
        if not re.fullmatch(r"[0-9a-f]{16}", self.session):
            raise BadPayload("the session in the header is not a number of 16 hexadecimal digits")
        if any(not re.fullmatch(r"[a-z0-9-]{1,63}", name) for name in (self.sender, self.addressee)):
            raise BadPayload("the sender or the addressee in the header is not a valid name")
        if any(not re.fullmatch(r"[0-9a-f]{0,64}", text) for text in (self.federation, self.experiment, self.answers)):
            raise BadPayload("a number in the header is not hexadecimal")
        if type(self.round) is not int or type(self.attempt) is not int or type(self.values) is not dict:
            raise BadPayload("a field of the header has the wrong type")
        if self.round < 0 or self.attempt < 1:
            raise BadPayload("the round or the attempt in the header is out of range")
        if any(type(value) not in (int, float, bool, str) for value in self.values.values()):
            raise BadPayload("a value in the header is not a number, a boolean or a string")


@dataclass(frozen=True)
class Opened:
    """Header and tensors of a checked payload; the first access maps a tensor from the file into memory."""

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
    """Writes and signs a payload and returns it. Equal contents give equal bytes on any machine.

    The header stores the order of the names and the memory order of the tensors (such as channels-last), because the
    last bits of sums depend on both.

    Raises:
        ValueError: if a plain value is NaN or infinite.
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
    """Checks signature, size, digest and header of a payload and returns its content.

    Args:
        payload: file and envelope.
        public: public key of the expected sender, hexadecimal.

    Raises:
        BadPayload: if a check fails; the message gives the reason.
    """
    envelope = payload.envelope
    if not verified(public, envelope.signature, DOMAIN + bytes.fromhex(envelope.digest)):
        raise BadPayload("the signature does not match the sender's key")
    hashed = payload.hashed or digest_of(payload.path)[0] == envelope.digest
    if os.path.getsize(payload.path) != envelope.size or not hashed:
        raise BadPayload("the content differs from what the sender signed")
    content, file = _content(payload.path)
    parts = {part: _names(content, part) for part in PARTS}
    orders = content.pop("orders", None)
    named = {f"{part}/{name}" for part, names in parts.items() for name in names}
    if (odd := oddity(file, named, orders)) is not None:
        raise BadPayload(odd)
    if content.pop("format", None) != FORMAT:
        raise BadPayload("the format of the payload differs; use the same version of fedreid_pl at all parties")
    content["values"] = _values(content.get("values"))
    if set(content) != {item.name for item in fields(Header)}:
        raise BadPayload("a field of the header is missing or unexpected")
    header = Header(**content)
    return Opened(header, *(MappedTensors(file, part, names, orders) for part, names in parts.items()))


def read_backbone(path: Path) -> Mapping[str, Tensor]:
    """Returns the backbone in a payload that was checked earlier; does not check the signature again.

    Raises:
        BadPayload: if the file is not a payload.
        OSError: if the file cannot be read.
    """
    content, file = _content(path)
    return MappedTensors(file, "backbone", _names(content, "backbone"), content["orders"])


def canonical(content: Mapping[str, Any]) -> str:
    """Returns the canonical JSON text of plain values: equal values give equal texts.

    >>> canonical({"b": 0.1, "a": "é"})
    '{"a":"\\\\u00e9","b":0.1}'
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(path: Path) -> tuple[str, int]:
    """Returns the SHA-256 of a file, hexadecimal, and its size in bytes."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
        return digest.hexdigest(), file.tell()


def _content(path: Path) -> tuple[dict[str, Any], Any]:
    """Returns the parsed header of a file and the open file."""
    try:
        with open(path, "rb") as start:
            if int.from_bytes(start.read(8), "little") > MOST_HEADER:
                raise BadPayload(f"the header is larger than {MOST_HEADER} bytes")
        file: Any = safetensors.safe_open(path, framework="pt")
        return _parsed((file.metadata() or {})["header"]), file
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise BadPayload(f"the file is not a payload ({type(error).__name__})") from error


def _parsed(text: str) -> dict[str, Any]:
    if text.count("[") + text.count("{") > MOST_LISTS:
        raise BadPayload(f"the header has more than {MOST_LISTS} lists and objects")
    try:
        content = json.loads(text)
        same = type(content) is dict and canonical(content) == text
    except (ValueError, RecursionError) as error:
        raise BadPayload("the header is not JSON") from error
    if not same:
        raise BadPayload("the header is not canonical JSON")
    return content


def _values(pairs: Any) -> dict[str, Any]:
    """Returns the plain values by name, in the order of the header; records use this order."""
    named = type(pairs) is list and all(
        type(pair) is list and len(pair) == 2 and type(pair[0]) is str for pair in pairs
    )
    if not named or len({pair[0] for pair in pairs}) != len(pairs):
        raise BadPayload("the header has no valid list of values")
    return dict(pairs)


def _names(content: dict[str, Any], part: str) -> list[str]:
    names = content.pop(part, None)
    if type(names) is not list or any(type(name) is not str for name in names) or len(set(names)) != len(names):
        raise BadPayload("the header has no valid list of tensor names")
    return names
