"""The losses of DACS: distance of a learned style from the images' style, and uncertainty of two models about it.

Yang et al., "Diversity-Authenticity Co-constrained Stylization for Federated Domain Generalization in Person
Re-identification", AAAI 2024.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.functional.mixstyle import instance_statistics


def transform(images: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-8) -> Tensor:
    """Returns `x' = s * (x - mu(x)) / (sigma(x) + eps) + m`.

    Args:
        images: x, `[B, 3, H, W]` float.
        shift, scale: m and s, `[3, H, W]`: one number for every pixel.
        eps: added to the population deviation of every image's channels.

    >>> transform(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[0.5, 0.0]]]), torch.tensor([[[2.0, 1.0]]]), eps=0.0)
    tensor([[[[-1.5000,  1.0000]]]])
    """
    mean, deviation = instance_statistics(images, 0.0)
    return (scale * ((images - mean) / (deviation + eps)) + shift).to(images.dtype)


def style_distance(
    images: Tensor, shift: Tensor, scale: Tensor, of: Literal["deviation", "variance"] = "deviation"
) -> Tensor:
    """Returns the distance of the learned style from the images' style: mean of `(mu - m)^2` + mean of `(sigma - s)^2`.

    L_div of the paper is the negative of this distance. As in the published code, means over images, channels and
    positions replace the norms of the paper.

    Args:
        images: `[B, 3, H, W]` float.
        shift, scale: m and s, `[3, H, W]`, with gradients.
        of: `deviation` uses `(sigma - s)^2` as in the paper; `variance` uses `(sigma^2 - s^2)^2` as in the published
            code.

    Returns:
        A scalar of at least 0.

    >>> style_distance(torch.tensor([[[[1.0, 3.0]]]]), torch.zeros(1, 1, 2), torch.tensor([[[1.0, 2.0]]]))
    tensor(4.5000)
    """
    mean, deviation = instance_statistics(images, 0.0)
    own, other = (deviation, scale) if of == "deviation" else (deviation.square(), scale.square())
    return (mean - shift).square().mean() + (own - other).square().mean()


def mean_entropy(logits: Tensor, least: float = 0.0) -> Tensor:
    """Returns the mean entropy `-sum p log p` of softmax over the classes, a scalar in nats.

    Args:
        logits: `[B, C]` float.
        least: smaller probabilities are left out of the sum; 1e-6 in the published code.

    >>> mean_entropy(torch.zeros(2, 4))
    tensor(1.3863)
    """
    logs = logits.log_softmax(1)
    parts = torch.where(logs.exp() >= least, logs.exp() * logs, 0.0) if least else logs.exp() * logs
    return -parts.sum(1).mean()


def authenticity_loss(own: Tensor, view: Tensor, expert: Tensor, least: float = 0.0) -> Tensor:
    """Returns L_au: `softplus(H(g(x)) - H(g(x'))) + softplus(H(g(x')) - H(l(x')))`, H being the batch's mean entropy.

    The loss is small if the global model g is less certain about the transformed images than about the original
    images, and the local expert l is even less certain about the transformed images.

    Args:
        own, view: logits of g on x and on x', `[B, C]`.
        expert: logits of l on x', `[B, C]`.
        least: as in `mean_entropy`.

    >>> authenticity_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    tensor(1.3863)
    """
    first, second, third = (mean_entropy(logits, least) for logits in (own, view, expert))
    return F.softplus(first - second) + F.softplus(second - third)
