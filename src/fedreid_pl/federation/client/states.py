"""Loads the saved states of clients: dates them, fits them to the clients' current persons, deletes old ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedreid_pl.config import Config
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.client.kept import check_kept
from fedreid_pl.federation.client.persons import check_marks, known_rows, person_marks, with_persons
from fedreid_pl.federation.client.store import KeptState
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.functional.randomness import generator
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import Backbone

MakeCallbacks = Callable[[], dict[str, FederationCallback]]


class ClientStates:
    """Loads and saves the states of a worker's clients; every loaded state fits the client's current persons.

    Args:
        config: configuration of the run.
        datamodules: data of each client, by client.
        backbone: the network. Its names, shapes and dtypes are compared with those of saved backbones.
        store: stores the states, see `client.store`.
        make_callbacks: creates new client halves by name.
    """

    def __init__(
        self,
        config: Config,
        datamodules: Mapping[str, ReIDDataModule],
        backbone: Backbone,
        store: KeptState,
        make_callbacks: MakeCallbacks,
    ) -> None:
        self.config, self.datamodules, self.backbone = config, datamodules, backbone
        self.store, self.make_callbacks = store, make_callbacks
        self._like = {name: torch.empty_like(value, device="meta") for name, value in backbone.state_dict().items()}
        self._turns: dict[str, dict[str, Any] | None] = {}  # the last turn of each client
        self._marks: dict[str, Tensor] = {}  # tables of marks of the current training pictures, see `client.persons`

    def new_head(self, client: str) -> nn.Module:
        """Returns a new head for the client's persons; its weights depend only on the run's seed and the client."""
        draws = generator(self.config.seed, client, "head")
        identities = self.datamodules[client].num_identities
        return build_head(self.backbone.feature_dim, identities, draws, bias=self.backbone.head_bias)

    def save(self, job: ClientJob, state: dict[str, Any]) -> None:
        """Saves the state of the job's client after its turn, with the job's address and the client's persons.

        Args:
            job: job of the turn.
            state: `head`, `callbacks`, and `backbone` and `optimizer` if they stay at the client.
        """
        turn = {"session": job.session, "round": job.round, "attempt": job.attempt}
        self._turns[job.client] = turn
        self.store.save(job.client, job.round, {**state, "persons": self._marks_of(job.client), "turn": turn})

    def last_turn(self, client: str) -> dict[str, Any] | None:
        """Returns `session`, `round` and `attempt` of the last turn with a saved state, `None` without one."""
        newest = self.store.newest(client)
        known = self._turns.get(client)
        if newest is not None and (known is None or known.get("round") != newest):
            try:
                found = (self.store.load(client, newest + 1) or {}).get("turn")
            except FedReIDError:  # damaged, or another process is deleting it; `load` reports a damaged state later
                found = None
            self._turns[client] = found if isinstance(found, dict) else None
        return self._turns.get(client) if newest is not None else None

    def drop_old(self, job: ClientJob) -> int:
        """Deletes states to which the server can no longer return; an evaluation job deletes nothing.

        Returns:
            The round from which the job starts.
        """
        start = job.config.get("starts_from", job.round - (job.kind == "fit"))
        assert isinstance(start, int)  # `check_job` has checked the type
        if job.kind == "fit":
            keeps = str(job.config.get("keeps", ""))
            self.store.drop(job.client, start, [int(part) for part in keeps.split("/") if part])
        return start

    def load(self, job: ClientJob, head: nn.Module | None = None) -> dict[str, Any]:
        """Deletes old states (`drop_old`), and returns the state from which a job starts, `{}` if there is none.

        Args:
            job: job for a client of this worker.
            head: head that fits the client's persons; `None` creates one.

        Raises:
            LostState: if there is a state but it is not usable.
        """
        head = self.new_head(job.client) if head is None else head
        return self._load(job.client, self.drop_old(job) + 1, head) or {}

    def check_persons(self, client: str) -> int:
        """Checks the client's newest state against its current pictures, which may have changed since that turn.

        Returns:
            The number of persons that are new since that turn; zero without a state.

        Raises:
            FedReIDError: if a callback does not support the changed persons.
            LostState: if the state is not usable.
        """
        if (newest := self.store.newest(client)) is None:
            return 0
        state = self._load(client, newest + 1, self.new_head(client))
        if state is None or "persons" not in state:
            return 0
        return known_rows(state["persons"], self._marks_of(client)).count(None)

    def _load(self, client: str, before: int, head: nn.Module) -> dict[str, Any] | None:
        return self.store.load(client, before, partial(self._fitting, client, head.state_dict()))

    def _fitting(self, client: str, head: dict[str, Tensor], state: dict[str, Any]) -> dict[str, Any]:
        """Returns a client's saved state with heads that fit the client's current persons.

        Raises:
            ValueError: if the state does not belong to this client.
            FedReIDError: if a callback does not support the changed persons.
        """
        check_marks(state)
        marks, now = state.get("persons"), self._marks_of(client)
        if marks is not None and not torch.equal(marks, now):
            rows = known_rows(marks, now)
            if not any(row is not None for row in rows):
                raise ValueError(
                    "the saved head does not fit this client's data: none of its persons is among the training pictures"
                )
            if rows != list(range(len(state["head"]["weight"]))):
                state = with_persons(state, head, rows, self.make_callbacks())
        check_kept(state, head=head, backbone=self._like)
        return state

    def _marks_of(self, client: str) -> Tensor:
        if client not in self._marks:
            self._marks[client] = person_marks(self.datamodules[client].client.train, client)
        return self._marks[client]
