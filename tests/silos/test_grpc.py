"""The coordinator's port over real connections: authentication, accepted content and interrupted transfers."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from silos.parties import make_parties
from silos.place import Place, content
from silos.wire import free_port

from fedreid_pl.engines.silos import grpc_server
from fedreid_pl.engines.silos.certificates import Authority, Credentials, new_tls_key
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.grpc_calls import FETCH, PUSH, SERVICE, note
from fedreid_pl.engines.silos.grpc_link import GrpcLink, target_of
from fedreid_pl.engines.silos.grpc_server import GrpcServer
from fedreid_pl.engines.silos.payload import PIECE, Envelope, Payload
from fedreid_pl.engines.silos.probe import probe
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.engines.silos.turns import Turns
from fedreid_pl.errors import FedReIDError

ANSWERS = b"ANSWERS"


@pytest.fixture()
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.server.close()


def test_a_silo_fetches_a_file_and_pushes_its_answer(place: Place) -> None:
    ready, answer = place.ready(), content(place.home / "answer", 2 * PIECE)
    link = place.link(place.silos["a"].credentials)
    found = link.fetch()
    assert found is not None and found.path.read_bytes() == ready.path.read_bytes() and found.envelope == ready.envelope
    assert link.push(answer, place.asked["a"])
    arrived = place.server.next(5)
    assert arrived is not None and arrived[0] == "a" and arrived[1].path.read_bytes() == answer.path.read_bytes()
    assert not link.push(answer, place.asked["a"]), "the coordinator no longer expects an answer"
    assert place.server.seen()["a"] < 5 and "b" not in place.server.seen()
    link.close()


def test_a_silo_cannot_fetch_another_silos_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "WAIT", 0.2)
    place.ready("a")
    link = place.link(place.silos["b"].credentials)
    assert link.fetch() is None
    assert not link.push(content(place.home / "forged", 100), place.asked["a"]), (
        "the coordinator expects no answer of b"
    )
    assert place.server.next(0.1) is None
    link.close()


def expired(place: Place) -> Credentials:
    silo = place.silos["a"]
    certificate = place.federation.authority.for_silo("a", silo.card.tls_key, days=-1)
    return Credentials(silo.credentials.key, certificate.encode(), silo.credentials.authority)


def other_authority(place: Place) -> Credentials:
    silo, (authority, _) = place.silos["a"], Authority.new("0" * 16)
    certificate = authority.for_silo("a", silo.card.tls_key)
    return Credentials(silo.credentials.key, certificate.encode(), silo.credentials.authority)


def unknown_key(place: Place) -> Credentials:
    """A certificate in the name of silo a that the authority signed for an unknown key."""
    key, public = new_tls_key()
    certificate = place.federation.authority.for_silo("a", public)
    return Credentials(key, certificate.encode(), place.silos["a"].credentials.authority)


def key_of_another(place: Place) -> Credentials:
    """The certificate of silo a with the key of silo b."""
    one, other = (place.silos[name].credentials for name in ("a", "b"))
    return Credentials(other.key, one.certificate, one.authority)


def server_certificate(place: Place) -> Credentials:
    """The coordinator's own certificate, which is not valid for a silo."""
    return place.federation.credentials()


@pytest.mark.parametrize("who", [expired, other_authority, unknown_key, server_certificate])
@pytest.mark.parametrize("method", [FETCH, PUSH])
def test_a_caller_that_is_not_a_member_is_refused(who: Any, method: str, place: Place) -> None:
    place.ready("a")
    assert place.call(place.silos["a"].credentials), "silo a is accepted"
    with pytest.raises(grpc.RpcError) as error:
        place.call(who(place), method)
    codes = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED)  # of TLS, of the list of members
    assert error.value.code() in codes, error.value
    if who is unknown_key:
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_certificate_is_not_accepted_without_its_key(place: Place) -> None:
    place.ready("a")
    with pytest.raises((grpc.RpcError, ValueError)):
        place.call(key_of_another(place))


