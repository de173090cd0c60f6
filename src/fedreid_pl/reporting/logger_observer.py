"""Rounds into a Lightning logger; nothing that goes wrong with it stops a run."""

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

    A run that is resumed sends the rounds before it again, from the histories in the checkpoint, so that the
    logger's copy is complete whatever it lost when the run was killed. A logger that fails is given up with one
    line; metrics.csv and timings.csv hold the same numbers.

    Args:
        name: what `logger=` says.
        make: makes the Lightning logger when the run starts.

    Attributes:
        url: the run's page on a server, if it has one.
    """

    url: str | None = None

    def __init__(self, name: str, make: Callable[[], Logger]) -> None:
        self.name, self.make = name, make
        self.logger: Any = None

    def on_start(self, federation: RoundContext) -> None:
        """Makes the logger and sends what is known already."""
        try:
            self.logger = self.make()
        except Exception as error:  # a logger is never worth a run
            tell(federation, f"logging goes on without {self.name} ({reason_of(error)})")
            return
        for round in range(federation.round + 1):
            self._send(federation, round)

    def on_round_end(self, federation: RoundContext, records: Sequence[Record]) -> None:
        """Sends a round."""
        if federation.round == 1:  # what was evaluated before training
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
            tell(federation, f"{self.name} logging stopped ({reason_of(error)}); metrics.csv goes on")


def tell(federation: RoundContext, text: str) -> None:
    """Warns on the screen, whatever round it is."""
    federation.ledger.tell(text)


def reason_of(error: BaseException) -> str:
    """An error in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
