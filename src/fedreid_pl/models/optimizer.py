"""SGD over a client's networks: learning rates by parameter, and momentum that continues in the next turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedreid_pl.config import OptimConfig
from fedreid_pl.models.clones import Clones
from fedreid_pl.models.weights import copied


def parameter_groups(backbone: nn.Module, head: nn.Module, clones: Clones, optim: OptimConfig) -> list[dict[str, Any]]:
    """Returns the parameter groups of the optimizer, each with its learning rate as `lr` and as `base_lr`.

    The order is: backbone, head, bottleneck (with `optim.bottleneck=head`), trainable copies, layers of callbacks.

    Args:
        backbone, head: the client's networks.
        clones: additional networks of the turn.
        optim: learning rates of the backbone and of the head.
    """
    first, *rest = _of_backbone(backbone, optim)
    groups = [first, _of_head(head, optim), *rest]
    for clone, source in clones.trained:
        groups += _of_backbone(clone, optim) if source is backbone else [_of_head(clone, optim)]
    groups += [{"params": list(layers.parameters()), "lr": rate} for layers, rate in clones.attached]
    for group in groups:
        group["base_lr"] = group["lr"]
    return groups


def build_sgd(groups: list[dict[str, Any]], optim: OptimConfig, fused: bool) -> torch.optim.SGD:
    """Returns a new SGD optimizer with the momentum and the weight decay of a configuration."""
    return torch.optim.SGD(
        groups, momentum=optim.momentum, weight_decay=optim.weight_decay, nesterov=optim.nesterov, fused=fused
    )


def momentum_of(optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Returns copies of SGD's momentum buffers by parameter name; parameters without a step are left out."""
    found = {name: optimizer.state.get(value, {}).get("momentum_buffer") for name, value in named}
    return copied({name: value for name, value in found.items() if value is not None})


def restore_momentum(
    optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, Tensor]], momentum: Mapping[str, Tensor]
) -> None:
    """Restores the buffers of `momentum_of`; parameters without an entry start with zero momentum."""
    for name, value in named:
        if name in momentum:
            optimizer.state[value]["momentum_buffer"] = momentum[name].to(value)


def _of_backbone(backbone: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    bottleneck: list[nn.Parameter] = []
    if optim.bottleneck == "head":
        bottleneck = list(backbone.bottleneck.parameters())  # type: ignore[union-attr]
    apart = set(bottleneck)
    rest = [value for value in backbone.parameters() if value not in apart]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": optim.lr_backbone}]
    return [*groups, {"params": bottleneck, "lr": optim.lr_head}] if bottleneck else groups


def _of_head(head: nn.Module, optim: OptimConfig) -> dict[str, Any]:
    return {"params": list(head.parameters()), "lr": optim.lr_head}
