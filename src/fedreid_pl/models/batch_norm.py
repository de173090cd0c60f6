"""The state of BatchNorm layers: names in the state dict, averaging and recalibration of running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def norm_names(network: nn.Module) -> frozenset[str]:
    """Returns the names of all parameters and buffers of BatchNorm layers in the network's state dict.

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
    """Replaces all floating-point buffers by their mean over processes, in one collective operation.

    Args:
        networks: the same networks in every process.
        reduce: returns the mean of a flat tensor over processes.
    """
    buffers = [value for network in networks for value in network.buffers() if value.is_floating_point()]
    mean = reduce(torch.cat([value.flatten() for value in buffers]))
    for value, part in zip(buffers, mean.split([value.numel() for value in buffers]), strict=True):
        value.copy_(part.view_as(value))


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recomputes the running mean and variance of every BatchNorm layer as the mean of the statistics of the batches.

    Parameters and batch counters do not change, and dropout is off. Afterwards the network is in eval mode.

    Args:
        network: the network with the BatchNorm layers.
        batches: batches of normalised images `[B, 3, H, W]`, each with at least two images.

    Raises:
        ValueError: if there is no batch.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]  # type: ignore[union-attr, operator]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch then computes the mean over all batches
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
        raise ValueError("there are no images from which BatchNorm statistics can be computed")
