"""The draw of a round's clients: without replacement, uniform, a function of only (seed, round)."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from fedreid_pl.federation.server.selection import select_clients

CLIENTS = [f"client{number}" for number in range(9)]


@pytest.mark.parametrize("count", [None, 9, 12])
def test_all_clients_take_part(count: int | None) -> None:
    assert select_clients(CLIENTS, count, seed=0, round=1) == CLIENTS


@pytest.mark.parametrize("count", [1, 4, 8])
def test_clients_are_drawn_without_replacement_and_keep_their_order(count: int) -> None:
    for round in range(1, 40):
        drawn = select_clients(CLIENTS, count, seed=3, round=round)
        assert len(set(drawn)) == count and drawn == [client for client in CLIENTS if client in drawn]


def test_the_draw_depends_only_on_seed_and_round() -> None:
    before = [select_clients(CLIENTS, 3, seed=1, round=round) for round in range(1, 30)]
    torch.manual_seed(12)
    torch.rand(5)
    backwards = [select_clients(CLIENTS, 3, seed=1, round=round) for round in range(29, 0, -1)]
    assert before == backwards[::-1]
    other = [select_clients(CLIENTS, 3, seed=2, round=round) for round in range(1, 30)]
    assert other != before and len({tuple(drawn) for drawn in before}) > 15


def test_every_client_is_drawn_equally_often() -> None:
    rounds, count = 3000, 3
    turns = Counter(client for round in range(rounds) for client in select_clients(CLIENTS, count, 0, round))
    expected = rounds * count / len(CLIENTS)
    chi_square = sum((turns[client] - expected) ** 2 / expected for client in CLIENTS)
    assert chi_square < 26.1  # 8 degrees of freedom, 1 in 1000
