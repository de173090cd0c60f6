"""Hostile use of the connection: slow, endless or silent calls, many at once, and calls in another's name."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from silos.place import Place, content

from fedreid_pl.engines.silos import grpc_link, grpc_server
from fedreid_pl.engines.silos.grpc_calls import FETCH, PUSH, SERVER_OPTIONS, SERVICE, note
from fedreid_pl.engines.silos.grpc_link import GrpcLink
from fedreid_pl.engines.silos.payload import PIECE, Payload
from fedreid_pl.engines.silos.turns import Turns


@pytest.fixture()
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.server.close()


def slowly(first: bytes, over: threading.Event, pause: float = 1.0) -> Iterator[bytes]:
    """Yields the announcement, then one byte a second."""
    yield first
    while not over.wait(pause):
        yield b"x"


@contextmanager
def held(place: Place, silo: str, start: Callable[[grpc.Channel, threading.Event], Any], count: int) -> Iterator[None]:
    """Opens `count` calls of a hostile silo, each on a separate connection, until the block ends."""
    over = threading.Event()
    with ExitStack() as stack:
        calls = [start(stack.enter_context(place.channel(silo)), over) for _ in range(count)]
        time.sleep(0.5)
        try:
            yield
        finally:
            over.set()
            for call in calls:
                call.cancel()


def works(place: Place, silo: str = "b", size: int = 3 * PIECE) -> None:
    """Asserts that an honest silo can fetch a file of several pieces and push an answer."""
    ready, answer = place.ready(silo), content(place.home / f"answer-{silo}", size)
    link = place.link(place.silos[silo].credentials, f"spool-{silo}")
    end, found = time.monotonic() + 60, None
    while found is None and time.monotonic() < end:
        found = link.fetch()
    assert found is not None and found.path.read_bytes() == ready.path.read_bytes()
    assert link.push(answer, place.asked[silo])
    arrived = place.server.next(5)
    assert arrived is not None and arrived[0] == silo and arrived[1].path.read_bytes() == answer.path.read_bytes()
    link.close()


# a hostile silo


def test_one_byte_a_second_delays_no_other_silo(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.server, "_turns", Turns(at_once=1, seconds=0.2))
    place.ready("a")
    answer = content(place.home / "slow", 6 * PIECE)
    first = note(**vars(answer.envelope), answers=place.asked["a"], offset=0)

    def push(channel: grpc.Channel, over: threading.Event) -> Any:
        return channel.stream_unary(f"/{SERVICE}/{PUSH}").future(slowly(first, over))

    with held(place, "a", push, 4):
        works(place)


def test_a_stalled_upload_delays_no_other_silo(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.server, "_turns", Turns(at_once=1, seconds=0.2))
    place.ready("a")
    answer = content(place.home / "still", 6 * PIECE)
    first = note(**vars(answer.envelope), answers=place.asked["a"], offset=0)

    def push(channel: grpc.Channel, over: threading.Event) -> Any:
        return channel.stream_unary(f"/{SERVICE}/{PUSH}").future(slowly(first, over, pause=600))

    with held(place, "a", push, 4):
        works(place)


def test_a_silo_that_never_reads_delays_no_other_silo(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.server, "_turns", Turns(at_once=1, seconds=0.2))
    place.ready("a", size=64 * PIECE)

    def fetch(channel: grpc.Channel, over: threading.Event) -> Any:
        call = channel.unary_stream(f"/{SERVICE}/{FETCH}")(note(wait=True))
        next(call)  # reads only the announcement
        return call

    with held(place, "a", fetch, 3):
        works(place)


def test_calls_without_a_message_do_not_use_up_the_threads(place: Place) -> None:
    """A call counts toward its silo's limit before its first message arrives."""

    def fetch(channel: grpc.Channel, over: threading.Event) -> Any:
        return channel.stream_stream(f"/{SERVICE}/{FETCH}")(slowly_nothing(over))

    with held(place, "a", fetch, 3 * grpc_server.CALLS + 8):  # more than all threads for two silos
        works(place)


def slowly_nothing(over: threading.Event) -> Iterator[bytes]:
    over.wait()
    yield from ()


