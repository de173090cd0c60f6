"""The coordinator's side of a transport over a network: what lies ready for silos, and what came from them."""

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
    """A silo sends what nobody waits for, or more than it may."""


@dataclass
class Box:
    """Of one silo.

    Args:
        ready: what lies ready, `None` if nothing does.
        most: bytes that its answer may have.
        seen: when it was last heard of.
        sending: held while an upload writes.
        upload: number of the newest upload, the only one that may write.
    """

    ready: Payload | None = None
    most: int = 0
    seen: float | None = None
    sending: threading.Lock = field(default_factory=threading.Lock)
    upload: int = 0


class Mailbox:
    """Payloads by silo. An upload that breaks off goes on where it ended, also after a restart of the coordinator.

    Args:
        silos: their names.
        folder: where uploads are written.
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
        """Makes room for silos that are new."""
        with self._changed:
            for silo in silos:
                self._boxes.setdefault(silo, Box())

    def post(self, silo: str, payload: Payload, most: int) -> None:
        """Lays a payload ready."""
        self.admit([silo])
        with self._changed:
            box = self._boxes[silo]
            box.ready, box.most = payload, most
            self._changed.notify_all()

    def withdraw(self, silo: str) -> None:
        """Takes back what lies ready."""
        with self._changed:
            self._boxes[silo].ready = None

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        """Returns what came from a silo."""
        try:
            return self._arrived.get(timeout=timeout)
        except queue.Empty:
            return None

    def seen(self) -> dict[str, float]:
        """Returns by silo the seconds since it was heard of."""
        now = time.monotonic()
        return {silo: now - box.seen for silo, box in list(self._boxes.items()) if box.seen is not None}

    def close(self) -> None:
        """Lets everybody who waits go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # the silos' side

    def wait(self, silo: str, have: str, seconds: float, alive: Alive = lambda: True) -> Payload | None:
        """Returns what lies ready for a silo, once that is something else than `have`; `None` after some seconds.

        Args:
            silo: its name.
            have: digest of what it has.
            seconds: the longest wait.
            alive: whether the silo is still there.
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
        """Returns how many bytes of an answer are here already.

        Args:
            silo: who sends it.
            envelope: of the answer.
            answers: digest of the payload that it answers.

        Raises:
            Unwanted: if nobody waits for an answer to this payload, or it is too long.
        """
        box = self._boxes[silo]
        box.seen = time.monotonic()
        if box.ready is None or box.ready.envelope.digest != answers:
            raise Unwanted("this answer is not waited for")
        if envelope.size > box.most:
            raise Unwanted(f"the answer has {envelope.size} bytes, at most {box.most} are taken")
        part = self._part(silo, envelope)
        return part.stat().st_size if part.exists() else 0

    def take(self, silo: str, envelope: Envelope, answers: str, offset: int, pieces: Iterator[bytes]) -> bool:
        """Writes an answer, from `offset` on, and hands it on when it is whole.

        An upload takes the place of the silo's one before, whose connection may be dead without anybody knowing.

        Returns:
            Whether it is whole.

        Raises:
            Unwanted: for more bytes than announced, other bytes than were signed, or if a newer upload began.
        """
        box, part = self._boxes[silo], self._part(silo, envelope)
        try:
            with box.sending:
                box.upload += 1
                number = box.upload
                if self.held(silo, envelope, answers) != offset:
                    raise Unwanted("the upload goes on at another place than it ended")
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
        with self._changed:  # another payload may have taken the place of the one it answers, or may do so now
            self.held(silo, envelope, answers)
            self._boxes[silo].ready = None  # or the silo fetches the job once more before the coordinator has looked
            part.replace(whole)
        self._arrived.put((silo, Payload(whole, envelope, hashed=True)))
        return True

    def _part(self, silo: str, envelope: Envelope) -> Path:
        return self.folder / f"{silo}.{envelope.digest[:16]}.part"

    def _drop_others(self, silo: str, part: Path) -> None:
        """Deletes what is left of other answers, so that a silo takes no more than one answer's room."""
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
                raise Unwanted("more bytes came than were announced")
            digest.update(piece)
            with box.sending:
                _check_newest(box, number)
                file.write(piece)
            box.seen = time.monotonic()
    return written


def _check_newest(box: Box, number: int) -> None:
    if box.upload != number:
        raise Unwanted("a newer upload took the place of this one")


def read_pieces(payload: Payload, offset: int) -> Iterator[bytes]:
    """Yields the bytes of a file from `offset` on.

    Raises:
        BadPayload: if the file is shorter than its envelope says.
    """
    left = payload.envelope.size - offset
    with open(payload.path, "rb", buffering=0) as file:
        file.seek(offset)
        while left > 0:
            piece = file.read(min(PIECE, left))
            if not piece:
                raise BadPayload("is shorter than its envelope says")
            left -= len(piece)
            yield piece
