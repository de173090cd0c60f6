"""Those who watch a run and never change it: the screen, files, wandb."""

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
        """Before the first round of this launch; `federation.round` rounds are already done."""

    def on_client(self, federation: RoundContext, phase: str, job: ClientJob) -> None:
        """A client is about to `fit` or `evaluate`."""

    def on_progress(self, federation: RoundContext) -> None:
        """A client has begun or answered; `federation.running` and `federation.done` say where the pass is."""

    def on_warning(self, federation: RoundContext, text: str) -> None:
        """Something was left out or done in another way than asked."""

    def on_checkpoint(self, federation: RoundContext) -> None:
        """A round is about to be saved: what is written here is there whenever the round's checkpoint is."""

    def on_round_end(self, federation: RoundContext, records: Sequence[Record]) -> None:
        """A round is done and saved; `records` are its numbers."""

    def on_end(self, federation: RoundContext) -> None:
        """All rounds are done, or the run was interrupted after `federation.round`."""
