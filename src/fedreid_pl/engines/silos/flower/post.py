"""Converts Flower's messages to parcels and back; no other module builds or reads Flower's messages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from fedreid_pl.engines.silos.flower.parcel import MOST_CHUNKS, Parcel
from fedreid_pl.engines.silos.payload import BadPayload

INTRODUCE, PAYLOAD = "introduce", "payload"
"""Actions of the ClientApp."""
NOTE, FILE = "note", "file"
"""Names of the two records in a message."""
KIND = "bytes"
"""Encoding of the arrays: raw bytes. Flower's own encoding would copy the bytes once more."""


@dataclass(frozen=True)
class Reply:
    """The reply to a message.

    Args:
        parcel: content of the reply; `None` if Flower returned an error instead.
        error: short description of the error.
    """

    parcel: Parcel | None
    error: str = ""


class Post(Protocol):
    """The part of Flower's `Grid` that the transport uses."""

    def nodes(self) -> Collection[int]:
        """Returns the numbers of the nodes that are online."""
        ...

    def send(self, node: int, action: str, parcel: Parcel) -> str | None:
        """Sends a message; returns its number, `None` if Flower does not accept it."""
        ...

    def take(self, message: str) -> Reply | None:
        """Returns the reply to a message once, `None` while there is none."""
        ...


class GridPost:
    """Sends and receives parcels through the `Grid` of a ServerApp.

    Args:
        grid: a `flwr.serverapp.Grid`.
    """

    def __init__(self, grid: Any) -> None:
        self.grid = grid

    def nodes(self) -> Collection[int]:
        """Returns the numbers of the nodes that are online."""
        return list(self.grid.get_node_ids())

    def send(self, node: int, action: str, parcel: Parcel) -> str | None:
        """Sends a message; returns its number, `None` if Flower does not accept it."""
        from flwr.app import Message

        message = Message(record_of(parcel), dst_node_id=node, message_type=f"query.{action}")
        numbers = list(self.grid.push_messages([message]))
        return numbers[0] if numbers else None

    def take(self, message: str) -> Reply | None:
        """Returns the reply to a message once, `None` while there is none."""
        for reply in self.grid.pull_messages([message]):
            if reply.metadata.reply_to_message_id != message:
                continue
            if reply.has_error():
                return Reply(None, f"error {reply.error.code}")
            try:
                return Reply(parcel_of(reply.content))
            except BadPayload as error:
                return Reply(None, str(error))
        return None


def record_of(parcel: Parcel) -> Any:
    """Returns the content of a Flower message for a parcel; each chunk becomes one `uint8` array."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    arrays = {name: Array("uint8", (len(chunk),), KIND, bytes(chunk)) for name, chunk in parcel.chunks.items()}
    return RecordDict({NOTE: ConfigRecord(dict(parcel.note)), FILE: ArrayRecord(arrays)})


def parcel_of(content: Any) -> Parcel:
    """Returns the parcel in the content of a Flower message.

    Raises:
        BadPayload: if fedreid_pl did not build this content.
    """
    notes, files = content.config_records, content.array_records
    if set(notes) != {NOTE} or set(files) != {FILE} or len(files[FILE]) > MOST_CHUNKS:
        raise BadPayload("the message was not built by fedreid_pl")
    note, chunks = dict(notes[NOTE]), {}
    if any(type(value) not in (str, int) for value in note.values()):
        raise BadPayload("a value in the note is not a number or a string")
    for name, array in files[FILE].items():
        if array.dtype != "uint8" or array.stype != KIND or tuple(array.shape) != (len(array.data),):
            raise BadPayload("a chunk is not an array of bytes")
        chunks[str(name)] = array.data
    return Parcel(note, chunks)