def test_a_silo_revoked_during_the_run_is_refused(place: Place) -> None:
    place.ready("b")
    link = place.link(place.silos["b"].credentials)
    assert link.fetch() is not None
    FederationFolder(place.federation.path).revoke("b")  # by another process
    with pytest.raises(FedReIDError, match="refuses this silo"):
        link.fetch()
    with pytest.raises(FedReIDError, match="refuses this silo"):
        link.push(content(place.home / "answer", 100), place.asked["b"])
    link.close()


def test_the_server_answers_no_call_without_a_certificate(place: Place) -> None:
    place.ready("a")
    authority = place.silos["a"].credentials.authority
    with grpc.secure_channel(target_of(place.address), grpc.ssl_channel_credentials(authority)) as channel:
        for method in (FETCH, PUSH, "Anything"):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(f"/{SERVICE}/{method}")(b"", timeout=5)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(target_of(place.address)) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(f"/{SERVICE}/{FETCH}")(b"", timeout=5)
    for path in ("/", "/metrics", "/status"):
        with pytest.raises((OSError, http.client.HTTPException)):
            client = http.client.HTTPConnection("localhost", place.federation.port, timeout=5)
            client.request("GET", path)
            client.getresponse()
    unchecked = ssl.create_default_context(cadata=authority.decode())
    with (
        pytest.raises((OSError, ssl.SSLError)),
        socket.create_connection(("localhost", place.federation.port), timeout=5) as plain,
        unchecked.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert secured.recv(1) == b"", "the connection is closed without an answer"
        raise OSError


def test_the_server_offers_only_its_two_calls(place: Place) -> None:
    for method in ("Status", "Shutdown", "../Fetch"):
        with pytest.raises(grpc.RpcError) as error:
            place.call(place.silos["a"].credentials, method)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_silo_refuses_a_server_that_is_not_its_coordinator(place: Place, tmp_path: Path) -> None:
    other, _ = make_parties(tmp_path / "other", ["a"], port=free_port())
    server = GrpcServer(other, tmp_path / "elsewhere")
    try:
        with pytest.raises(FedReIDError, match="no answer"):
            probe(other.address, place.silos["a"].credentials)
        assert abs(probe(place.address, place.silos["a"].credentials)) < 60
    finally:
        server.close()


def test_two_coordinators_do_not_share_a_port(place: Place, tmp_path: Path) -> None:
    with pytest.raises(FedReIDError, match="cannot listen on"):
        GrpcServer(place.federation, tmp_path / "second")


def test_a_loopback_host_listens_on_the_loopback_address(tmp_path: Path) -> None:
    hosts = {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "fl.example.org": "0.0.0.0"}
    for host, wanted in hosts.items():
        assert grpc_server.listening_address(FederationFolder.new(tmp_path / host, host, 1, [])) == wanted
    behind = FederationFolder.new(tmp_path / "behind", "fl.example.org", 1, [], "127.0.0.1")
    assert grpc_server.listening_address(behind) == "127.0.0.1"


# accepted content


def pushed(place: Place, pieces: list[bytes]) -> grpc.StatusCode:
    """Sends pieces as silo a; the digest of the job that a answers replaces `ANSWERS`."""
    pieces = [piece.replace(ANSWERS, place.asked["a"].encode()) for piece in pieces]
    own = place.silos["a"].credentials
    with grpc.secure_channel(
        target_of(place.address), grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
    ) as channel:
        try:
            channel.stream_unary(f"/{SERVICE}/{PUSH}")(iter(pieces), timeout=20)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined]
    return grpc.StatusCode.OK


