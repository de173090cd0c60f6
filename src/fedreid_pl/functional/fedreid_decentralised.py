"""The expert of decentralised FedReID: its initial weights and its distillation loss.

Wu and Gong, "Decentralised Learning from Independent Multi-Domain Labels for Person Re-Identification", AAAI 2021.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def start_of_expert(
    received: Mapping[str, Tensor],
    expert: Mapping[str, Tensor],
    alpha: float,
    noise: float = 0.0,
    noisy: Collection[str] = (),
    draws: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Returns `(1 - alpha) g + alpha e + noise * N(0, 1)`, the expert at the start of a client's turn.

    Args:
        received: g by name.
        expert: e of the client's last turn, with the same names and shapes. Integer entries (counters) are copied
            from g.
        alpha: share of the expert, from 0 (the received model) to 1 (the expert of the last turn).
        noise: standard deviation of the noise.
        noisy: names of the entries that get noise.
        draws: generator of the noise, on the CPU.

    Raises:
        ValueError: if the names differ.

    >>> start_of_expert({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}, alpha=0.25)
    {'w': tensor([1.5000])}
    """
    if received.keys() != expert.keys():
        raise ValueError(f"model and expert have different names, e.g. {min(received.keys() ^ expert.keys())}")
    mixed = {}
    for name, value in received.items():
        if not value.is_floating_point():
            mixed[name] = value.clone()
            continue
        mixed[name] = (1 - alpha) * value + alpha * expert[name].to(value)
        if noise and name in noisy:
            mixed[name] += noise * torch.randn(value.shape, generator=draws).to(value)
    return mixed


def expert_divergence(expert_logits: Tensor, logits: Tensor, temperature: float = 3.0) -> Tensor:
    """Returns the mean over images of `T^2 KL(softmax(z_e / T) || softmax(z / T))`.

    The expert is the target and gets no gradient. The factor T^2 makes the size of the gradient about the same for
    every T (Hinton et al., 2015).

    Args:
        expert_logits: z_e, `[B, identities]`.
        logits: z, `[B, identities]`.
        temperature: T, above zero.

    Returns:
        A scalar, at least 0; float64 for float64 logits, float32 otherwise.

    Raises:
        ValueError: if the shapes differ.

    >>> expert_divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 3.0]]))
    tensor(0.)
    """
    if expert_logits.shape != logits.shape or logits.dim() != 2:
        raise ValueError(
            f"expected two equal shapes [B, identities], got {tuple(expert_logits.shape)} and {tuple(logits.shape)}"
        )
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    target = F.log_softmax(expert_logits.detach().to(dtype) / temperature, dim=1)
    scores = F.log_softmax(logits.to(dtype) / temperature, dim=1)
    divergence = F.kl_div(scores, target, reduction="batchmean", log_target=True)
    return divergence.clamp(min=0.0) * temperature**2  # rounding can make the divergence slightly negative
