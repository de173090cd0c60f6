"""Times work in a separate process, without global settings of the project."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

Work = Callable[[int], object]


class Seconds(NamedTuple):
    """Wall-clock and processor seconds of a call."""

    clock: float
    processor: float


def seconds(work: Callable[..., object], *arguments: Any) -> Seconds:
    """Times one call."""
    clock, processor = time.perf_counter(), time.process_time()
    work(*arguments)
    return Seconds(time.perf_counter() - clock, time.process_time() - processor)


class OtherProcess:
    """A process that creates its work function once and calls it on request.

    Args:
        make: a function that the process calls; returns the work, a function of a number.
        arguments: arguments of `make`.
    """

    def __init__(self, make: Callable[..., Work], *arguments: Any) -> None:
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
        self._process.start()
        self._connection.recv()

    def __call__(self, number: int) -> Seconds:
        """Runs the work once and returns its seconds, measured in the process."""
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
