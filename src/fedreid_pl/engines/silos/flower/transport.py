"""The coordinator's end of a federation over Flower."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.flower.introduction import introduced, question
from fedreid_pl.engines.silos.flower.parcel import Parcel, envelope_in, pack, unpack
from fedreid_pl.engines.silos.flower.post import INTRODUCE, PAYLOAD, Post
from fedreid_pl.engines.silos.keys import verified
from fedreid_pl.engines.silos.payload import DOMAIN, BadPayload, Payload
from fedreid_pl.errors import printable

PAUSE = 0.25  # seconds between two requests for replies
LOOK = 3.0  # seconds between two checks of the nodes that are online
AGAIN = 30.0  # seconds after which a payload without a valid answer is sent again


@dataclass
class Ready:
    """A payload that waits for a silo's answer.

    Args:
        payload: file and envelope.
        most: largest size of the answer in bytes.
        node: number of the node that the payload was sent to, `None` before it is sent.
        message: number of the sent message, `None` before it is sent.
        not_before: earliest time to send the payload.
        said: whether a failure was printed.
    """

    payload: Payload
    most: int
    node: int | None = None
    message: str | None = None
    not_before: float = 0.0
    said: bool = False


class FlowerTransport:
    """Sends payloads to the nodes of the silos and receives the answers.

    An answer is valid if the silo's key signed it, no matter which node sent it. The transport drops any other answer
    and sends the payload again; a silo that has finished the job answers with the same bytes. The transport receives
    one answer at a time, so that only one answer is in memory.

    Args:
        federation: folder of the federation, with its silos and the key that signs payloads.
        post: sends and receives Flower's messages.
        folder: folder of the received answers.
        say: prints a line.
        clock: returns a monotonic time in seconds.
        sleep: waits for the given seconds.
    """

    def __init__(
        self,
        federation: FederationFolder,
        post: Post,
        folder: Path,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.federation, self.post_office, self.folder, self.say = federation, post, folder, say
        self._clock, self._sleep = clock, sleep
        self._ready: dict[str, Ready] = {}
        self._asked: dict[int, tuple[str | None, Parcel]] = {}
        self._node_of: dict[str, int] = {}
        self._strangers: dict[int, float] = {}  # nodes that are not a silo, and the time of the next question
        self._seen: dict[str, float] = {}
        self._arrived: deque[tuple[str, Payload]] = deque()
        self._looked, self._number = float("-inf"), 0
        folder.mkdir(parents=True, exist_ok=True)

    def post(self, silo: str, payload: Payload, most: int) -> None:
        """Offers a payload to a silo."""
        self._ready[silo] = Ready(payload, most)

    def withdraw(self, silo: str) -> None:
        """Withdraws the payload of a silo. Flower cannot cancel a sent message: the silo may do the job in vain."""
        self._ready.pop(silo, None)

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        """Returns a silo's name and its answer, `None` after `timeout` seconds."""
        end = self._clock() + timeout
        while True:
            if self._clock() - self._looked >= LOOK:
                self._look()
            self._hear()
            self._send()
            self._take()
            if self._arrived:
                return self._arrived.popleft()
            if (left := end - self._clock()) <= 0:
                return None
            self._sleep(min(PAUSE, left))

    def seen(self) -> Mapping[str, float]:
        """Returns the seconds since each silo's node was last online, by name of the silo."""
        now = self._clock()
        return {silo: now - at for silo, at in self._seen.items()}

    def close(self) -> None:
        """Does nothing: Flower ends the run when the ServerApp returns."""

    # which node is which silo

    def _look(self) -> None:
        """Asks new nodes which silo they are, and forgets nodes that are offline."""
        self._looked = now = self._clock()
        online = set(self.post_office.nodes())
        for silo, node in list(self._node_of.items()):
            if node in online:
                self._seen[silo] = now
            else:
                del self._node_of[silo]
        for ready in self._ready.values():
            if ready.node not in online:  # the message is lost, or no one will read its reply
                ready.node = ready.message = None
        self._asked = {node: asked for node, asked in self._asked.items() if node in online}
        self._strangers = {node: until for node, until in self._strangers.items() if node in online and until > now}
        known = {*self._node_of.values(), *self._asked, *self._strangers}
        for node in sorted(online - known):
            asked = question(self.federation, node)
            self._asked[node] = (self.post_office.send(node, INTRODUCE, asked), asked)

    def _hear(self) -> None:
        """Receives the answers of nodes to the question which silo they are."""
        for node, (message, asked) in list(self._asked.items()):
            reply = self.post_office.take(message) if message is not None else None
            if message is not None and reply is None:
                continue
            del self._asked[node]
            parcel = reply.parcel if reply is not None else None
            silo = introduced(parcel, asked, self.federation.members, node) if parcel is not None else None
            if silo is None:
                self._strangers[node] = self._clock() + AGAIN
                self.say(f"warning: node {node} of Flower is not a silo of this federation ({_reason(reply)})")
                continue
            if silo not in self._seen:
                self.say(f"silo {silo} is node {node} of Flower")
            self._node_of[silo], self._seen[silo] = node, self._clock()
            ready = self._ready.get(silo)
            if ready is not None and ready.node != node:  # the silo now runs on another node
                ready.node = ready.message = None

    # payloads and answers

    def _send(self) -> None:
        for silo, ready in self._ready.items():
            node = self._node_of.get(silo)
            if ready.message is not None or node is None or self._clock() < ready.not_before:
                continue
            ready.node, ready.message = node, self.post_office.send(node, PAYLOAD, pack(ready.payload))
            if ready.message is None:
                self._later(silo, ready, "Flower does not accept the message")

    def _take(self) -> None:
        for silo, ready in list(self._ready.items()):
            reply = self.post_office.take(ready.message) if ready.message is not None else None
            if reply is None:
                continue
            if reply.parcel is None or "digest" not in reply.parcel.note:
                self._later(silo, ready, _reason(reply))
                continue
            try:
                self._arrived.append((silo, self._written(silo, ready, reply.parcel)))
                del self._ready[silo]
            except BadPayload as error:
                self._later(silo, ready, f"refused its answer: {error}")

    def _written(self, silo: str, ready: Ready, parcel: Parcel) -> Payload:
        envelope = envelope_in(parcel, ready.most)
        if parcel.note.get("answers") != ready.payload.envelope.digest:
            raise BadPayload("the answer belongs to another payload")
        member = self.federation.members.get(silo)
        content = DOMAIN + bytes.fromhex(envelope.digest)
        if member is None or not verified(member.signing_key, envelope.signature, content):
            raise BadPayload("the signature does not match the silo's key")
        self._number += 1
        return unpack(parcel, self.folder / f"{silo}.{self._number}.answer", ready.most)

    def _later(self, silo: str, ready: Ready, reason: str) -> None:
        ready.node = ready.message = None
        ready.not_before = self._clock() + AGAIN
        if not ready.said:
            ready.said = True
            self.say(f"warning: silo {silo}: no answer ({reason}); the payload is sent again every {AGAIN:.0f} s")


def _reason(reply: object) -> str:
    """Returns the reason why there is no valid reply, made safe to print."""
    parcel = getattr(reply, "parcel", None)
    if parcel is None:
        return printable(getattr(reply, "error", "") or "Flower does not accept the message")
    return printable(str(parcel.note.get("failed", "its message is not valid")))
