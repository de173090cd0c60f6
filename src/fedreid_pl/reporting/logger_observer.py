"""Sends rounds to a Lightning logger; an error of the logger never stops a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning.loggers import Logger

from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.history import Record
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.reporting.numbers import round_numbers


class LoggerObserver(Observer):
    """Sends every round's numbers to a Lightning logger as `section/name/metric`, with the round as the step.

    A resumed run sends the earlier rounds again from the histories in the checkpoint, so that the logger has all rounds
    even if it lost some when the run was killed. If the logger raises an error, the observer prints one warning and
    stops using the logger; metrics.csv and timings.csv contain the same numbers.

    Args:
        name: name of the logger in messages, the value of `logger=`.
        make: creates the Lightning logger when the run starts.

    Attributes:
        url: address of the run's page on a server, `None` without one.
    """

    url: str | None = None

    def __init__(self, name: str, make: Callable[[], Logger]) -> None:
        self.name, self.make = name, make
        self.logger: Any = None

    def on_start(self, federation: RoundContext) -> None:
        """Creates the logger and sends the finished rounds."""
        try:
            self.logger = self.make()
        except Exception as error:  # an error of a logger must not stop the run
            tell(
                federation,
                f"logger={self.name} could not be started ({reason_of(error)}); metrics.csv contains all numbers",
            )
            return
        for round in range(federation.round + 1):
            self._send(federation, round)

    def on_round_end(self, federation: RoundContext, records: Sequence[Record]) -> None:
        """Sends the numbers of a round."""
        if federation.round == 1:  # the evaluation before training
            self._send(federation, 0)
        self._send(federation, federation.round)

    def on_end(self, federation: RoundContext) -> None:
        """Closes the logger."""
        self._guard(federation, lambda: self.logger.finalize("success"))

    def _send(self, federation: RoundContext, round: int) -> None:
        if values := round_numbers(federation.history, federation.costs.timings, round):
            self._guard(federation, lambda: self.logger.log_metrics(values, step=round))

    def _guard(self, federation: RoundContext, action: Callable[[], Any]) -> None:
        if self.logger is None:
            return
        try:
            action()
        except Exception as error:
            self.logger = None
            tell(
                federation,
                f"logging to {self.name} stopped after an error ({reason_of(error)}); metrics.csv contains all numbers",
            )


def tell(federation: RoundContext, text: str) -> None:
    """Prints a warning without the number of a round."""
    federation.ledger.tell(text)


def reason_of(error: BaseException) -> str:
    """Returns the message of an error as one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
