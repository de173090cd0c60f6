"""A federation over gRPC inside the test's process, and a proxy that decrypts the traffic."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from silos.parties import make_service

from fedreid_pl.engines.silos.certificates import Credentials, key_digest
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.grpc_link import GrpcLink
from fedreid_pl.engines.silos.runner import serve
from fedreid_pl.engines.silos.silo_folder import SiloFolder


def free_port() -> int:
    """Returns a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(silos: Mapping[str, SiloFolder], root: Path, address: str) -> Iterator[None]:
    """Runs every silo in a thread; only one works at a time, because they share torch's random generator."""
    over, turn = threading.Event(), threading.Lock()
    threads = []
    with ExitStack() as stack:
        for silo in silos.values():
            service = make_service(silo, root)
            answer = service.answer

            def alone(sent: object, answer: Callable = answer) -> object:
                with turn:
                    return answer(sent)

            service.answer = alone  # type: ignore[assignment,method-assign]
            link = GrpcLink(address, silo.credentials, silo.path / "spool", lambda line: None)
            stack.callback(link.close)
            threads.append(threading.Thread(target=quietly, args=(service, link, over), daemon=True))
            threads[-1].start()
        try:
            yield
        finally:
            over.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def quietly(service: object, link: GrpcLink, over: threading.Event) -> None:
    """Serves a silo until the link is closed."""
    with suppress(ValueError):  # "Cannot invoke RPC on closed channel"
        serve(service, link, over)  # type: ignore[arg-type]


class Proxy:
    """Accepts TLS connections as the coordinator, decrypts them and forwards them to the server as the same silo.

    Such a proxy needs the keys of the federation's authority and of the silos; it sees every byte decrypted.

    Args:
        federation: the federation whose coordinator the proxy impersonates.
        silos: the silos whose keys the proxy uses for calls to the coordinator.

    Attributes:
        seen: all decrypted bytes, by connection and direction.
    """

    def __init__(self, federation: FederationFolder, silos: Mapping[str, SiloFolder], folder: Path) -> None:
        self.federation, self.seen = federation, {}  # type: FederationFolder, dict[str, bytearray]
        self._client_contexts, self._numbers = {}, itertools.count()
        for silo in silos.values():
            digest = key_digest(silo.credentials.certificate)
            self._client_contexts[digest] = context(silo.credentials, folder / silo.name, server=False)
        self._context = context(federation.credentials(), folder / "proxy", server=True)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(connection,), daemon=True).start()

    def _pass_on(self, connection: socket.socket) -> None:
        number = next(self._numbers)
        with suppress(OSError, ssl.SSLError):
            near = self._context.wrap_socket(connection, server_side=True)
            pem = ssl.DER_cert_to_PEM_cert(near.getpeercert(binary_form=True) or b"")
            plain = socket.create_connection(("127.0.0.1", self.federation.port))
            far = self._client_contexts[key_digest(pem.encode())].wrap_socket(plain, server_hostname="localhost")
            ends = ((near, far, f"{number} from a silo"), (far, near, f"{number} to a silo"))
            for source, target, name in ends:
                self.seen[name] = bytearray()
                threading.Thread(target=self._copy, args=(source, target, name), daemon=True).start()

    def _copy(self, source: ssl.SSLSocket, target: ssl.SSLSocket, name: str) -> None:
        with suppress(OSError, ssl.SSLError):
            while data := source.recv(65536):
                self.seen[name] += data
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.close()


def context(own: Credentials, folder: Path, server: bool) -> ssl.SSLContext:
    """Returns a TLS context for HTTP/2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key.pem").write_bytes(own.key), (folder / "crt.pem").write_bytes(own.certificate)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.load_cert_chain(folder / "crt.pem", folder / "key.pem")
    made.load_verify_locations(cadata=own.authority.decode())
    made.verify_mode = ssl.CERT_REQUIRED
    made.set_alpn_protocols(["h2"])
    return made


def frames(stream: bytes) -> dict[int, bytes]:
    """Returns the data of every HTTP/2 stream in one direction of a connection (RFC 9113, section 4.1)."""
    rest = stream.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    data: dict[int, bytearray] = {}
    place = 0
    while place + 9 <= len(rest):
        length, kind = int.from_bytes(rest[place : place + 3], "big"), rest[place + 3]
        number = int.from_bytes(rest[place + 5 : place + 9], "big") & 0x7FFFFFFF
        if kind == 0:
            data.setdefault(number, bytearray()).extend(rest[place + 9 : place + 9 + length])
        place += 9 + length
    return {number: bytes(content) for number, content in data.items()}
