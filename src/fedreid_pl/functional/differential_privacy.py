"""Client-level differential privacy: clipping, Gaussian noise, and the epsilon that they give.

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
"""Orders of Renyi divergence to try; epsilon is the smallest result over these orders."""


def update_norm(sent: Mapping[str, Tensor], answer: Mapping[str, Tensor], names: Collection[str]) -> float:
    """Returns the L2 norm of `answer - sent` over all tensors in `names` together, computed in float64.

    >>> update_norm({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0]), "n": torch.tensor(9)}, ["w"])
    5.0
    """
    squares = [float((answer[name].double() - sent[name].double()).square().sum()) for name in names]
    return math.sqrt(math.fsum(squares))


def clip_update(
    sent: Mapping[str, Tensor], answer: Mapping[str, Tensor], names: Collection[str], clip: float
) -> dict[str, Tensor]:
    """Returns `sent + (answer - sent) * min(1, clip / norm)`: the update is scaled to at most the norm `clip`.

    An update of at most this norm is returned unchanged, bit for bit. A longer update is scaled in float64 and rounded
    to its dtype. Tensors that are not in `names` do not count for the norm and are returned unchanged.

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


def clipped_answers(
    sent: Mapping[str, Tensor],
    answers: Mapping[str, Mapping[str, Tensor]],
    names: Collection[str],
    clip: float,
    weights: Mapping[str, float],
) -> tuple[list[tuple[str, Mapping[str, Tensor]]], dict[str, float]]:
    """Returns clipped states and their weights, which add up to one, for `weighted_average`.

    The last state is `sent`, under the name `""`. It has the weight that the clients with an answer leave, or minus the
    weight by which they exceed one. So a client without an answer counts as a zero update. If all clients answer and
    their weights add up to one, this state is left out.

    Args:
        sent: state that the server sent.
        answers: state of each client that answered; the states have the same names.
        names: names of the parameters, as in `clip_update`.
        clip: largest norm of an update.
        weights: weight of each selected client.

    >>> sent, answers = {"w": torch.zeros(2)}, {"a": {"w": torch.tensor([3.0, 4.0])}}
    >>> clipped_answers(sent, answers, ["w"], clip=1.0, weights={"a": 0.25, "b": 0.75})
    ([('a', {'w': tensor([0.6000, 0.8000])}), ('', {'w': tensor([0., 0.])})], {'a': 0.25, '': 0.75})
    """
    states: list[tuple[str, Mapping[str, Tensor]]] = [
        (client, clip_update(sent, answer, names, clip)) for client, answer in answers.items()
    ]
    used = {client: weights[client] for client in answers}
    if used.keys() != weights.keys() or not math.isclose(sum(used.values()), 1.0):
        states.append(("", {name: sent[name] for name in next(iter(answers.values()))}))
        used[""] = 1.0 - math.fsum(used.values())
    return states, used


def add_noise(
    state: Mapping[str, Tensor], names: Collection[str], sigma: float, normal: Callable[[Sequence[int]], torch.Tensor]
) -> dict[str, Tensor]:
    """Returns the state with independent N(0, sigma^2) noise added to every number of the tensors in `names`.

    The noise is drawn in the order of the state. With `sigma=0` the state is returned unchanged, bit for bit, and no
    number is drawn.

    Args:
        state: tensors by name.
        names: names of the tensors that get noise.
        sigma: standard deviation of the noise.
        normal: returns standard normal float64 numbers of a given shape, as `SecretStream.normal` does.
    """
    if not sigma:
        return dict(state)
    noisy = dict(state)
    for name, value in state.items():
        if name in names:
            noisy[name] = (value.double() + sigma * normal(value.shape)).to(value.dtype)
    return noisy


def public_weights(sizes: Mapping[str, float], rate: float = 1.0) -> dict[str, float]:
    """Returns `p_k = n_k / (rate * sum n)`: the share of each client in the expected size of a round.

    The denominator is made of public numbers only and does not depend on which clients answer. With `rate=1` it is the
    sum over all clients that the server selected for the round. Under Poisson sampling it is the sum over all clients
    times the rate at which a client is drawn.

    >>> public_weights({"a": 1, "b": 3}), public_weights({"a": 1, "b": 3}, rate=0.5)
    ({'a': 0.25, 'b': 0.75}, {'a': 0.5, 'b': 1.5})
    """
    total = rate * math.fsum(sizes.values())
    return {client: size / total for client, size in sizes.items()}


def gaussian_epsilon(
    noise_multiplier: float, releases: int, delta: float, rate: float = 1.0, orders: Sequence[float] = ORDERS
) -> float:
    """Returns the epsilon of `releases` Gaussian mechanisms by the Renyi accountant of Opacus.

    Neighbouring data sets differ in one client that is added or removed (Mironov, Talwar and Zhang, 2019, for rates
    below one).

    Args:
        noise_multiplier: standard deviation of the noise divided by the largest change that one client can cause.
        releases: number of released models.
        delta: probability with which the bound may fail.
        rate: probability with which each client is drawn for a release, independently and in secret. 1 claims no
            amplification by sampling; the bound then also holds if the participants are known.
        orders: orders of Renyi divergence to try; the smallest epsilon is returned.

    Raises:
        ImportError: if opacus is not installed.
    """
    from opacus.accountants import RDPAccountant

    if not releases:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, rate, releases)]
    with warnings.catch_warnings():
        # Opacus warns if the best order is the first or the last one: the bound is then loose but still valid.
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, alphas=list(orders)))
