"""A silo's end of the gRPC transport: the silo calls the coordinator and opens no port."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from fedreid_pl.engines.silos.certificates import Credentials, check_certificate
from fedreid_pl.engines.silos.grpc_calls import (
    CLIENT_OPTIONS,
    FETCH,
    PUSH,
    SERVICE,
    envelope_of,
    note,
    read_note,
    spoken_by_me,
)
from fedreid_pl.engines.silos.grpc_errors import cause_of, check_refusal
from fedreid_pl.engines.silos.log_lines import Emit, quiet
from fedreid_pl.engines.silos.mailbox import read_pieces
from fedreid_pl.engines.silos.payload import PIECE, BadPayload, Envelope, Payload
from fedreid_pl.errors import FedReIDError, printable

PAUSE, LONGEST_PAUSE = 0.2, 5.0  # shortest and longest pause between two attempts, in seconds
BEAT = 10.0  # seconds between two signs of life while the silo works
ROOM = 2**30  # bytes of the disk that stay free after a payload is received


class GrpcLink:
    """Calls the coordinator until it answers. An interrupted transfer resumes at the last received byte.

    Args:
        address: `https://HOST:PORT` of the coordinator.
        credentials: credentials of this silo.
        folder: folder of the received payloads.
        say: prints a line.

    Raises:
        FedReIDError: if the address has another form.
    """

    def __init__(self, address: str, credentials: Credentials, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say, self._silent = folder, say, False
        self.events: Emit = quiet
        folder.mkdir(parents=True, exist_ok=True)
        self._channel = grpc.secure_channel(
            target_of(address),
            grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate),
            options=CLIENT_OPTIONS,
        )
        self._address, self._certificate = address, credentials.certificate
        self._fetch = self._channel.unary_stream(f"/{SERVICE}/{FETCH}")
        self._push = self._channel.stream_unary(f"/{SERVICE}/{PUSH}")

    def fetch(self, have: str = "") -> Payload | None:
        """Returns the payload that waits for this silo, `None` if no payload arrives in time or the call fails.

        Raises:
            FedReIDError: if the coordinator does not know this silo's key, or speaks another protocol, or if the call
                fails and the silo's certificate has expired.
        """
        try:
            return self._fetched(have)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:  # the part on disk does not belong to this payload
                for part in self.folder.glob("*.part"):
                    part.unlink(missing_ok=True)
            self._failed(error)
        except BadPayload as error:
            self.say(f"warning: {self._address}: ignored the payload: {error}")
            time.sleep(LONGEST_PAUSE)
        return None

    def push(self, payload: Payload, answers: str) -> bool:
        """Sends an answer until the coordinator has all of it; returns `False` if the coordinator refuses it.

        Args:
            payload: the answer.
            answers: digest of the payload that it answers.

        Raises:
            FedReIDError: if the coordinator does not know this silo's key, or speaks another protocol.
        """
        offset, pause, known = 0, PAUSE, True
        while True:
            try:
                if not known:
                    held, known = self._held(payload, answers), True
                    if held <= offset:  # no byte arrived: wait before the next attempt
                        time.sleep(pause)
                        pause = min(2 * pause, LONGEST_PAUSE)
                    offset = held
                done = read_note(self._push(_stream(payload, answers, offset), metadata=spoken_by_me()))
                if done.get("whole") is True:
                    self._reached()
                    return True
                known = False
            except grpc.RpcError as error:
                known = False
                elsewhere = offset == 0 and "does not resume" in (error.details() or "")
                if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT):
                    if not elsewhere:
                        return False
                    continue
                self._failed(error, pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except BadPayload as error:
                self.say(f"warning: {self._address}: ignored its reply: {error}")
                time.sleep(LONGEST_PAUSE)
                return False

    def beat(self) -> None:
        """Sends a sign of life to the coordinator; ignores errors of the call."""
        with suppress(grpc.RpcError):
            for _ in self._fetch(note(wait=False), timeout=BEAT, metadata=spoken_by_me()):
                pass

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _fetched(self, have: str) -> Payload | None:
        part = next(iter(sorted(self.folder.glob("*.part"))), None)
        known = {"digest": part.stem, "offset": part.stat().st_size} if part is not None else {}
        stream = self._fetch(note(wait=True, have=have, **known), metadata=spoken_by_me())
        first = next(stream, None)
        self._reached()
        if first is None:
            return None
        try:
            envelope, offset = envelope_of(read_note(first))
            if offset not in (0, known.get("offset") if envelope.digest == known.get("digest") else 0):
                raise BadPayload("the download does not resume at the end of the part on disk")
            self._check_room(envelope.size - offset)
        except BadPayload:
            stream.cancel()
            raise
        for old in self.folder.glob("*.part"):
            if old.stem != envelope.digest or not offset:
                old.unlink(missing_ok=True)
        return self._written(self.folder / f"{envelope.digest}.part", envelope, offset, stream)

    def _check_room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free - ROOM
        if size > free:
            raise BadPayload(f"the payload needs {size} bytes, but only {max(free, 0)} bytes of the disk may be used")

    def _written(self, part: Path, envelope: Envelope, offset: int, pieces: Iterator[bytes]) -> Payload | None:
        digest = hashlib.sha256()
        if offset:
            with open(part, "rb") as file:
                while piece := file.read(PIECE):
                    digest.update(piece)
        written = offset
        with open(part, "ab", buffering=0) as file:
            for piece in pieces:
                written += len(piece)
                if written > envelope.size:
                    break
                digest.update(piece)
                file.write(piece)
        if written < envelope.size:
            return None  # the next call resumes the transfer
        if written > envelope.size or digest.hexdigest() != envelope.digest:
            part.unlink()
            raise BadPayload("the bytes differ from the digest or the size in the envelope")
        whole = part.with_suffix(".safetensors")
        part.replace(whole)
        return Payload(whole, envelope, hashed=True)

    def _held(self, payload: Payload, answers: str) -> int:
        """Returns the number of bytes of an answer that the coordinator has."""
        asked = note(**vars(payload.envelope), answers=answers, offset=-1)
        held = read_note(self._push(iter([asked]), timeout=60.0, metadata=spoken_by_me())).get("held")
        return held if type(held) is int and 0 <= held <= payload.envelope.size else 0

    def _reached(self) -> None:
        if self._silent:
            self._silent = False
            self.events("reachable")
            self.say(f"{self._address} answers again")

    def _failed(self, error: grpc.RpcError, pause: float = PAUSE) -> None:
        check_refusal(self._address, error)
        check_certificate(self._certificate)  # it may have expired since the start
        if not self._silent:
            self._silent = True
            self.events("unreachable", "warning", reason=error.code().name)  # type: ignore[attr-defined]
            self.say(f"{self._address} does not answer ({cause_of(error)}); this silo keeps trying")
        time.sleep(pause * random.uniform(0.5, 1.5))


class Beating:
    """Sends signs of life from a thread while the silo works, as a context manager.

    Args:
        link: link to the coordinator.
    """

    def __init__(self, link: GrpcLink) -> None:
        self._link, self._over = link, threading.Event()

    def __enter__(self) -> Beating:
        threading.Thread(target=self._beat, daemon=True, name="beat").start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            self._link.beat()


def target_of(address: str) -> str:
    """Returns host and port of `https://HOST:PORT`.

    Raises:
        FedReIDError: if the address has another form.

    >>> target_of("https://fl.example.org:8443"), target_of("https://fl.example.org")
    ('fl.example.org:8443', 'fl.example.org:443')
    """
    try:
        parts = urlsplit(address)
        port = 443 if parts.port is None else parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    named = re.fullmatch(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:]+", parts.hostname or "")
    if (
        parts.scheme != "https"
        or not named
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.username
        or not port
    ):
        raise FedReIDError(f"coordinator={printable(address)}: write https://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


def _stream(payload: Payload, answers: str, offset: int) -> Iterator[bytes]:
    yield note(**vars(payload.envelope), answers=answers, offset=offset)
    yield from read_pieces(payload, offset)
