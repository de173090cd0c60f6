"""The coordinator's end of a federation whose payloads travel through Flower."""

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

PAUSE = 0.25  # seconds between two questions for replies
LOOK = 3.0  # seconds between two looks at which nodes are online
AGAIN = 30.0  # seconds after which a payload without a valid answer is sent once more


@dataclass
class Ready:
    """A payload that lies ready for a silo.

    Args:
        payload: file and envelope.
        most: bytes that the answer may have.
        node, message: where it was sent and under which number, `None` until then.
        not_before: when it may be sent.
        said: whether a failure was printed.
    """

    payload: Payload
    most: int
    node: int | None = None
    message: str | None = None
    not_before: float = 0.0
    said: bool = False


class FlowerTransport:
    """Sends payloads to the nodes on which silos have introduced themselves, and takes their answers.

    An answer counts if the silo's key signed it, whatever node it came from. Any other answer is dropped and the
    payload is sent again: a silo that has done a job answers with the same bytes. Answers are taken one by one, so that
    one of them is in memory at a time.

    Args:
        federation: who takes part, and the key that signs.
        post: Flower's messages.
        folder: where answers are written.
        say: prints a line.
        clock: seconds that grow.
        sleep: waits for some seconds.
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
        self._strangers: dict[int, float] = {}  # nodes that are no silo, and when they are asked again
        self._seen: dict[str, float] = {}
        self._arrived: deque[tuple[str, Payload]] = deque()
        self._looked, self._number = float("-inf"), 0
        folder.mkdir(parents=True, exist_ok=True)

    def post(self, silo: str, payload: Payload, most: int) -> None:
        """Lays a payload ready for a silo."""
        self._ready[silo] = Ready(payload, most)

    def withdraw(self, silo: str) -> None:
        """Takes back what lies ready. Flower cannot take back a message: the silo may do the job in vain."""
        self._ready.pop(silo, None)

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        """Returns a silo's name and what it sent, `None` after `timeout` seconds."""
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
        """Returns by silo the seconds since its node was online."""
        now = self._clock()
        return {silo: now - at for silo, at in self._seen.items()}

    def close(self) -> None:
        """Does nothing: Flower ends the run when the ServerApp returns."""

    # which node is which silo

    def _look(self) -> None:
        """Asks nodes that are new who they are, and forgets those that are gone."""
        self._looked = now = self._clock()
        online = set(self.post_office.nodes())
        for silo, node in list(self._node_of.items()):
            if node in online:
                self._seen[silo] = now
            else:
                del self._node_of[silo]
        for ready in self._ready.values():
            if ready.node not in online:  # the message is lost, or will be answered to nobody
                ready.node = ready.message = None
        self._asked = {node: asked for node, asked in self._asked.items() if node in online}
        self._strangers = {node: until for node, until in self._strangers.items() if node in online and until > now}
        known = {*self._node_of.values(), *self._asked, *self._strangers}
        for node in sorted(online - known):
            asked = question(self.federation, node)
            self._asked[node] = (self.post_office.send(node, INTRODUCE, asked), asked)

    def _hear(self) -> None:
        """Takes the answers of nodes that were asked who they are."""
        for node, (message, asked) in list(self._asked.items()):
            reply = self.post_office.take(message) if message is not None else None
            if message is not None and reply is None:
                continue
            del self._asked[node]
            parcel = reply.parcel if reply is not None else None
            silo = introduced(parcel, asked, self.federation.members, node) if parcel is not None else None
            if silo is None:
                self._strangers[node] = self._clock() + AGAIN
                self.say(f"warning: node {node} of Flower is no silo of this federation ({_reason(reply)})")
                continue
            if silo not in self._seen:
                self.say(f"silo {silo} is node {node} of Flower")
            self._node_of[silo], self._seen[silo] = node, self._clock()
            ready = self._ready.get(silo)
            if ready is not None and ready.node != node:  # the silo's process is another one now
                ready.node = ready.message = None

    # payloads and answers

    def _send(self) -> None:
        for silo, ready in self._ready.items():
            node = self._node_of.get(silo)
            if ready.message is not None or node is None or self._clock() < ready.not_before:
                continue
            ready.node, ready.message = node, self.post_office.send(node, PAYLOAD, pack(ready.payload))
            if ready.message is None:
                self._later(silo, ready, "Flower does not take the message")

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
                self._later(silo, ready, f"its answer {error}")

    def _written(self, silo: str, ready: Ready, parcel: Parcel) -> Payload:
        envelope = envelope_in(parcel, ready.most)
        if parcel.note.get("answers") != ready.payload.envelope.digest:
            raise BadPayload("is to another payload")
        member = self.federation.members.get(silo)
        content = DOMAIN + bytes.fromhex(envelope.digest)
        if member is None or not verified(member.signing_key, envelope.signature, content):
            raise BadPayload("is not signed by the silo")
        self._number += 1
        return unpack(parcel, self.folder / f"{silo}.{self._number}.answer", ready.most)

    def _later(self, silo: str, ready: Ready, reason: str) -> None:
        ready.node = ready.message = None
        ready.not_before = self._clock() + AGAIN
        if not ready.said:
            ready.said = True
            self.say(f"warning: silo {silo}: no answer ({reason}); the payload is sent again every {AGAIN:.0f} s")


def _reason(reply: object) -> str:
    """Why there is no valid reply, in words from elsewhere that are safe to print."""
    parcel = getattr(reply, "parcel", None)
    if parcel is None:
        return printable(getattr(reply, "error", "") or "Flower does not take the message")
    return printable(str(parcel.note.get("failed", "its message is not valid")))
