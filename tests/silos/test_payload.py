"""Payloads: reading returns exactly the sent bits and refuses any other content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_pl.engines.silos.keys import SigningKey
from fedreid_pl.engines.silos.payload import (
    DOMAIN,
    BadPayload,
    Envelope,
    Header,
    Payload,
    canonical,
    digest_of,
    open_payload,
    write_payload,
)

KEY = SigningKey.new()
HEADER = Header("fit", "coordinator", "a", "f" * 16, "e" * 64, "0123456789abcdef", 3, 2, values={"z": 0.1, "a": True})


def signed(path: Path, key: SigningKey = KEY) -> Payload:
    digest, size = digest_of(path)
    return Payload(path, Envelope(digest, size, key.sign(DOMAIN + bytes.fromhex(digest))))


def raw(path: Path, header: object, tensors: dict[str, torch.Tensor] | None = None) -> Payload:
    """Writes a file with an arbitrary header and a valid signature, as an insider could."""
    text = header if isinstance(header, str) else canonical(header)  # type: ignore[arg-type]
    safetensors.torch.save_file(tensors or {}, path, metadata={"header": text})
    return signed(path)


def content(**changes: object) -> dict[str, object]:
    values = {"values": [["z", 0.1]], "format": 1, "orders": {}, "backbone": [], "extras": []}
    return {**vars(HEADER), **values, **changes}


def test_reading_returns_the_sent_content(tmp_path: Path) -> None:
    last = torch.randn(4, 3, 5, 2).to(memory_format=torch.channels_last)
    shared = torch.arange(12.0)
    backbone = {"w": last, "a": torch.tensor(7), "b": shared[2:5], "c": shared[2:5]}
    extras = {"none": torch.empty(0, 3), "half": torch.randn(3).bfloat16(), "flags": torch.tensor([True, False])}
    opened = open_payload(write_payload(tmp_path / "p", HEADER, KEY, backbone, extras), KEY.public)
    assert opened.header == HEADER and list(opened.header.values) == ["z", "a"]
    for sent, found in ((backbone, opened.backbone), (extras, opened.extras)):
        assert list(sent) == list(found), "sums depend on the order of names"
        for name, value in sent.items():
            assert torch.equal(value, found[name]) and value.dtype == found[name].dtype
    assert opened.backbone["w"].stride() == last.stride(), "sums depend on the memory layout"


def test_equal_contents_are_equal_bytes_and_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    state = {"w": torch.ones(3)}
    one, other = (write_payload(tmp_path / name, HEADER, KEY, state) for name in ("one", "other"))
    assert one.envelope == other.envelope
    assert torch.equal(safetensors.torch.load_file(one.path)["backbone/w"], state["w"])


def test_a_payload_of_another_key_is_refused(tmp_path: Path) -> None:
    payload = write_payload(tmp_path / "p", HEADER, SigningKey.new(), {"w": torch.ones(3)})
    with pytest.raises(BadPayload, match="the signature does not match"):
        open_payload(payload, KEY.public)


@settings(max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_can_be_changed(place: float, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("bit") / "p"
    payload = write_payload(path, HEADER, KEY, {"w": torch.ones(30)})
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(BadPayload, match="differs from what the sender signed"):
        open_payload(payload, KEY.public)


def test_a_cut_or_longer_file_is_refused(tmp_path: Path) -> None:
    payload = write_payload(tmp_path / "p", HEADER, KEY, {"w": torch.ones(30)})
    data = payload.path.read_bytes()
    for altered in (data[:-1], data + b"\0", b""):
        payload.path.write_bytes(altered)
        with pytest.raises(BadPayload):
            open_payload(payload, KEY.public)


@pytest.mark.parametrize(
    "header",
    [
        "{}",
        "not json",
        "[" * 100_000,
        json.dumps(content()),  # with spaces: not canonical
        canonical(content()).replace('"round":3', '"round":03'),
        content(round="3"),
        content(round=True),
        content(kind="update all"),
        content(session="../../x"),
        content(format=2),
        content(more=1),
        content(values=[["a", 1], ["a", 2]]),
        content(values=[["a", [1]]]),
        content(values={"a": 1}),
        content(backbone=["w"]),
        content(backbone="w"),
        content(orders={"backbone/w": [0]}),
        content(sender=1),
        content(experiment="x" * 10_000),
    ],
)
def test_signed_but_invalid_headers_are_refused(header: object, tmp_path: Path) -> None:
    with pytest.raises(BadPayload):
        open_payload(raw(tmp_path / "p", header), KEY.public)


@pytest.mark.parametrize("orders", [[0, 0], [0], [0, True], [1, 2], "01", None])
def test_invalid_orders_of_dimensions_are_refused(orders: object, tmp_path: Path) -> None:
    tensors = {"backbone/w": torch.ones(2, 2)}
    well = raw(tmp_path / "well", content(backbone=["w"], orders={"backbone/w": [1, 0]}), tensors)
    assert open_payload(well, KEY.public).backbone["w"].shape == (2, 2)
    with pytest.raises(BadPayload):
        open_payload(raw(tmp_path / "p", content(backbone=["w"], orders={"backbone/w": orders}), tensors), KEY.public)


@pytest.mark.parametrize("start", [b"", b"\xff" * 8, (2**40).to_bytes(8, "little"), (17 * 2**20).to_bytes(8, "little")])
def test_an_oversized_table_is_not_read(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(start + b"{}" * 100)
    with pytest.raises(BadPayload):
        open_payload(signed(tmp_path / "p"), KEY.public)


@pytest.mark.parametrize(
    "fields", [("", 9, "ab" * 64), ("ab" * 32, True, "ab" * 64), ("ab" * 32, 9, "AB" * 64), (1, 9, "")]
)
def test_an_invalid_envelope_is_refused(fields: tuple) -> None:
    with pytest.raises(BadPayload):
        Envelope(*fields)


def test_infinite_numbers_cannot_be_sent(tmp_path: Path) -> None:
    header = Header("update", "a", "coordinator", "", "", "0" * 16, values={"metric:x": float("nan")})
    with pytest.raises(ValueError):
        write_payload(tmp_path / "p", header, KEY)
