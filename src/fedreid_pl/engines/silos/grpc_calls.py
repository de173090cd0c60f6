"""The two gRPC calls between a silo and the coordinator, and the settings that both ends share.

`Fetch`: the silo sends a request and receives the waiting payload in pieces, or no piece if no payload arrives in time.
`Push`: the silo sends an answer in pieces and receives the number of bytes that the coordinator has.
The first message of a stream is JSON: envelope and offset. There is no generated code: messages are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fedreid_pl import __version__
from fedreid_pl.engines.silos.payload import FORMAT, PIECE, BadPayload, Envelope
from fedreid_pl.errors import printable

SERVICE, FETCH, PUSH = "fedreid_pl.Silos", "Fetch", "Push"
CLOCK = "clock"
"""Key of the trailing metadata of `Fetch` with the coordinator's time, in seconds since 1970."""
PROTOCOL, SPOKEN = "protocol", (FORMAT,)
"""Metadata key of every call, and the protocols of this program. The number grows with every change that earlier
programs cannot read; a caller without this metadata uses the first protocol."""
NO_COMMON = "no common protocol: "
"""Start of the error message for a caller without a common protocol."""
WAIT = 20.0  # seconds that a call waits for a payload
MOST_NOTE = 4096  # largest size of a JSON message in bytes
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
"""A connection closes after 20 seconds without a sign of life from the other end."""
WINDOW = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", PIECE),
    ("grpc.http2.max_frame_size", PIECE),
]
"""Each stream has one piece in transit at a time, so that memory does not grow with the speed of the network."""
SERVER_OPTIONS = [
    *KEEPALIVE,
    *WINDOW,
    ("grpc.so_reuseport", 0),  # otherwise two coordinators could share a port
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", PIECE + MOST_NOTE),
    ("grpc.max_metadata_size", 8192),
    ("grpc.max_concurrent_streams", 8),
    ("grpc.server_handshake_timeout_ms", 20_000),
]
CLIENT_OPTIONS = [
    *KEEPALIVE,
    *WINDOW,
    ("grpc.max_receive_message_length", PIECE + MOST_NOTE),
    ("grpc.enable_http_proxy", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def note(**values: Any) -> bytes:
    """Returns plain values encoded as a JSON message."""
    return json.dumps(values).encode()


def spoken_by_me() -> tuple[tuple[str, str]]:
    """Returns the metadata with the protocols of this program.

    >>> spoken_by_me()
    (('protocol', '1'),)
    """
    return ((PROTOCOL, ",".join(map(str, SPOKEN))),)


def disagreement(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Returns why a caller with this metadata cannot be served, `None` if there is a common protocol.

    >>> disagreement([("protocol", "1,2")]), disagreement([])
    (None, None)
    """
    text = str(dict(metadata).get(PROTOCOL, "1"))[:100]
    if set(map(str, SPOKEN)) & set(text.split(",")):
        return None
    mine = ", ".join(map(str, SPOKEN))
    return f"{NO_COMMON}the silo speaks {printable(text)}, the coordinator (fedreid_pl {__version__}) {mine}"


def read_note(message: bytes) -> dict[str, Any]:
    """Returns the plain values of a JSON message.

    Raises:
        BadPayload: if the message is too long or is not a JSON object.
    """
    try:
        found = json.loads(message) if len(message) <= MOST_NOTE else None
    except (ValueError, RecursionError) as error:
        raise BadPayload(f"the message is not a JSON object of at most {MOST_NOTE} bytes") from error
    if type(found) is not dict:
        raise BadPayload(f"the message is not a JSON object of at most {MOST_NOTE} bytes")
    return found


def envelope_of(found: dict[str, Any]) -> tuple[Envelope, int]:
    """Returns envelope and offset of a stream's first message.

    Raises:
        BadPayload: if the message has no valid envelope or offset.
    """
    offset = found.get("offset")
    envelope = Envelope(found.get("digest", ""), found.get("size", 0), found.get("signature", ""))
    if type(offset) is not int or not -1 <= offset <= envelope.size:
        raise BadPayload("the offset is out of range")
    return envelope, offset
