"""Flower messages: a parcel survives the round trip, and messages with other content are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedreid_pl.engines.silos.flower.parcel import Parcel
from fedreid_pl.engines.silos.flower.post import FILE, KIND, NOTE, GridPost, Reply, parcel_of, record_of
from fedreid_pl.engines.silos.payload import BadPayload

app = pytest.importorskip("flwr.app", reason="flwr is not installed; make test-flower runs this file")

PARCEL = Parcel({"digest": "ab", "size": 7}, {"00000": b"\0\1\2\xff", "00001": b"xyz"})


def test_a_parcel_comes_back() -> None:
    assert parcel_of(record_of(PARCEL)) == PARCEL
    assert parcel_of(record_of(Parcel({"failed": "OSError"}))) == Parcel({"failed": "OSError"})


def test_a_chunk_is_one_array_of_uint8() -> None:
    array = record_of(PARCEL).array_records[FILE]["00000"]
    assert (array.dtype, tuple(array.shape), array.data) == ("uint8", (4,), b"\0\1\2\xff")


def chunk(*fields: Any) -> Any:
    return app.ArrayRecord({"00000": app.Array(*fields)})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.pop(NOTE),
        lambda record: record.pop(FILE),
        lambda record: record.update(more=app.ConfigRecord({})),
        lambda record: record.update({NOTE: app.ConfigRecord({"size": [7]})}),
        lambda record: record.update({NOTE: app.ConfigRecord({"size": b"7"})}),
        lambda record: record.update({NOTE: app.ConfigRecord({"size": True})}),
        lambda record: record.update({FILE: chunk("float32", (1,), KIND, b"abcd")}),
        lambda record: record.update({FILE: chunk("uint8", (4,), "numpy.ndarray", b"abcd")}),
        lambda record: record.update({FILE: chunk("uint8", (5,), KIND, b"abcd")}),
        lambda record: record.update({FILE: chunk("uint8", (2, 2), KIND, b"abcd")}),
    ],
)
def test_messages_that_this_program_does_not_send_are_refused(spoil: Callable[[Any], Any]) -> None:
    record = record_of(PARCEL)
    spoil(record)
    with pytest.raises(BadPayload):
        parcel_of(record)


class Grid:
    """A grid that stores one message and answers with the given replies."""

    def __init__(self, *replies: Any) -> None:
        self.pushed: list[Any] = []
        self.replies = list(replies)

    def get_node_ids(self) -> list[int]:
        return [3, 5]

    def push_messages(self, messages: list[Any]) -> list[str]:
        self.pushed += messages
        return ["m1"]

    def pull_messages(self, numbers: list[str]) -> list[Any]:
        return [self.replies.pop(0)] if self.replies and numbers == ["m1"] else []


class Answer:
    """The fields of a `pull_messages` result that the transport reads."""

    def __init__(self, number: str, content: Any = None, code: int | None = None) -> None:
        self.metadata = type("Metadata", (), {"reply_to_message_id": number})
        self.content, self.error = content, type("Error", (), {"code": code, "reason": "secret"})

    def has_error(self) -> bool:
        return self.content is None


def test_messages_go_out_and_replies_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "Message", lambda content, **address: (content, address))  # needs a Flower task
    grid = Grid(Answer("m9", record_of(PARCEL)), Answer("m1", record_of(PARCEL)), Answer("m1", code=7))
    post = GridPost(grid)
    assert list(post.nodes()) == [3, 5] and post.send(3, "payload", PARCEL) == "m1"
    ((content, address),) = grid.pushed
    assert address == {"dst_node_id": 3, "message_type": "query.payload"} and parcel_of(content) == PARCEL
    assert post.take("m1") is None, "a reply to another message"
    assert post.take("m1") == Reply(PARCEL)
    assert post.take("m1") == Reply(None, "error 7"), "the error text is dropped"
    assert post.take("m1") is None


def test_an_invalid_reply_is_an_error() -> None:
    found = GridPost(Grid(Answer("m1", app.RecordDict()))).take("m1")
    assert found == Reply(None, "the message was not built by fedreid_pl")