def test_a_new_upload_replaces_one_whose_connection_is_dead(place: Place) -> None:
    """After a network partition the coordinator does not know yet that the old connection is dead."""
    place.ready("a")
    answer = content(place.home / "answer-a", 4 * PIECE)
    first = note(**vars(answer.envelope), answers=place.asked["a"], offset=0)
    half = [answer.path.read_bytes()[start : start + PIECE] for start in (0, PIECE)]

    def push(channel: grpc.Channel, over: threading.Event) -> Any:
        def pieces() -> Iterator[bytes]:
            yield from (first, *half)
            over.wait()
            yield b"late"

        return channel.stream_unary(f"/{SERVICE}/{PUSH}").future(pieces())

    with held(place, "a", push, 1):
        link = place.link(place.silos["a"].credentials)
        assert link.push(answer, place.asked["a"])
        arrived = place.server.next(5)
        assert arrived is not None and arrived[1].path.read_bytes() == answer.path.read_bytes()
        link.close()


def test_a_late_answer_to_the_previous_job_does_not_withdraw_the_next_job(place: Place) -> None:
    """The upload ends at the moment when the coordinator posts the next job."""
    place.ready("a")
    answer = content(place.home / "answer-a", PIECE)
    following = content(place.home / "following", 100)
    data = answer.path.read_bytes()

    def pieces() -> Iterator[bytes]:
        yield data
        place.server.post("a", following, 100)

    with pytest.raises(Exception, match="does not expect this answer"):
        place.server.take("a", answer.envelope, place.asked["a"], 0, pieces())
    assert place.server.wait("a", "", 0.1) == following
    assert place.server.next(0.05) is None


FOREIGN: list[dict[str, Any]] = [
    *({"silo": "b"}, {"name": "b"}, {"to": "b"}, {"have": "../b"}, {"digest": "../../b.job", "offset": 3}),
    *({"digest": "0" * 64, "offset": 10**9}, {"have": None, "silo": ["b"]}),
]


@pytest.mark.parametrize("words", FOREIGN)
def test_no_request_of_a_silo_opens_another_silos_mailbox(
    words: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "WAIT", 0.2)
    secret = place.ready("b")
    metadata = (("silo", "b"), ("x-forwarded-client-cert", "b"), ("authorization", "b"))
    with place.channel("a") as channel:
        call = channel.unary_stream(f"/{SERVICE}/{FETCH}")(note(wait=True, **words), metadata=metadata, timeout=10)
        assert list(call) == [], "no file is posted for a"
    digest = place.asked["b"]
    with place.channel("a") as channel:
        call = channel.unary_stream(f"/{SERVICE}/{FETCH}")(note(wait=True, digest=digest, offset=7), timeout=10)
        assert list(call) == []
    assert secret.path.exists()


def test_a_silo_can_neither_send_in_anothers_name_nor_read_anothers_upload(place: Place) -> None:
    place.ready("a"), place.ready("b")
    of_b = content(place.home / "of-b", 3 * PIECE)
    first = note(**vars(of_b.envelope), answers=place.asked["b"], offset=0, silo="b")
    with place.channel("b") as channel:  # the coordinator has half of b's upload
        push = channel.stream_unary(f"/{SERVICE}/{PUSH}")
        json.loads(push(iter([first, of_b.path.read_bytes()[:PIECE]]), timeout=10))
    with place.channel("a") as channel:
        push = channel.stream_unary(f"/{SERVICE}/{PUSH}")
        for answers in (place.asked["b"], ""):
            asked = note(**vars(of_b.envelope), answers=answers, offset=-1, silo="b")
            with pytest.raises(grpc.RpcError) as error:
                push(iter([asked]), timeout=10)
            assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        asked = note(**vars(of_b.envelope), answers=place.asked["a"], offset=-1, silo="b")
        assert json.loads(push(iter([asked]), timeout=10))["held"] == 0, "a cannot see b's part"
    assert place.server.next(0.05) is None
    assert place.server.held("b", of_b.envelope, place.asked["b"]) == PIECE, "b's part is complete"


# a hostile coordinator


