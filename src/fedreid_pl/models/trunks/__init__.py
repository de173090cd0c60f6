"""Trunks by the value of `model.name`; a trunk is the part of a ReID backbone before the global pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fedreid_pl.config.trusted import is_import_path
from fedreid_pl.errors import FedReIDError, nearest
from fedreid_pl.models.trunks.base import Trunk, refuse_patch_stride
from fedreid_pl.models.trunks.imported import ImportedTrunk
from fedreid_pl.models.trunks.osnet import NAMES as OSNETS
from fedreid_pl.models.trunks.osnet import OSNetTrunk
from fedreid_pl.models.trunks.outputs import tried
from fedreid_pl.models.trunks.resnet import DEPTHS, ResNetIBNTrunk, ResNetTrunk
from fedreid_pl.models.trunks.small import SmallResNet
from fedreid_pl.models.trunks.timm_nets import PREFIX, TimmTrunk
from fedreid_pl.models.trunks.torchvision_nets import CONVNEXTS, ConvNeXtTrunk, MobileNetV2Trunk

__all__ = ["SIZE", "TRUNKS", "ResNetTrunk", "SmallResNet", "Trunk", "build_trunk", "is_known"]

SIZE = (256, 128)
"""Default height and width of the images in pixels."""

SMALL = 64
"""All trunks accept images of at least this height and width in pixels; smaller sizes are tried out."""

TRUNKS: dict[str, Callable[[int], Trunk]] = {
    "small": SmallResNet,
    **{name: partial(ResNetTrunk, name) for name in DEPTHS},
    **{f"{name}_ibn_a": partial(ResNetIBNTrunk, f"{name}_ibn_a") for name in DEPTHS},
    "mobilenet_v2": MobileNetV2Trunk,
    **{name: partial(ConvNeXtTrunk, name) for name in CONVNEXTS},
    **{name: partial(OSNetTrunk, name) for name in OSNETS},
}
"""Trunks of this package by name: functions of the last stride."""


def build_trunk(
    name: str,
    last_stride: int = 2,
    size: tuple[int, int] = SIZE,
    patch_stride: int | None = None,
    pooling: str = "auto",
) -> Trunk:
    """Returns the trunk with the given name, randomly initialised.

    Args:
        name: one of `TRUNKS`, `timm:NAME`, or an import path `package.module:callable`.
        last_stride: stride of the last stage, 2 or 1.
        size: height and width of the images.
        patch_stride: pixels between the centres of a ViT's patches; `None` uses the size of a patch.
        pooling: `auto` lets a network of timm do its own pooling.

    Raises:
        FedReIDError: if the name is unknown, a stride is neither 1 nor 2, an option has no effect on the trunk, or the
            images are too small for it.
    """
    if last_stride not in (1, 2):
        raise FedReIDError(f"model.last_stride={last_stride}: must be 1 or 2")
    if name.startswith(PREFIX):
        return TimmTrunk(name.removeprefix(PREFIX), size, last_stride, patch_stride, pooling)
    refuse_patch_stride(name, patch_stride)
    if is_import_path(name):
        return ImportedTrunk(name, size, last_stride)
    if name not in TRUNKS:
        raise FedReIDError(f"model.name={name}: no such backbone{nearest(name, list(TRUNKS))}")
    trunk = TRUNKS[name](last_stride)
    if min(size) < SMALL:
        tried(trunk, size, f"model.name={name}")
    return trunk


def is_known(name: str) -> bool:
    """Returns whether a value of `model.name` has a valid form: a name of `TRUNKS`, `timm:NAME` or an import path."""
    return name in TRUNKS or name.startswith(PREFIX) or is_import_path(name)
