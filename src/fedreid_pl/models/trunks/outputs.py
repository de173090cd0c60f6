"""Trial runs of external networks: shape of their output, and errors for unusable output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedreid_pl.errors import FedReIDError


@torch.no_grad()
def tried(network: nn.Module, size: tuple[int, int], name: str) -> Tensor:
    """Returns the output of a network for one black image in eval mode.

    The function restores the mode of the network and the state of the random generators.

    Args:
        network: maps `[B, 3, H, W]` to a tensor.
        size: height and width of the image.
        name: name of the network in messages, such as `model.name=NAME`.

    Raises:
        FedReIDError: if the network cannot process an image of this size, or returns something else than a tensor.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            output = network(torch.zeros(1, 3, *size))
    except Exception as error:  # an external network may raise any exception
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise FedReIDError(
            f"{name}: cannot process an image of {size[0]} x {size[1]} pixels ({reason}); "
            "choose another data.height and data.width, or another network"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != 1:
        raise FedReIDError(f"{name}: returns {shown(output)} for one image; it must return one tensor [B, C, h, w]")
    return output


def shown(output: object) -> str:
    """Returns a description of a network's output for a message: the shape of a tensor, or the type.

    >>> shown(torch.zeros(1, 3)), shown({})
    ('[1, 3]', 'dict')
    """
    return str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__
