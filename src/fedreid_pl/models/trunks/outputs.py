"""What somebody else's network gives for an image, brought into the form of feature maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedreid_pl.errors import FedReIDError


@torch.no_grad()
def tried(network: nn.Module, size: tuple[int, int], name: str) -> Tensor:
    """Returns what a network gives for one black image, in eval mode; the network's mode and draws stay as they are.

    Args:
        network: maps `[B, 3, H, W]` to a tensor.
        size: height and width of the image.
        name: how a message names the network, such as `model.name=NAME`.

    Raises:
        FedReIDError: if the network cannot take an image of this size, or gives something else than a tensor.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            output = network(torch.zeros(1, 3, *size))
    except Exception as error:  # whatever the network's author raises
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise FedReIDError(
            f"{name}: cannot take an image of {size[0]} x {size[1]} pixels ({reason}); "
            "choose another data.height and data.width, or another network"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != 1:
        raise FedReIDError(f"{name}: gives {shown(output)} for one image; give a network with one tensor [B, C, h, w]")
    return output


def shown(output: object) -> str:
    """Returns a network's output for a message: its shape, or its type.

    >>> shown(torch.zeros(1, 3)), shown({})
    ('[1, 3]', 'dict')
    """
    return str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__
