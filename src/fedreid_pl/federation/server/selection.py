"""Selects the clients of a round."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.randomness import generator


def check_selection(config: Config, clients: int) -> None:
    """Checks `clients_per_round` and `min_clients` against the number of clients.

    Raises:
        FedReIDError: if a round can never have that many clients.
    """
    if config.clients_per_round is not None and config.clients_per_round > clients:
        raise FedReIDError(
            f"clients_per_round={config.clients_per_round}: there are {clients} clients; choose at most that number"
        )
    present = config.clients_per_round or clients
    if config.min_clients > present:
        raise FedReIDError(
            f"min_clients={config.min_clients}: a round has {present} of {clients} clients; choose at most {present}"
        )


def select_clients(clients: Sequence[str], count: int | None, seed: int, round: int) -> list[str]:
    """Draws `count` clients without replacement, in the order of `clients`; `None` selects all clients.

    The draw depends only on seed and round.

    >>> select_clients(["a", "b", "c"], 2, seed=0, round=1) == select_clients(["a", "b", "c"], 2, seed=0, round=1)
    True
    """
    if count is None or count >= len(clients):
        return list(clients)
    drawn = torch.randperm(len(clients), generator=generator(seed, round, "selection"))[:count]
    return [clients[index] for index in sorted(drawn.tolist())]
