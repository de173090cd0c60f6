"""Work that is timed in a process of its own, in which nothing of the project's was set."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

Work = Callable[[int], object]


class Seconds(NamedTuple):
    """What a call took."""

    clock: float
    processor: float


def seconds(work: Callable[..., object], *arguments: Any) -> Seconds:
    """Times one call."""
    clock, processor = time.perf_counter(), time.process_time()
    work(*arguments)
    return Seconds(time.perf_counter() - clock, time.process_time() - processor)


class OtherProcess:
    """A process that makes its work once and then does it whenever it is asked to.

    Args:
        make: called there; returns the work, a function of a number.
        arguments: of `make`.
    """

    def __init__(self, make: Callable[..., Work], *arguments: Any) -> None:
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
        self._process.start()
        self._connection.recv()

    def __call__(self, number: int) -> Seconds:
        """Has the work done once and returns its seconds, measured there."""
        self._connection.send(number)
        return self._connection.recv()

    def end(self) -> None:
        """Ends the process."""
        self._connection.send(None)
        self._process.join()


def _serve(connection: Connection, make: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    work = make(*arguments)
    connection.send(None)
    while (number := connection.recv()) is not None:
        connection.send(seconds(work, number))
