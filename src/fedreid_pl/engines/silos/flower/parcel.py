"""A payload as Flower carries it: a note of plain values and the bytes of the file in chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedreid_pl.engines.silos.payload import BadPayload, Envelope, Payload

CHUNK = 5 * 2**20
"""Bytes of a chunk, all but the last. Flower stores an array of this size as one object."""
MOST_CHUNKS = 2**16
Note = Mapping[str, str | int]


@dataclass(frozen=True)
class Parcel:
    """What one message of Flower holds.

    Args:
        note: plain values; of a payload `digest`, `size` and `signature`.
        chunks: by name `00000`, `00001`, ... the bytes of the file.
    """

    note: Note
    chunks: Mapping[str, bytes] = field(default_factory=dict)


def pack(payload: Payload, **more: str | int) -> Parcel:
    """Reads a payload's file into a parcel.

    Args:
        payload: file and envelope.
        more: further plain values for the note.

    Raises:
        BadPayload: if the file is not as long as its envelope says.
    """
    size, chunks = payload.envelope.size, {}
    with open(payload.path, "rb", buffering=0) as file:
        for index in range(_count(size)):
            chunks[_name(index)] = file.read(CHUNK)
    if sum(map(len, chunks.values())) != size:
        raise BadPayload("has another length than its envelope says")
    return Parcel({**vars(payload.envelope), **more}, chunks)


def envelope_in(parcel: Parcel, most: int) -> Envelope:
    """Returns the envelope of the payload in a parcel, whose chunks are those of a file of this size.

    Args:
        parcel: from another party.
        most: bytes that the payload may have.

    Raises:
        BadPayload: for anything else: too long, a chunk too many or too few, or one of another length.
    """
    note = parcel.note
    envelope = Envelope(note.get("digest", ""), note.get("size", 0), note.get("signature", ""))  # type: ignore[arg-type]
    if envelope.size > most:
        raise BadPayload(f"has {envelope.size} bytes, at most {most} are taken")
    count = _count(envelope.size)
    if count > MOST_CHUNKS or set(parcel.chunks) != {_name(index) for index in range(count)}:
        raise BadPayload(f"is not in the {count} chunks of its size")
    for index in range(count):
        wanted = min(CHUNK, envelope.size - index * CHUNK)
        if len(parcel.chunks[_name(index)]) != wanted:
            raise BadPayload(f"has a chunk {_name(index)} that is not of {wanted} bytes")
    return envelope


def unpack(parcel: Parcel, path: Path, most: int) -> Payload:
    """Writes the payload in a parcel to a file.

    Args:
        parcel: from another party.
        path: the file; one that is there is replaced.
        most: bytes that the payload may have.

    Raises:
        BadPayload: as `envelope_in`, or if the bytes are not those of the digest; no file is left.
    """
    envelope = envelope_in(parcel, most)
    digest = hashlib.sha256()
    path.unlink(missing_ok=True)  # whoever still maps the old file keeps it
    with open(path, "wb", buffering=0) as file:
        for index in range(_count(envelope.size)):
            chunk = parcel.chunks[_name(index)]
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != envelope.digest:
        path.unlink()
        raise BadPayload("is not what was signed")
    return Payload(path, envelope, hashed=True)


def _count(size: int) -> int:
    return -(-size // CHUNK)


def _name(index: int) -> str:
    return f"{index:05d}"
