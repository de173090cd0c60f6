"""The dual causality loss of SNR, in the form that compares entropies."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.functional.dacs import mean_entropy


def causality_loss(kept: Tensor, normal: Tensor, dropped: Tensor, least: float = 0.0) -> Tensor:
    """Returns `softplus(H(kept) - H(normal)) + softplus(H(normal) - H(dropped))`, H being the batch's mean entropy.

    The loss is small if the logits with the restituted part (`kept`) are more certain than the logits of the normalised
    features (`normal`), and the logits with the removed part (`dropped`) are less certain. The published code of DACS
    (Yang et al., AAAI 2024) has this form of the dual causality loss of SNR (Jin et al., CVPR 2020).

    Args:
        kept, normal, dropped: logits `[B, identities]` of the three features.
        least: smaller probabilities are left out of the entropy; 1e-6 in the published code of DACS.

    >>> import torch
    >>> causality_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    tensor(1.3863)
    """
    first, second, third = (mean_entropy(logits, least) for logits in (kept, normal, dropped))
    return F.softplus(first - second) + F.softplus(second - third)
