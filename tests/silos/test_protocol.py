"""Parties of different releases use a common protocol; without one, the silo prints an error and ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from silos.place import Place

from fedreid_pl import __version__
from fedreid_pl.engines.silos import grpc_calls
from fedreid_pl.engines.silos.grpc_calls import FETCH, SERVICE, disagreement, note
from fedreid_pl.engines.silos.probe import probe
from fedreid_pl.errors import FedReIDError


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.server.close()


def as_silo(monkeypatch: pytest.MonkeyPatch, *spoken: int) -> None:
    """Sets the silos' protocols; the coordinator's protocols, which the first call asks for, do not change."""
    text = ",".join(map(str, spoken))
    for module in ("grpc_link", "probe"):
        monkeypatch.setattr(f"fedreid_pl.engines.silos.{module}.spoken_by_me", lambda: (("protocol", text),))


@pytest.mark.parametrize("spoken", [(1,), (1, 2), (7, 1)])
def test_one_common_protocol_suffices(spoken: tuple[int, ...], place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    as_silo(monkeypatch, *spoken)
    payload = place.ready("a")
    link = place.link(place.silos["a"].credentials)
    fetched = link.fetch()
    assert fetched is not None and fetched.envelope == payload.envelope
    link.close()


def test_a_silo_without_protocol_metadata_uses_the_first_protocol(place: Place) -> None:
    place.ready("a")
    with place.channel("a") as channel:
        assert list(channel.unary_stream(f"/{SERVICE}/{FETCH}")(note(wait=True), timeout=5))


def test_without_a_common_protocol_the_silo_prints_one_line_and_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_silo(monkeypatch, 2, 3)
    payload = place.ready("a")
    link = place.link(place.silos["a"].credentials)
    wanted = rf"no common protocol: the silo speaks 2,3, the coordinator \(fedreid_pl {__version__}\) 1; install"
    for call in (link.fetch, lambda: link.push(payload, "0" * 64)):
        with pytest.raises(FedReIDError, match=wanted):
            call()
    with pytest.raises(FedReIDError, match=wanted):  # `silo check`
        probe(place.address, place.silos["a"].credentials)
    link.close()


def test_a_stranger_receives_no_protocol_numbers(place: Place) -> None:
    place.federation.revoke("b")
    with place.channel("b") as channel, pytest.raises(grpc.RpcError) as error:
        metadata = (("protocol", "2"),)
        list(channel.unary_stream(f"/{SERVICE}/{FETCH}")(note(wait=True), timeout=5, metadata=metadata))
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_both_sides_check_for_a_common_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "SPOKEN", (2, 3))
    assert disagreement([("protocol", "3,4")]) is None
    assert disagreement([("protocol", "23")]) is not None, "whole numbers are compared, not digits"
    assert "the silo speaks 1," in str(disagreement([])), "a silo of an early release"
    odd = disagreement([("protocol", "x\n" * 200)])
    assert odd is not None and "\n" not in odd and len(odd) < 250
