"""Writes are atomic: injected failures, damage, other versions, hostile content."""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import (
    DamagedFile,
    NewerFormat,
    decode,
    read_state,
    write_bytes,
    write_state,
    write_text,
)

STATE = {
    "round": 3,
    "models": {"global": {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(4)}},
    "names": ["a", "b"],
    "value": 0.1,
    "none": None,
    "flag": True,
}


def fail(*parts: Any, **named: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def with_header(data: bytes, **changed: Any) -> bytes:
    header = {"format": "fedreid_pl", "version": 1, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return json.dumps({**header, **changed}).encode() + b"\n" + data


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.ckpt"
    write_state(path, STATE)
    back = read_state(path)
    assert list(back) == list(STATE)
    assert {**back, "models": 0} == {**STATE, "models": 0}
    for name, value in STATE["models"]["global"].items():
        assert torch.equal(back["models"]["global"][name], value)
    assert os.listdir(path.parent) == ["file.ckpt"]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(FedReIDError, match="No space left on device") as caught:
        write_bytes(path, b"new content")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]
    monkeypatch.undo()
    write_bytes(path, b"new content")
    assert path.read_bytes() == b"new content"


def test_a_write_that_stops_in_the_middle_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    real_open = builtins.open

    def open_small(*parts: Any, **named: Any) -> Any:
        file = real_open(*parts, buffering=0, **named)

        class Small:
            def write(self, data: bytes) -> None:
                file.write(data[:3])
                fail()

            def __enter__(self) -> Small:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

        return Small()

    monkeypatch.setattr(builtins, "open", open_small)
    with pytest.raises(FedReIDError, match="No space left"):
        write_bytes(path, b"new content")
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "deeper" / "x"):
        with pytest.raises(FedReIDError, match="cannot be written"):
            write_text(path, "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FedReIDError, match="cannot be written"):
        write_text(tmp_path / "folder", "text")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "Rank-1 café\n")
    assert (tmp_path / "file").read_bytes() == "Rank-1 café\n".encode()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_state(path, STATE)
    whole = path.read_bytes()
    for size in [*range(0, 250, 7), *range(250, len(whole), 101), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedFile):
            read_state(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(DamagedFile):
        read_state(path)


def test_every_altered_bit_of_the_content_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_state(path, STATE)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for place in range(start, len(whole), 53):
        altered = bytearray(whole)
        altered[place] ^= 1 << (place % 8)
        path.write_bytes(altered)
        with pytest.raises(DamagedFile, match="checksum differs"):
            read_state(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello",
        b"\xff\xfe\x00\n",
        b"[]\n",
        b"3\n",
        b'"format"\n',
        b"{}\n",
        b'{"format": "other"}\nx',
        b'{"format": "fedreid_pl"}\nx',
        with_header(b"x", version=None),
        with_header(b"x", version="new"),
        with_header(b"x", version=float("inf")),
        b"[" * 100_000 + b"\n",
        saved(STATE),
        pickle.dumps(STATE["names"]),
    ],
    ids=range(16),
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DamagedFile, match="is not a checkpoint of fedreid_pl"):
        read_state(tmp_path / "file")


def test_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(with_header(saved(STATE)))
    assert read_state(tmp_path / "file")["round"] == 3, "the test's header is valid"
    (tmp_path / "file").write_bytes(with_header(saved(STATE), version=3))
    with pytest.raises(NewerFormat, match=r"has format 3 and was written by .* formats up to 2"):
        read_state(tmp_path / "file")


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [saved, pickle.dumps, lambda evil: saved({"round": 1, "models": evil})])
def test_code_behind_a_valid_header_is_not_executed(tmp_path: Path, wrap: Any) -> None:
    target = tmp_path / "made"
    (tmp_path / "file").write_bytes(with_header(wrap(Evil(target))))
    with pytest.raises(DamagedFile, match="contains other objects than tensors and plain values") as caught:
        read_state(tmp_path / "file")
    assert not target.exists() and "\n" not in str(caught.value)


def packed(parts: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """torch reads compressed archives, so a file of a hundred kilobytes could unpack to gigabytes."""
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(25_000_000)}))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    bomb = packed(parts, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 200_000 and torch.load(io.BytesIO(bomb), weights_only=True)["w"].numel() == 25_000_000
    (tmp_path / "file").write_bytes(with_header(bomb))
    with pytest.raises(DamagedFile, match="contains other objects than"):
        read_state(tmp_path / "file")
    with pytest.raises(ValueError, match="compressed"):
        decode(bomb)


def test_parts_that_share_bytes_are_refused() -> None:
    """The directory of an archive can list the same bytes many times."""
    whole = packed({"a": b"x" * 10_000})
    start = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    entries = b"".join(whole[start:end].replace(b"a", name) for name in (b"a", b"b", b"c"))
    tail = bytearray(whole[end:])
    tail[8:12] = (3).to_bytes(2, "little") * 2
    tail[12:16] = len(entries).to_bytes(4, "little")
    with pytest.raises(ValueError, match="overlap"):
        decode(whole[:start] + entries + bytes(tail))


@pytest.mark.parametrize("size", [10**6, 10**18, -5])
def test_a_header_cannot_cause_a_large_allocation(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(with_header(saved(STATE), bytes=size))
    with pytest.raises(DamagedFile):
        read_state(tmp_path / "file")
    (tmp_path / "file").write_bytes(b'{"format": "' + b"x" * 10**7)
    with pytest.raises(DamagedFile, match="is not a checkpoint"):
        read_state(tmp_path / "file")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), "text", None])
def test_content_that_is_not_a_state_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "file").write_bytes(with_header(saved(content)))
    with pytest.raises(DamagedFile, match="expected a dictionary"):
        read_state(tmp_path / "file")


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FedReIDError, match="No such file") as caught:
        read_state(tmp_path / "file")
    assert not isinstance(caught.value, DamagedFile)
