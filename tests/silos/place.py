"""A listening coordinator, its silos and payloads posted for them: tests the transport without training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from silos.parties import make_parties
from silos.wire import free_port

from fedreid_pl.engines.silos.certificates import Credentials
from fedreid_pl.engines.silos.grpc_calls import FETCH, SERVICE, note
from fedreid_pl.engines.silos.grpc_link import GrpcLink, target_of
from fedreid_pl.engines.silos.grpc_server import GrpcServer
from fedreid_pl.engines.silos.keys import SigningKey
from fedreid_pl.engines.silos.payload import DOMAIN, PIECE, Envelope, Payload, digest_of

KEY = SigningKey.new()


class Place:
    """A coordinator with silos a and b; `ready` posts a payload for one of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.federation, self.silos = make_parties(home, ["a", "b"], port=free_port())
        self.server = GrpcServer(self.federation, home / "uploads")
        self.address = self.federation.address
        self.payloads: dict[str, Payload] = {}
        self.asked: dict[str, str] = {}

    def ready(self, silo: str = "a", size: int = 3 * PIECE + 7, most: int = 8 * PIECE) -> Payload:
        if silo not in self.payloads:
            self.payloads[silo] = content(self.home / f"for-{silo}", size)
        payload = self.payloads[silo]
        self.asked[silo] = payload.envelope.digest
        self.server.post(silo, payload, most)
        return payload

    def link(self, credentials: Credentials, name: str = "spool") -> GrpcLink:
        return GrpcLink(self.address, credentials, self.home / name, lambda line: None)

    @contextmanager
    def channel(self, silo: str = "a") -> Iterator[grpc.Channel]:
        """Opens a separate connection with a silo's key, for calls that an honest silo does not make."""
        own = self.silos[silo].credentials
        credentials = grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 2 * PIECE)]
        with grpc.secure_channel(target_of(self.address), credentials, options) as channel:
            yield channel

    def call(self, credentials: Credentials, method: str = FETCH) -> Any:
        """Makes one call; raises `grpc.RpcError` if the server refuses it."""
        channel = grpc.secure_channel(
            target_of(self.address),
            grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate),
        )
        with channel:
            if method == FETCH:
                return list(channel.unary_stream(f"/{SERVICE}/{FETCH}")(note(wait=True), timeout=5))
            return channel.stream_unary(f"/{SERVICE}/{method}")(iter([b"{}"]), timeout=5)


def content(path: Path, size: int) -> Payload:
    """Writes a file of random bytes and returns it with its envelope."""
    path.write_bytes(os.urandom(size))
    digest, size = digest_of(path)
    return Payload(path, Envelope(digest, size, KEY.sign(DOMAIN + bytes.fromhex(digest))))
