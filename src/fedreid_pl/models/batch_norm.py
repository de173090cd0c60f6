"""BatchNorm's state: its names in a state dict, and its running statistics estimated anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def norm_names(network: nn.Module) -> frozenset[str]:
    """Names of all parameters and buffers of BatchNorm layers in the network's state dict.

    >>> sorted(norm_names(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))))
    ['1.bias', '1.num_batches_tracked', '1.running_mean', '1.running_var', '1.weight']
    """
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name in module.state_dict()
    )


@torch.no_grad()
def average_statistics(networks: Iterable[nn.Module], reduce: Callable[[Tensor], Tensor]) -> None:
    """Replaces all buffers of floating point by their mean over processes, in one collective operation.

    Args:
        networks: the same ones in every process.
        reduce: the mean of a flat tensor over processes.
    """
    buffers = [value for network in networks for value in network.buffers() if value.is_floating_point()]
    mean = reduce(torch.cat([value.flatten() for value in buffers]))
    for value, part in zip(buffers, mean.split([value.numel() for value in buffers]), strict=True):
        value.copy_(part.view_as(value))


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimates every BatchNorm's running mean and variance anew, as the mean over batches of their statistics.

    Nothing else changes: dropout is off, parameters and the counters of batches stay as they are. Afterwards the
    network is in eval mode.

    Args:
        batches: normalised images `[B, 3, H, W]`, of at least two images each.

    Raises:
        ValueError: if there is no batch.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]  # type: ignore[union-attr, operator]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    seen = 0
    for images in batches:
        network(images)
        seen += 1
    for layer, (momentum, count) in zip(layers, before, strict=True):
        layer.momentum = momentum
        layer.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
        layer.eval()
    if not seen:
        raise ValueError("no images to estimate BatchNorm's statistics from")
