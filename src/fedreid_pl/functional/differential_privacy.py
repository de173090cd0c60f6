"""Client-level differential privacy: clipping, Gaussian noise, and what they are worth.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, Algorithm 1 (DP-FedAvg with
flat clipping).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

ORDERS = (*(1 + number / 10 for number in range(1, 100)), *range(11, 64), *(2**power for power in range(6, 14)))
"""Orders of Renyi divergence that are tried; the best one gives epsilon."""


def update_norm(sent: Mapping[str, Tensor], answer: Mapping[str, Tensor], names: Collection[str]) -> float:
    """L2 norm of `answer - sent` over all tensors of these names together, computed in float64.

    >>> update_norm({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0]), "n": torch.tensor(9)}, ["w"])
    5.0
    """
    squares = [float((answer[name].double() - sent[name].double()).square().sum()) for name in names]
    return math.sqrt(math.fsum(squares))


def clip_update(
    sent: Mapping[str, Tensor], answer: Mapping[str, Tensor], names: Collection[str], clip: float
) -> dict[str, Tensor]:
    """`sent + (answer - sent) * min(1, clip / norm)`: an update of at most the norm `clip`.

    One that is short enough comes back as it is, to the bit; a longer one is moved in float64 and rounded to its
    dtype. Tensors of other names are not looked at and come back as they are.

    >>> clip_update({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}, ["w"], clip=1.0)
    {'w': tensor([0.6000, 0.8000])}
    """
    norm = update_norm(sent, answer, names)
    if norm <= clip:
        return dict(answer)
    moved = {
        name: (sent[name].double() + (answer[name].double() - sent[name].double()) * (clip / norm)).to(
            answer[name].dtype
        )
        for name in names
    }
    return {**answer, **moved}


def add_noise(
    state: Mapping[str, Tensor], names: Collection[str], sigma: float, normal: Callable[[Sequence[int]], torch.Tensor]
) -> dict[str, Tensor]:
    """Adds independent N(0, sigma^2) to every number of the tensors of these names, in the order of the state.

    With `sigma=0` the same bits come back, and nothing is drawn.

    Args:
        state: tensors by name.
        names: of the tensors that get noise.
        sigma: standard deviation.
        normal: draws standard normal float64 numbers of a shape, as `SecretStream.normal` does.
    """
    if not sigma:
        return dict(state)
    noisy = dict(state)
    for name, value in state.items():
        if name in names:
            noisy[name] = (value.double() + sigma * normal(value.shape)).to(value.dtype)
    return noisy


def public_weights(sizes: Mapping[str, float], rate: float = 1.0) -> dict[str, float]:
    """`p_k = n_k / (rate * sum n)`: a client's share of what a round is expected to bring.

    The denominator is that of the numbers which are public, whoever answers: with `rate=1` those of all clients that
    the round asks, under Poisson sampling those of all clients times the rate at which a client is drawn.

    >>> public_weights({"a": 1, "b": 3}), public_weights({"a": 1, "b": 3}, rate=0.5)
    ({'a': 0.25, 'b': 0.75}, {'a': 0.5, 'b': 1.5})
    """
    total = rate * math.fsum(sizes.values())
    return {client: size / total for client, size in sizes.items()}


def gaussian_epsilon(
    noise_multiplier: float, releases: int, delta: float, rate: float = 1.0, orders: Sequence[float] = ORDERS
) -> float:
    """Epsilon of so many Gaussian mechanisms, by Opacus' accountant of Renyi divergences.

    Neighbours differ in one client that is added or removed (Mironov, Talwar and Zhang, 2019, for rates below one).

    Args:
        noise_multiplier: standard deviation of the noise over the most that one client can change.
        releases: how often a model was released.
        delta: probability with which the bound may fail.
        rate: probability with which each client is drawn for a release, independently and in secret; 1 claims no
            amplification by sampling and holds whether or not it is known who takes part.
        orders: of Renyi divergence, of which the best one counts.

    Raises:
        ImportError: without opacus.
    """
    from opacus.accountants import RDPAccountant

    if not releases:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, rate, releases)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the best order is the first or the last: the bound is loose, and holds
        return float(accountant.get_epsilon(delta, alphas=list(orders)))
