"""The two calls between a silo and the coordinator, and what both ends have to agree on.

`Fetch`: a request, then the payload that lies ready in pieces; no piece if nothing lay ready for a while.
`Push`: an answer in pieces, then how much of it is at the coordinator.
The first message of a stream is JSON: envelope and offset. Nothing is generated: messages are bytes.
"""

from __future__ import annotations

import json
from typing import Any

from fedreid_pl.engines.silos.payload import PIECE, BadPayload, Envelope

SERVICE, FETCH, PUSH = "fedreid_pl.Silos", "Fetch", "Push"
CLOCK = "clock"
"""Name of the seconds since 1970 at the coordinator, at the end of `Fetch`."""
WAIT = 20.0  # seconds that a call waits for a payload
MOST_NOTE = 4096  # bytes of a message that is JSON
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
"""A connection whose other end is silent for 20 seconds is given up."""
WINDOW = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", PIECE),
    ("grpc.http2.max_frame_size", PIECE),
]
"""One piece is under way at a time on each stream, so that memory does not grow with the speed of a line."""
SERVER_OPTIONS = [
    *KEEPALIVE,
    *WINDOW,
    ("grpc.so_reuseport", 0),  # or two coordinators share a port
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
    """Returns a message of plain values."""
    return json.dumps(values).encode()


def read_note(message: bytes) -> dict[str, Any]:
    """Reads a message of plain values.

    Raises:
        BadPayload: if it is none.
    """
    try:
        found = json.loads(message) if len(message) <= MOST_NOTE else None
    except (ValueError, RecursionError) as error:
        raise BadPayload("is no message of a silo") from error
    if type(found) is not dict:
        raise BadPayload("is no message of a silo")
    return found


def envelope_of(found: dict[str, Any]) -> tuple[Envelope, int]:
    """Returns envelope and offset of a stream's first message.

    Raises:
        BadPayload: if it has none.
    """
    offset = found.get("offset")
    envelope = Envelope(found.get("digest", ""), found.get("size", 0), found.get("signature", ""))
    if type(offset) is not int or not -1 <= offset <= envelope.size:
        raise BadPayload("has an offset that is none")
    return envelope, offset
