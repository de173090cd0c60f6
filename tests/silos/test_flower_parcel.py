"""Chunks of a payload: unpacking returns the packed payload and refuses altered chunks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from silos.place import content

from fedreid_pl.engines.silos.flower import parcel as parcels
from fedreid_pl.engines.silos.flower.parcel import Parcel, pack, unpack
from fedreid_pl.engines.silos.payload import BadPayload

SMALL = 1000


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "CHUNK", SMALL)


@pytest.mark.parametrize("size", [8, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL + 7])
def test_unpacking_returns_the_packed_payload(size: int, tmp_path: Path) -> None:
    payload = content(tmp_path / "p", size)
    packed = pack(payload, answers="ab")
    assert [len(chunk) for chunk in packed.chunks.values()] == [SMALL] * (size // SMALL) + [size % SMALL] * (
        size % SMALL > 0
    )
    found = unpack(packed, tmp_path / "q", size)
    assert found.path.read_bytes() == payload.path.read_bytes()
    assert found.envelope == payload.envelope and found.hashed and packed.note["answers"] == "ab"


def test_the_order_in_which_chunks_are_listed_does_not_matter(tmp_path: Path) -> None:
    payload = content(tmp_path / "p", 3 * SMALL)
    packed = pack(payload)
    mixed = replace(packed, chunks=dict(reversed(packed.chunks.items())))
    assert unpack(mixed, tmp_path / "q", 3 * SMALL).path.read_bytes() == payload.path.read_bytes()


def altered(packed: Parcel, how: str) -> Parcel:
    chunks, note = dict(packed.chunks), dict(packed.note)
    if how == "missing":
        del chunks["00001"]
    elif how == "extra chunk":
        chunks["00003"] = b"x"
    elif how == "swapped":
        chunks["00000"], chunks["00001"] = chunks["00001"], chunks["00000"]
    elif how == "longer":
        chunks["00002"] += b"x"
    elif how == "shorter":
        chunks["00000"] = chunks["00000"][1:]
    elif how == "other bytes":
        chunks["00002"] = os.urandom(len(chunks["00002"]))
    elif how == "other names":
        chunks = {f"../{name}": chunk for name, chunk in chunks.items()}
    elif how == "larger note":
        note["size"] = 4 * SMALL + 1
    elif how == "size as a string":
        note["size"] = "many"
    elif how == "no envelope":
        note = {}
    return Parcel(note, chunks)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("missing", "needs 3 chunks"),
        ("extra chunk", "needs 3 chunks"),
        ("other names", "needs 3 chunks"),
        ("larger note", "needs 5 chunks"),
        ("longer", "chunk 00002 needs 500 bytes"),
        ("shorter", "chunk 00000 needs 1000 bytes"),
        ("swapped", "differs from what the sender signed"),
        ("other bytes", "differs from what the sender signed"),
        ("size as a string", "envelope"),
        ("no envelope", "envelope"),
    ],
)
def test_altered_chunks_are_refused_and_leave_no_file(how: str, named: str, tmp_path: Path) -> None:
    packed = pack(content(tmp_path / "p", 2 * SMALL + 500))
    with pytest.raises(BadPayload, match=named):
        unpack(altered(packed, how), tmp_path / "q", 10 * SMALL)
    assert not (tmp_path / "q").exists()


def test_a_payload_beyond_the_bound_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    packed = pack(content(tmp_path / "p", 2 * SMALL))
    with pytest.raises(BadPayload, match="2000 bytes, but at most 1999 are accepted"):
        unpack(packed, tmp_path / "q", 2 * SMALL - 1)
    assert not (tmp_path / "q").exists()
    assert unpack(packed, tmp_path / "q", 2 * SMALL).path.exists()


def test_a_file_that_is_shorter_than_its_envelope_is_not_packed(tmp_path: Path) -> None:
    payload = content(tmp_path / "p", 2 * SMALL)
    payload.path.write_bytes(payload.path.read_bytes()[:-1])
    with pytest.raises(BadPayload, match="differs from the size"):
        pack(payload)
