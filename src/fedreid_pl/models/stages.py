"""Feature maps between the stages of a trunk, changed within one forward pass and nowhere else."""

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
    """Within it, the maps of every stage go through all `changes`, each called with the stage's number from 0.

    Nothing of it is in the network's state dict or in copies that are made afterwards.

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
    """Refuses a network whose feature maps a callback cannot change.

    Args:
        model: the network.
        compiled: `trainer.compile`: a compiled trunk does not stop between its stages.
        callback: its key, for the message.
        wanted: residual stages that the network must have at least.

    Raises:
        FedReIDError: for a network without stages, with fewer than `wanted`, or a compiled one.
    """
    check_not_compiled(compiled, callback)
    trunk = build_trunk(model.name, model.last_stride)
    first_stages(trunk, model.name, wanted, f"callbacks.{callback}.stages={wanted}")


def first_stages(trunk: Trunk, name: str, wanted: int, key: str = "model.snr_stages") -> tuple[nn.Module, ...]:
    """Returns the first residual stages of a trunk.

    Args:
        trunk: the network.
        name: of the network, for messages.
        wanted: how many stages.
        key: the option that wants them, for messages.

    Raises:
        FedReIDError: for a network without stages, or with fewer than `wanted`.
    """
    stages = trunk.residual_stages()
    if not stages:
        raise FedReIDError(
            f"model.name={name}: {key.partition('=')[0]} works between residual stages, which this network does not "
            "name; choose small, a ResNet or an OSNet"
        )
    if wanted > len(stages):
        shown = key if "=" in key else f"{key}={wanted}"
        raise FedReIDError(f"{shown}: {name} has {len(stages)} residual stages")
    return stages[:wanted]


def check_not_compiled(compiled: str, callback: str) -> None:
    """Refuses a compiled trunk for a callback that runs the trunk in another way than a training step does.

    Args:
        compiled: `trainer.compile`.
        callback: its key, for the message.

    Raises:
        FedReIDError: if a trunk is compiled.
    """
    if compiled != "none":
        raise FedReIDError(
            f"trainer.compile={compiled}: callbacks.{callback} reaches into the forward pass of the trunk, which a "
            "compiled trunk does not allow; set trainer.compile=none"
        )
