"""The coordinator's end of the gRPC transport: one port, mutual TLS, two calls."""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from fedreid_pl.engines.silos.certificates import key_digest
from fedreid_pl.engines.silos.federation_folder import NAME, FederationFolder, Member
from fedreid_pl.engines.silos.grpc_calls import (
    CLOCK,
    FETCH,
    PUSH,
    SERVER_OPTIONS,
    SERVICE,
    WAIT,
    disagreement,
    envelope_of,
    note,
    read_note,
)
from fedreid_pl.engines.silos.mailbox import Mailbox, Unwanted, read_pieces
from fedreid_pl.engines.silos.payload import BadPayload
from fedreid_pl.engines.silos.turns import Turns, until
from fedreid_pl.errors import FedReIDError

CALLS = 4  # largest number of simultaneous calls of one silo
MORE_SILOS = 16  # number of further silos that can join after the start


class GrpcServer(Mailbox):
    """A mailbox that silos reach over gRPC.

    The public key in a caller's certificate identifies the silo; names in messages or certificates are ignored. The
    server reads the list of members again when its file changes, so that it rejects a revoked silo and accepts a new
    silo without a restart.

    Args:
        federation: folder of the federation, with its members and certificates.
        folder: folder of the uploads.

    Raises:
        FedReIDError: if the server cannot listen on the port.
    """

    def __init__(self, federation: FederationFolder, folder: Path) -> None:
        silos = list(federation.members)
        super().__init__(silos, folder)
        self._federation = federation
        self._calls: Counter[str] = Counter()
        self._lock, self._turns = threading.Lock(), Turns()
        self._read_at = self._changed_at()
        threads = CALLS * (len(silos) + MORE_SILOS) + 4
        self._server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="silos"),
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=threads,
        )
        handlers = {
            # as a stream of requests: the server identifies the caller and counts its calls before it reads a request
            FETCH: grpc.stream_stream_rpc_method_handler(self._fetch),
            PUSH: grpc.stream_unary_rpc_method_handler(self._push),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        own = federation.credentials()
        credentials = grpc.ssl_server_credentials(
            [(own.key, own.certificate)], root_certificates=own.authority, require_client_auth=True
        )
        place = f"{listening_address(federation)}:{federation.port}"
        try:
            self.port = self._server.add_secure_port(place, credentials)
        except RuntimeError as error:
            raise FedReIDError(
                f"federation={federation.path}: cannot listen on {place}: another program uses the port, or the "
                "address belongs to another machine"
            ) from error
        self._server.start()

    def close(self) -> None:
        """Closes the port; running calls may take one more second."""
        super().close()
        self._server.stop(1.0).wait()

    # calls

    def _fetch(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._caller(context) as silo:
            asked = read_note(next(requests, b""))
            context.set_trailing_metadata(((CLOCK, f"{time.time():.0f}"),))
            wait = WAIT if asked.get("wait") is True else 0.0
            payload = self.wait(silo, str(asked.get("have", "")), wait, context.is_active)
            if payload is None or asked.get("wait") is not True:
                return
            offset = asked.get("offset", 0) if asked.get("digest") == payload.envelope.digest else 0
            envelope, offset = envelope_of({**vars(payload.envelope), "offset": max(offset, 0)})
            yield note(**vars(envelope), offset=offset)
            with self._turns.turn(silo, envelope.size - offset, context.is_active) as over:
                yield from until(read_pieces(payload, offset), over)

    def _push(self, pieces: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        with self._caller(context) as silo:
            first = read_note(next(pieces, b""))
            (envelope, offset), answers = envelope_of(first), str(first.get("answers", ""))
            if offset < 0:
                return note(held=self.held(silo, envelope, answers), whole=False)
            with self._turns.turn(silo, envelope.size - offset, context.is_active) as over:
                return note(held=0, whole=self.take(silo, envelope, answers, offset, until(pieces, over)))

    @contextmanager
    def _caller(self, context: grpc.ServicerContext) -> Iterator[str]:
        """Yields the name of the calling silo; an error ends the call with a status and a short message."""
        member = self._member(context)
        if member is None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "this key is not a member of the federation")
        assert member is not None
        if (problem := disagreement(context.invocation_metadata())) is not None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, problem)
        with self._lock:
            self._calls[member.name] += 1
            too_many = self._calls[member.name] > CALLS
        try:
            if too_many:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls at once")
            yield member.name
        except Unwanted as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except BadPayload as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"refused the message: {error}")
        except (OSError, FedReIDError):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the coordinator cannot read or write its files")
        finally:
            with self._lock:
                self._calls[member.name] -= 1

    def _member(self, context: grpc.ServicerContext) -> Member | None:
        with self._lock:
            if (changed := self._changed_at()) != self._read_at:
                self._federation.reload()
                self.admit(self._federation.members)
                self._read_at = changed
        (certificate,) = context.auth_context().get("x509_pem_cert", [b""])
        return self._federation.member_of_key(key_digest(certificate)) if certificate else None

    def _changed_at(self) -> tuple[int, int]:
        state = os.stat(self._federation.path / NAME)
        return state.st_mtime_ns, state.st_ino


def listening_address(federation: FederationFolder) -> str:
    """Returns the address to listen on: `listen` if set, 127.0.0.1 for a loopback host, otherwise all addresses."""
    if federation.listen:
        return federation.listen
    try:
        loopback = ipaddress.ip_address(federation.host).is_loopback
    except ValueError:
        loopback = federation.host == "localhost"
    return "127.0.0.1" if loopback else "0.0.0.0"


def open_server(federation: FederationFolder) -> GrpcServer:
    """Returns a server that listens for the silos of a federation."""
    return GrpcServer(federation, federation.path / "uploads")
