"""Which clients take part in a round."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedreid_pl.functional.randomness import generator


def select_clients(clients: Sequence[str], count: int | None, seed: int, round: int) -> list[str]:
    """`count` of the clients without replacement, all of them for `None`, in the order of `clients`.

    The draw depends on (seed, round) alone.

    >>> select_clients(["a", "b", "c"], 2, seed=0, round=1) == select_clients(["a", "b", "c"], 2, seed=0, round=1)
    True
    """
    if count is None or count >= len(clients):
        return list(clients)
    drawn = torch.randperm(len(clients), generator=generator(seed, round, "selection"))[:count]
    return [clients[index] for index in sorted(drawn.tolist())]