class Liar:
    """A coordinator with the valid TLS key whose answers the test sets."""

    def __init__(self, place: Place, fetch: Callable, push: Callable) -> None:
        place.server.close()
        self.server = grpc.server(ThreadPoolExecutor(4), options=SERVER_OPTIONS)
        handlers = {
            FETCH: grpc.unary_stream_rpc_method_handler(fetch),
            PUSH: grpc.stream_unary_rpc_method_handler(push),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        own = place.federation.credentials()
        credentials = grpc.ssl_server_credentials([(own.key, own.certificate)], own.authority, True)
        self.server.add_secure_port(f"127.0.0.1:{place.federation.port}", credentials)
        self.server.start()


@contextmanager
def lying(place: Place, *messages: bytes, reply: bytes = b"{}", endless: bool = False) -> Iterator[GrpcLink]:
    """Returns a silo's link to a coordinator that answers every fetch with these messages."""
    said: list[str] = []

    def fetch(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from messages
        while endless and context.is_active():
            yield b"x" * PIECE

    liar = Liar(place, fetch, lambda pieces, context: [reply for _ in pieces][-1])
    link = GrpcLink(place.address, place.silos["a"].credentials, place.home / "spool", said.append)
    vars(link)["said"] = said
    try:
        yield link
    finally:
        link.close()
        liar.server.stop(0.5).wait()


DIGEST = {"digest": "a" * 64, "signature": "b" * 128}


@pytest.mark.parametrize(
    "messages",
    [
        [b"no JSON"],
        [b"[" * 4000],
        [note(**DIGEST, size=100, offset=50)],
        [note(**DIGEST, size=100, offset=-1), b"x" * 101],
        [note(**DIGEST, size=2**62, offset=0)],
        [note(**DIGEST, size=100, offset=0), b"x" * 200],
        [note(**DIGEST, size=100, offset=0), b"x" * 100],
        [note(**{**DIGEST, "digest": "../../../x"}, size=100, offset=0)],
        [note(**{**DIGEST, "signature": "x"}, size=100, offset=0)],
        [note(**DIGEST, size=100, offset=0), b"x" * (2 * PIECE)],
    ],
)
def test_an_invalid_payload_is_dropped_and_the_silo_continues(
    messages: list[bytes], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_link, "LONGEST_PAUSE", 0.01)
    with lying(place, *messages) as link:
        assert link.fetch() is None and link.fetch() is None
        left = [path for path in (place.home / "spool").iterdir() if path.stat().st_size > 100]
        assert left == [] and not (place.home.parent / "x").exists()


def test_an_endless_stream_ends_with_the_announced_length(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_link, "LONGEST_PAUSE", 0.01)
    with lying(place, note(**DIGEST, size=3 * PIECE, offset=0), endless=True) as link:
        assert link.fetch() is None
        assert sum(path.stat().st_size for path in (place.home / "spool").iterdir()) <= 3 * PIECE
        assert "differ from the digest or the size" in vars(link)["said"][-1]


def test_a_payload_too_large_for_the_disk_is_not_downloaded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_link, "LONGEST_PAUSE", 0.01)
    with lying(place, note(**DIGEST, size=2**50, offset=0), endless=True) as link:
        assert link.fetch() is None
        assert list((place.home / "spool").iterdir()) == [] and "of the disk may be used" in vars(link)["said"][-1]


@pytest.mark.parametrize("reply", [b"no JSON", b"[]", b"[" * 4000, b""])
def test_an_invalid_reply_does_not_end_the_silo(reply: bytes, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_link, "LONGEST_PAUSE", 0.01)
    answer = content(place.home / "answer", 100)
    with lying(place, reply=reply) as link:
        assert not link.push(answer, "c" * 64)


def test_a_silo_waits_longer_after_each_rejected_upload(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, calls = content(place.home / "answer", 100), list[float]()

    def push(pieces: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        next(pieces)
        calls.append(time.monotonic())
        if len(calls) > 8:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "enough")
        return note(held=0, whole=False)

    pauses: list[float] = []
    monkeypatch.setattr(grpc_link.time, "sleep", pauses.append)
    liar = Liar(place, lambda request, context: iter(()), push)
    link = GrpcLink(place.address, place.silos["a"].credentials, place.home / "spool", lambda line: None)
    assert not link.push(answer, "c" * 64)
    assert len(pauses) >= 3 and pauses == sorted(pauses), "every pause is at least as long as the one before"
    link.close()
    liar.server.stop(0.5).wait()


def test_a_broken_connection_during_the_query_of_the_offset_does_not_end_the_silo(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator refuses the upload's offset, and the silo's query of the right offset fails once."""
    place.ready("a", most=64 * PIECE)
    answer = content(place.home / "answer", 3 * PIECE)
    link = place.link(place.silos["a"].credentials)
    with place.channel("a") as channel:
        first = note(**vars(answer.envelope), answers=place.asked["a"], offset=0)
        channel.stream_unary(f"/{SERVICE}/{PUSH}")(iter([first, answer.path.read_bytes()[:PIECE]]), timeout=10)
    real, failures = link._held, iter([grpc.RpcError()])

    def once(payload: Payload, answers: str) -> int:
        for error in failures:
            error.code, error.details = lambda: grpc.StatusCode.UNAVAILABLE, lambda: "gone"  # type: ignore[attr-defined]
            raise error
        return real(payload, answers)

    monkeypatch.setattr(link, "_held", once)
    assert link.push(answer, place.asked["a"])
    link.close()
