"""The coordinator's side of a network transport: holds payloads for silos and receives their answers."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedreid_pl.engines.silos.payload import PIECE, BadPayload, Envelope, Payload
from fedreid_pl.errors import FedReIDError

Alive = Callable[[], bool]


class Unwanted(Exception):
    """Raised if a silo sends an answer that is not expected, or is too long."""


@dataclass
class Box:
    """The mailbox of one silo.

    Args:
        ready: payload that waits for the silo, `None` if no payload waits.
        most: largest size of the silo's answer in bytes.
        seen: `time.monotonic()` of the last contact with the silo, `None` before the first.
        sending: lock that an upload holds while it writes.
        upload: number of the newest upload; only this upload may write.
    """

    ready: Payload | None = None
    most: int = 0
    seen: float | None = None
    sending: threading.Lock = field(default_factory=threading.Lock)
    upload: int = 0


class Mailbox:
    """Holds a payload and receives an answer for each silo.

    An interrupted upload resumes at the last received byte, even after a restart of the coordinator.

    Args:
        silos: names of the silos.
        folder: folder of the uploads.
    """

    def __init__(self, silos: list[str], folder: Path) -> None:
        self.folder = folder
        self._boxes = {silo: Box() for silo in silos}
        self._changed = threading.Condition()
        self._arrived: queue.Queue[tuple[str, Payload]] = queue.Queue()
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True)

    # the coordinator's side

    def admit(self, silos: Iterable[str]) -> None:
        """Adds mailboxes for silos that have none."""
        with self._changed:
            for silo in silos:
                self._boxes.setdefault(silo, Box())

    def post(self, silo: str, payload: Payload, most: int) -> None:
        """Offers a payload to a silo; its answer may have up to `most` bytes."""
        self.admit([silo])
        with self._changed:
            box = self._boxes[silo]
            box.ready, box.most = payload, most
            self._changed.notify_all()

    def withdraw(self, silo: str) -> None:
        """Withdraws the payload of a silo."""
        with self._changed:
            self._boxes[silo].ready = None

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        """Returns a silo's name and its answer, `None` after `timeout` seconds."""
        try:
            return self._arrived.get(timeout=timeout)
        except queue.Empty:
            return None

    def seen(self) -> dict[str, float]:
        """Returns the seconds since the last contact with each silo, by name."""
        now = time.monotonic()
        return {silo: now - box.seen for silo, box in list(self._boxes.items()) if box.seen is not None}

    def close(self) -> None:
        """Closes the mailboxes and ends all calls of `wait`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # the silos' side

    def wait(self, silo: str, have: str, seconds: float, alive: Alive = lambda: True) -> Payload | None:
        """Waits for a payload that the silo does not have yet and returns it, `None` after `seconds` seconds.

        Args:
            silo: name of the silo.
            have: digest of the payload that the silo already has.
            seconds: longest wait in seconds.
            alive: returns whether the silo is still connected.
        """
        end = time.monotonic() + seconds
        box = self._boxes[silo]
        with self._changed:
            box.seen = time.monotonic()
            while not self._closed and alive():
                if box.ready is not None and box.ready.envelope.digest != have:
                    return box.ready
                if (left := end - time.monotonic()) <= 0:
                    return None
                self._changed.wait(min(left, 1.0))
        return None

    def held(self, silo: str, envelope: Envelope, answers: str) -> int:
        """Returns the number of bytes of an answer that the coordinator already has.

        Args:
            silo: name of the sender.
            envelope: envelope of the answer.
            answers: digest of the payload that it answers.

        Raises:
            Unwanted: if this payload awaits no answer, or the answer is too long.
        """
        box = self._boxes[silo]
        box.seen = time.monotonic()
        if box.ready is None or box.ready.envelope.digest != answers:
            raise Unwanted("the coordinator does not expect this answer")
        if envelope.size > box.most:
            raise Unwanted(f"the answer has {envelope.size} bytes, but at most {box.most} are accepted")
        part = self._part(silo, envelope)
        return part.stat().st_size if part.exists() else 0

    def take(self, silo: str, envelope: Envelope, answers: str, offset: int, pieces: Iterator[bytes]) -> bool:
        """Writes an answer from `offset` on, and passes the complete answer to `next`.

        A new upload of a silo replaces its earlier upload, whose connection may be dead.

        Returns:
            Whether the answer is complete.

        Raises:
            Unwanted: if more bytes arrive than announced, the digest is wrong, or a newer upload has begun.
        """
        box, part = self._boxes[silo], self._part(silo, envelope)
        try:
            with box.sending:
                box.upload += 1
                number = box.upload
                if self.held(silo, envelope, answers) != offset:
                    raise Unwanted("the upload does not resume at the end of the part on disk")
                self._drop_others(silo, part)
                digest = _digest_of_start(part, offset)
            written = _append(part, envelope, offset, pieces, digest, box, number)
            if written < envelope.size:
                return False
            with box.sending:
                _check_newest(box, number)
                return self._hand_on(silo, part, envelope, answers, digest.hexdigest())
        except OSError as error:
            raise FedReIDError(f"{self.folder}: an answer cannot be written ({error.strerror})") from error

    def _hand_on(self, silo: str, part: Path, envelope: Envelope, answers: str, digest: str) -> bool:
        if digest != envelope.digest:
            part.unlink()
            raise Unwanted("the answer has another digest than announced")
        whole = part.with_suffix(".answer")
        with self._changed:  # the payload may be replaced at any moment: check it again under the lock
            self.held(silo, envelope, answers)
            self._boxes[silo].ready = None  # otherwise the silo could fetch the same job again
            part.replace(whole)
        self._arrived.put((silo, Payload(whole, envelope, hashed=True)))
        return True

    def _part(self, silo: str, envelope: Envelope) -> Path:
        return self.folder / f"{silo}.{envelope.digest[:16]}.part"

    def _drop_others(self, silo: str, part: Path) -> None:
        """Deletes parts of other answers, so that a silo uses the disk space of only one answer."""
        for path in self.folder.glob(f"{silo}.*.part"):
            if path != part:
                path.unlink(missing_ok=True)


def _digest_of_start(part: Path, offset: int) -> hashlib._Hash:
    digest = hashlib.sha256()
    if offset:
        with open(part, "rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    return digest


def _append(
    part: Path, envelope: Envelope, offset: int, pieces: Iterator[bytes], digest: hashlib._Hash, box: Box, number: int
) -> int:
    written = offset
    with open(part, "ab", buffering=0) as file:
        for piece in pieces:
            written += len(piece)
            if written > envelope.size or len(piece) > PIECE:
                raise Unwanted("more bytes arrived than announced")
            digest.update(piece)
            with box.sending:
                _check_newest(box, number)
                file.write(piece)
            box.seen = time.monotonic()
    return written


def _check_newest(box: Box, number: int) -> None:
    if box.upload != number:
        raise Unwanted("a newer upload has replaced this one")


def read_pieces(payload: Payload, offset: int) -> Iterator[bytes]:
    """Yields the bytes of a payload's file from `offset` on, in pieces.

    Raises:
        BadPayload: if the file is shorter than the size in its envelope.
    """
    left = payload.envelope.size - offset
    with open(payload.path, "rb", buffering=0) as file:
        file.seek(offset)
        while left > 0:
            piece = file.read(min(PIECE, left))
            if not piece:
                raise BadPayload("the file is shorter than the size in its envelope")
            left -= len(piece)
            yield piece