def announced(size: int, **changes: Any) -> bytes:
    values = {"digest": "a" * 64, "size": size, "signature": "b" * 128, "offset": 0, "answers": ANSWERS.decode()}
    return note(**{**values, **changes})


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([], "INVALID_ARGUMENT"),
        ([b"not json"], "INVALID_ARGUMENT"),
        ([b"[]"], "INVALID_ARGUMENT"),
        ([announced(100, digest="../../x")], "INVALID_ARGUMENT"),
        ([announced(100, offset=200)], "INVALID_ARGUMENT"),
        ([announced(100, offset=50)], "FAILED_PRECONDITION"),
        ([announced(100, answers="c" * 64), b"x"], "FAILED_PRECONDITION"),
        ([announced(9 * PIECE)], "FAILED_PRECONDITION"),
        ([announced(2**60)], "FAILED_PRECONDITION"),
        ([announced(100), b"x" * 101], "FAILED_PRECONDITION"),
        ([announced(100), b"x" * 100], "FAILED_PRECONDITION"),
        ([announced(8 * PIECE), b"x" * 64 * PIECE], "RESOURCE_EXHAUSTED"),
        ([announced(8 * PIECE)] + [b"x" * PIECE] * 200, "FAILED_PRECONDITION"),
    ],
)
def test_invalid_answers_are_refused_before_they_fill_the_disk(pieces: list[bytes], code: str, place: Place) -> None:
    place.ready("a")
    assert pushed(place, pieces) is getattr(grpc.StatusCode, code)
    assert place.server.next(0.05) is None
    left = sum(path.stat().st_size for path in (place.home / "uploads").iterdir())
    assert left <= 8 * PIECE


def test_an_interrupted_upload_resumes_also_after_a_restart(place: Place) -> None:
    place.ready("a", most=64 * PIECE)
    answer = content(place.home / "answer", 20 * PIECE)
    first = answer.path.read_bytes()[: 12 * PIECE]
    pieces = [first[start : start + PIECE] for start in range(0, len(first), PIECE)]
    assert (
        pushed(place, [note(**vars(answer.envelope), answers=place.asked["a"], offset=0), *pieces])
        is grpc.StatusCode.OK
    )
    place.server.close()
    place.server = GrpcServer(place.federation, place.home / "uploads")
    place.ready("a", most=64 * PIECE)
    assert place.server.held("a", answer.envelope, place.asked["a"]) == 12 * PIECE
    written: list[int] = []
    take = place.server.take

    def counted(silo: str, envelope: Envelope, answers: str, offset: int, rest: Iterator[bytes]) -> bool:
        return take(silo, envelope, answers, offset, (written.append(len(piece)) or piece for piece in rest))  # type: ignore[func-returns-value]

    place.server.take = counted  # type: ignore[method-assign]
    link = place.link(place.silos["a"].credentials)
    assert link.push(answer, place.asked["a"])
    arrived = place.server.next(5)
    assert arrived is not None and arrived[1].path.read_bytes() == answer.path.read_bytes()
    assert sum(written) == 8 * PIECE, "pieces that arrived are not sent again"
    link.close()


def test_an_interrupted_download_resumes(place: Place) -> None:
    ready = place.ready("a", size=20 * PIECE)
    link = place.link(place.silos["a"].credentials)
    part = place.home / "spool" / f"{ready.envelope.digest}.part"
    part.write_bytes(ready.path.read_bytes()[: 15 * PIECE])
    sent: list[int] = []
    real = grpc_server.read_pieces
    grpc_server.read_pieces = lambda payload, offset: sent.append(offset) or real(payload, offset)  # type: ignore[assignment]
    try:
        found = link.fetch()
    finally:
        grpc_server.read_pieces = real
    assert sent == [15 * PIECE] and found is not None
    assert found.path.read_bytes() == ready.path.read_bytes()
    link.close()


def test_a_damaged_partial_file_is_discarded(place: Place) -> None:
    ready = place.ready("a")
    link = place.link(place.silos["a"].credentials)
    (place.home / "spool" / f"{'0' * 64}.part").write_bytes(b"x" * 99)
    (place.home / "spool" / f"{ready.envelope.digest}.part").write_bytes(b"x" * 99)  # damaged
    assert link.fetch() is None or True  # the first attempt may fail at the digest
    found = link.fetch()
    assert found is not None and found.path.read_bytes() == ready.path.read_bytes()
    link.close()


def test_a_waiting_silo_receives_the_next_file_immediately(place: Place) -> None:
    link = place.link(place.silos["a"].credentials)
    found: list[Payload | None] = []
    waiting = threading.Thread(target=lambda: found.append(link.fetch()))
    waiting.start()
    time.sleep(0.3)
    assert not found
    place.ready("a")
    waiting.join(10)
    assert found and found[0] is not None
    link.close()


