"""Interface of observers, which watch a run and never change it: the terminal, files, wandb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedreid_pl.federation.messages import ClientJob
    from fedreid_pl.federation.server.context import RoundContext
    from fedreid_pl.federation.server.history import Record


class Observer:
    """Hooks with empty bodies; only the first process has observers."""

    def on_start(self, federation: RoundContext) -> None:
        """Called before the first round of this launch; `federation.round` is the last finished round."""

    def on_client(self, federation: RoundContext, phase: str, job: ClientJob) -> None:
        """Called before a client starts a job; `phase` is `fit` or `evaluate`."""

    def on_progress(self, federation: RoundContext) -> None:
        """Called when a client has started or answered, see `federation.running` and `federation.done`."""

    def on_warning(self, federation: RoundContext, text: str) -> None:
        """Called with a warning: something was left out, or done differently from the configuration."""

    def on_checkpoint(self, federation: RoundContext) -> None:
        """Called before a round is saved: files that an observer writes here exist whenever the checkpoint exists."""

    def on_round_end(self, federation: RoundContext, records: Sequence[Record]) -> None:
        """Called after a round is finished and saved; `records` are the numbers of the round."""

    def on_end(self, federation: RoundContext) -> None:
        """Called after the last round, or after an interrupt; `federation.round` is the last finished round."""
