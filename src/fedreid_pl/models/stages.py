"""Temporary changes of the feature maps between the stages of a trunk, and checks that they are possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from fedreid_pl.config import ModelConfig
from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.trunks import Trunk, build_trunk


@contextmanager
def changing(stages: Sequence[nn.Module], changes: Sequence[Callable[[int, Tensor], Tensor]]) -> Iterator[None]:
    """Returns a context in which all `changes` are applied to the output maps of every stage.

    Each change is called with the number of the stage, from 0, and the maps. Neither the state dict of the network nor
    copies made after the context contain the changes.

    >>> import torch
    >>> stage = nn.Identity()
    >>> with changing([stage], [lambda number, maps: maps + 1]):
    ...     inside = stage(torch.zeros(1))
    >>> inside, stage(torch.zeros(1))
    (tensor([1.]), tensor([0.]))
    """

    def hook(number: int, module: nn.Module, inputs: object, maps: Tensor) -> Tensor:
        for change in changes:
            maps = change(number, maps)
        return maps

    handles = [stage.register_forward_hook(partial(hook, number)) for number, stage in enumerate(stages)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_stages(model: ModelConfig, compiled: str, callback: str, wanted: int = 1) -> None:
    """Raises an error if a callback cannot change the feature maps of a network.

    Args:
        model: the configuration of the network.
        compiled: value of `trainer.compile`; maps between the stages of a compiled trunk cannot be changed.
        callback: key of the callback, for the message.
        wanted: smallest number of residual stages that the network must have.

    Raises:
        FedReIDError: if the network has no stages or fewer than `wanted`, or if it is compiled.
    """
    check_not_compiled(compiled, callback)
    trunk = build_trunk(model.name, model.last_stride)
    first_stages(trunk, model.name, wanted, f"callbacks.{callback}.stages={wanted}")


def first_stages(trunk: Trunk, name: str, wanted: int, key: str = "model.snr_stages") -> tuple[nn.Module, ...]:
    """Returns the first residual stages of a trunk.

    Args:
        trunk: the network.
        name: name of the network, for messages.
        wanted: number of stages.
        key: option that needs the stages, for messages.

    Raises:
        FedReIDError: if the network has no stages or fewer than `wanted`.
    """
    stages = trunk.residual_stages()
    if not stages:
        raise FedReIDError(
            f"model.name={name}: {key.partition('=')[0]} works between residual stages, and those of this network are "
            "unknown; choose small, a ResNet or an OSNet"
        )
    if wanted > len(stages):
        shown = key if "=" in key else f"{key}={wanted}"
        raise FedReIDError(f"{shown}: {name} has only {len(stages)} residual stages")
    return stages[:wanted]


def check_not_compiled(compiled: str, callback: str) -> None:
    """Raises an error if the trunk is compiled and a callback changes its forward pass.

    Args:
        compiled: value of `trainer.compile`.
        callback: key of the callback, for the message.

    Raises:
        FedReIDError: if the trunk is compiled.
    """
    if compiled != "none":
        raise FedReIDError(
            f"trainer.compile={compiled}: callbacks.{callback} changes the forward pass of the trunk, which is "
            "impossible for a compiled trunk; set trainer.compile=none"
        )
