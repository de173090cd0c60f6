"""A user's own network as a trunk: `model.name=package.module:callable`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from torch import Tensor, nn

from fedreid_pl.config.trusted import is_trusted
from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.trunks.base import Trunk, refuse_last_stride
from fedreid_pl.models.trunks.outputs import shown, tried


class ImportedTrunk(Trunk):
    """A network that a user's callable returns: `[B, 3, H, W]` -> `[B, C, h, w]`, or `[B, C]` if it pools itself.

    The callable is called without arguments, under the seed of the run. Python searches the working directory for the
    module too.

    Args:
        path: `package.module:callable`. Only paths from this command line or from the user's own file are imported.
        size: height and width of the images.
        last_stride: must be 2.

    Raises:
        FedReIDError: if the path is from an untrusted source, if it cannot be imported, or if the callable returns
            something else than such a network.
    """

    def __init__(self, path: str, size: tuple[int, int], last_stride: int = 2) -> None:
        super().__init__()
        refuse_last_stride(path, last_stride)
        name = f"model.name={path}"
        if not is_trusted(path):
            raise FedReIDError(
                f"{name}: is an import path in a run's folder or in a message, and no code is loaded from there; if "
                f"you trust the path, add {name} to the command"
            )
        build = _found(path, name)
        try:
            network = build()
        except Exception as error:  # the user's code may raise any exception
            raise FedReIDError(f"{name}: raises {type(error).__name__} ({_reason(error)})") from error
        if not isinstance(network, nn.Module):
            raise FedReIDError(f"{name}: returns {type(network).__name__}, no torch.nn.Module")
        output = tried(network, size, name)
        if output.dim() not in (2, 4) or not list(network.parameters()):
            raise FedReIDError(
                f"{name}: returns {shown(output)} for one image and has {len(list(network.parameters()))} parameters; "
                "a backbone must have parameters and return [B, C, h, w] or [B, C]"
            )
        self.network = network
        self.out_channels = output.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Returns feature maps `[B, C, h, w]` of images `[B, 3, H, W]`."""
        output = self.network(images)
        return output if output.dim() == 4 else output[:, :, None, None]

    @property
    def named(self) -> nn.Module:
        """The user's network."""
        return self.network


def _found(path: str, name: str) -> Any:
    """Returns the callable at an import path."""
    module, _, attribute = path.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's code may raise any exception
        raise FedReIDError(f"{name}: cannot be imported ({_reason(error)})") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise FedReIDError(f"{name}: is {type(found).__name__}, no function or class")
    return found


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