def test_a_silo_cannot_occupy_all_threads(place: Place) -> None:
    own = place.silos["a"].credentials
    with grpc.secure_channel(
        target_of(place.address), grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
    ) as channel:
        fetch = channel.unary_stream(f"/{SERVICE}/{FETCH}")
        calls = [fetch(note(wait=True), timeout=10) for _ in range(7)]
        place.ready("b")
        link = place.link(place.silos["b"].credentials)
        assert link.fetch() is not None
        for call in calls:
            call.cancel()
        link.close()


def test_a_silo_retries_until_the_coordinator_is_reachable(tmp_path: Path) -> None:
    port = free_port()
    federation, silos = make_parties(tmp_path, ["a"], port=port)
    said: list[str] = []
    link = GrpcLink(federation.address, SiloFolder(silos["a"].path).credentials, tmp_path / "spool", said.append)
    assert link.fetch() is None and "keeps trying" in said[0]
    server = GrpcServer(federation, tmp_path / "uploads")
    try:
        server.post("a", content(tmp_path / "ready", 100), 100)
        end = time.monotonic() + 20
        while (found := link.fetch()) is None and time.monotonic() < end:
            pass
        assert found is not None and said[-1].endswith("answers again")
    finally:
        link.close()
        server.close()


def test_a_slow_silo_is_interrupted_for_others_and_resumes_later(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(at_once=1, seconds=0.2)
    monkeypatch.setattr(place.server, "_turns", turns)
    for silo in ("a", "b"):
        place.ready(silo, most=64 * PIECE)
    slow, quick = (content(place.home / f"answer-{silo}", 6 * PIECE) for silo in ("a", "b"))
    order: list[str] = []

    def send(silo: str, payload: Payload, pause: float) -> None:
        link = place.link(place.silos[silo].credentials, f"spool-{silo}")
        monkeypatch.setattr(link, "_push", paused(link._push, pause))
        assert link.push(payload, place.asked[silo])
        order.append(silo)
        link.close()

    threads = [threading.Thread(target=send, args=("a", slow, 0.15))]
    threads[0].start()
    time.sleep(0.2)
    threads.append(threading.Thread(target=send, args=("b", quick, 0.0)))
    threads[1].start()
    for thread in threads:
        thread.join(30)
    assert order == ["b", "a"]
    arrived = dict(place.server.next(5) or ("", slow) for _ in range(2))
    assert arrived["a"].path.read_bytes() == slow.path.read_bytes()
    assert arrived["b"].path.read_bytes() == quick.path.read_bytes()


def paused(push: Any, seconds: float) -> Any:
    """A call that waits before every piece."""

    def slowly(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            time.sleep(seconds)
            yield piece

    return lambda pieces, **words: push(slowly(pieces), **words)


@pytest.mark.system
def test_the_written_nginx_configuration_passes_calls_through(place: Place, tmp_path: Path) -> None:
    found_modules = list(Path("/usr/lib/nginx/modules").glob("ngx_stream_module.so"))
    if shutil.which("nginx") is None or not found_modules:
        pytest.skip("nginx or its stream module is not installed")
    port = free_port()
    text = (place.federation.path / "nginx.conf").read_text().replace("listen 443;", f"listen 127.0.0.1:{port};")
    modules = "".join(f"load_module {path};\n" for path in found_modules)
    head = f"{modules}daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
    (tmp_path / "all.conf").write_text(head + text)
    proxy = subprocess.Popen(["nginx", "-e", str(tmp_path / "error.log"), "-c", str(tmp_path / "all.conf")])
    try:
        ready = place.ready("a")
        credentials = place.silos["a"].credentials
        link = GrpcLink(f"https://localhost:{port}", credentials, place.home / "spool", lambda line: None)
        end = time.monotonic() + 20
        while (found := link.fetch()) is None and time.monotonic() < end:
            assert proxy.poll() is None, (tmp_path / "error.log").read_text()
        assert found is not None and found.path.read_bytes() == ready.path.read_bytes()
        link.close()
    finally:
        proxy.terminate()
        proxy.wait(20)
