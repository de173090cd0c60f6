"""Converts payloads to parcels for Flower and back: a note of plain values, and the file's bytes in chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedreid_pl.engines.silos.payload import BadPayload, Envelope, Payload

CHUNK = 5 * 2**20
"""Size of each chunk except the last, in bytes. Flower stores an array of this size as one object."""
MOST_CHUNKS = 2**16
Note = Mapping[str, str | int]


@dataclass(frozen=True)
class Parcel:
    """The content of one Flower message.

    Args:
        note: plain values; for a payload its `digest`, `size` and `signature`.
        chunks: bytes of the file in chunks, with the names `00000`, `00001`, ...
    """

    note: Note
    chunks: Mapping[str, bytes] = field(default_factory=dict)


def pack(payload: Payload, **more: str | int) -> Parcel:
    """Returns a parcel with the content of a payload's file.

    Args:
        payload: file and envelope.
        more: further plain values for the note.

    Raises:
        BadPayload: if the length of the file differs from the size in its envelope.
    """
    size, chunks = payload.envelope.size, {}
    with open(payload.path, "rb", buffering=0) as file:
        for index in range(_count(size)):
            chunks[_name(index)] = file.read(CHUNK)
    if sum(map(len, chunks.values())) != size:
        raise BadPayload("the length of the file differs from the size in its envelope")
    return Parcel({**vars(payload.envelope), **more}, chunks)


def envelope_in(parcel: Parcel, most: int) -> Envelope:
    """Returns the envelope of the payload in a parcel, after a check of the number and the sizes of its chunks.

    Args:
        parcel: parcel from another party.
        most: largest size of the payload in bytes.

    Raises:
        BadPayload: if the payload is too long, or the number or the length of the chunks is wrong.
    """
    note = parcel.note
    envelope = Envelope(note.get("digest", ""), note.get("size", 0), note.get("signature", ""))  # type: ignore[arg-type]
    if envelope.size > most:
        raise BadPayload(f"the payload has {envelope.size} bytes, but at most {most} are accepted")
    count = _count(envelope.size)
    if count > MOST_CHUNKS or set(parcel.chunks) != {_name(index) for index in range(count)}:
        raise BadPayload(f"a payload of {envelope.size} bytes needs {count} chunks, numbered from 0")
    for index in range(count):
        wanted = min(CHUNK, envelope.size - index * CHUNK)
        if len(parcel.chunks[_name(index)]) != wanted:
            raise BadPayload(f"chunk {_name(index)} needs {wanted} bytes")
    return envelope


def unpack(parcel: Parcel, path: Path, most: int) -> Payload:
    """Writes the payload in a parcel to a file.

    Args:
        parcel: parcel from another party.
        path: path of the file; an existing file is replaced.
        most: largest size of the payload in bytes.

    Raises:
        BadPayload: as `envelope_in`, or if the digest of the bytes is wrong; the file is deleted.
    """
    envelope = envelope_in(parcel, most)
    digest = hashlib.sha256()
    path.unlink(missing_ok=True)  # a process that still maps the old file keeps its content
    with open(path, "wb", buffering=0) as file:
        for index in range(_count(envelope.size)):
            chunk = parcel.chunks[_name(index)]
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != envelope.digest:
        path.unlink()
        raise BadPayload("the content differs from what the sender signed")
    return Payload(path, envelope, hashed=True)


def _count(size: int) -> int:
    return -(-size // CHUNK)


def _name(index: int) -> str:
    return f"{index:05d}"
