"""MOON's model-contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def model_contrastive_loss(z: Tensor, z_global: Tensor, z_previous: Tensor, temperature: float = 0.5) -> Tensor:
    """Returns the mean over images of `-log(exp(s_g / tau) / (exp(s_g / tau) + exp(s_p / tau)))`.

    s_g is the cosine similarity of z and z_global, s_p that of z and z_previous. Li, He and Song, "Model-Contrastive
    Federated Learning", CVPR 2021, Eq. 3, without its weight mu. The loss is computed as softplus((s_p - s_g) / tau),
    which cannot overflow.

    Args:
        z: `[B, D]`, embeddings of the model in training, of any floating-point dtype.
        z_global: `[B, D]`, embeddings of the same images by the global model; gets no gradient.
        z_previous: `[B, D]`, embeddings by the model of the client's last turn; gets no gradient.
        temperature: tau, above zero; 0.5 in the paper.

    Returns:
        A scalar, at least 0; float64 for float64 embeddings, float32 otherwise.

    Raises:
        ValueError: if the shapes differ or are not `[B, D]`.

    >>> z = torch.tensor([[1.0, 0.0]])
    >>> model_contrastive_loss(z, z, z)  # log 2: both are equally similar
    tensor(0.6931)
    """
    if z.dim() != 2 or not z.shape == z_global.shape == z_previous.shape:
        shapes = [tuple(value.shape) for value in (z, z_global, z_previous)]
        raise ValueError(f"expected three equal shapes [B, D], got {shapes}")
    dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
    wide, towards, away = z.to(dtype), z_global.detach().to(dtype), z_previous.detach().to(dtype)
    difference = F.cosine_similarity(wide, away, dim=1) - F.cosine_similarity(wide, towards, dim=1)
    return F.softplus(difference / temperature).mean()
