"""Networks of the library timm as trunks: `model.name=timm:NAME`."""

from __future__ import annotations

import math
import re
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fedreid_pl.errors import FedReIDError, nearest
from fedreid_pl.models.trunks.base import Trunk, refuse_last_stride, refuse_patch_stride
from fedreid_pl.models.trunks.outputs import shown, tried

PREFIX = "timm:"
REBUILT = ("attn_mask", "relative_position_index")
"""Suffixes of tensors in files of older programs; timm computes these tensors from the image size."""


class TimmTrunk(Trunk):
    """A network of timm: `[B, 3, H, W]` -> `[B, C, h, w]`, or `[B, C, 1, 1]` if timm pools (`pooling="auto"`).

    With `pooling="auto"` the feature is the input of timm's classifier: the class token of a ViT, and for most other
    networks the average over positions, including the norm that follows. Otherwise the trunk returns the map over
    positions without class tokens, and the backbone pools it. DropPath is off, because its draws would depend on the
    number of processes.

    Args:
        name: name in timm, without a tag of pretrained weights.
        size: height and width of the images; they determine the position embedding of a ViT.
        last_stride: must be 2.
        patch_stride: pixels between the centres of a ViT's patches. With a stride below the patch size, patches overlap
            (He et al., "TransReID", ICCV 2021, Section 3.1). `None` uses the size of a patch.
        pooling: `auto`, or the pooling of the backbone.

    Raises:
        FedReIDError: if timm is not installed or has no such network, or if the network cannot process such images.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        last_stride: int = 2,
        patch_stride: int | None = None,
        pooling: str = "auto",
    ) -> None:
        super().__init__()
        full = PREFIX + name
        refuse_last_stride(full, last_stride)
        self.network = _created(_library(), name, size, {} if pooling == "auto" else {"global_pool": ""})
        for module in self.network.modules():
            if type(module).__name__ == "DropPath":
                module.drop_prob = 0.0  # type: ignore[assignment]
        if patch_stride is not None:
            _overlap(self.network, full, size, patch_stride)
        output = tried(self.network, size, f"model.name={full}")
        self.channels_at = _channels_at(output, self.network, full)
        self.out_channels = output.shape[self.channels_at]

    def forward(self, images: Tensor) -> Tensor:
        """Returns feature maps `[B, C, h, w]`, or pooled features `[B, C, 1, 1]`, of images `[B, 3, H, W]`."""
        output = self.network(images)
        if output.dim() == 2:
            return output[:, :, None, None]
        if output.dim() == 3:
            height, width = self.network.patch_embed.grid_size  # type: ignore[union-attr, misc]
            tokens = output[:, output.shape[1] - height * width :]  # class and register tokens come first
            return tokens.transpose(1, 2).unflatten(2, (height, width))
        return output if self.channels_at == 1 else output.permute(0, 3, 1, 2)

    @property
    def named(self) -> nn.Module:
        """timm's network."""
        return self.network

    def adapted(self, tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
        """Returns the tensors with new names for older Swin files and a resized position embedding, and the changes."""
        wanted = self.network.state_dict()
        notes: list[str] = []
        if any(key.endswith("layers.0.downsample.norm.weight") for key in tensors) and "layers.0" in _stages(wanted):
            tensors = {_swin(key): value for key, value in tensors.items() if not key.endswith(REBUILT)}
            notes.append("Swin's layers between stages renamed as in timm")
        own = wanted.get("pos_embed")
        if own is None or own.dim() != 3:
            return tensors, notes
        changed = dict(tensors)
        for key, value in tensors.items():
            if key.rpartition(".")[2] != "pos_embed" or value.dim() != 3 or value.shape[1] == own.shape[1]:
                continue
            if value.shape[2] == own.shape[2]:
                changed[key], note = self._resized(value, own.shape[1], f"{source}: '{key}'")
                notes.append(note)
        return changed, notes

    def _resized(self, embedding: Tensor, tokens: int, where: str) -> tuple[Tensor, str]:
        from timm.layers import resample_abs_pos_embed

        grid = tuple(self.network.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
        prefix = tokens - grid[0] * grid[1]
        old = _grid(embedding.shape[1] - prefix)
        if old is None:
            raise FedReIDError(
                f"{where} has {embedding.shape[1]} tokens, which form neither a square nor a 2:1 grid; set "
                "data.height, data.width and model.patch_stride to the values with which the file was trained"
            )
        resized = resample_abs_pos_embed(embedding, list(grid), list(old), num_prefix_tokens=prefix)
        return resized, f"the position embedding resized from {old[0]} x {old[1]} to {grid[0]} x {grid[1]}"


def pretrained_state(name: str) -> dict[str, Tensor]:
    """Downloads the pretrained weights of a network in timm and returns their state dict.

    Raises:
        Exception: timm and its hub raise various exceptions if there are no weights or no internet connection.
    """
    return _library().create_model(name, pretrained=True, num_classes=0).state_dict()


def _library() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise FedReIDError("model.name=timm:NAME needs timm: pip install 'fedreid-pl[timm]'") from error
    return timm


def _created(timm: Any, name: str, size: tuple[int, int], options: dict[str, str]) -> Any:
    """Returns a network of timm for images of the given size."""
    if not re.fullmatch(r"\w+", name, re.ASCII) or not timm.is_model(name):
        raise FedReIDError(f"model.name={PREFIX}{name}: timm has no such network{nearest(name, timm.list_models())}")
    try:
        try:
            return timm.create_model(name, num_classes=0, img_size=size, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(name, num_classes=0, **options)
    except Exception as error:  # the network does not support the size or an option
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise FedReIDError(
            f"model.name={PREFIX}{name}: cannot be built for images of {size[0]} x {size[1]} pixels ({reason})"
        ) from error


def _overlap(network: Any, name: str, size: tuple[int, int], stride: int) -> None:
    """Sets the stride of a ViT's patches and resizes its position embedding to the new number of patches."""
    from timm.layers import PatchEmbed, resample_abs_pos_embed

    embed: Any = getattr(network, "patch_embed", None)
    positions: Any = getattr(network, "pos_embed", None)
    plain = isinstance(embed, PatchEmbed) and isinstance(positions, nn.Parameter) and positions.dim() == 3
    if not plain or getattr(network, "rope", None) is not None or getattr(network, "rel_pos_bias", None) is not None:
        refuse_patch_stride(name, stride)
    patch = embed.patch_size
    if stride > min(patch):
        raise FedReIDError(f"model.patch_stride={stride}: must be at most the size of a patch, {min(patch)}")
    old = embed.grid_size
    grid = ((size[0] - patch[0]) // stride + 1, (size[1] - patch[1]) // stride + 1)
    prefix = positions.shape[1] - old[0] * old[1]
    embed.proj.stride, embed.grid_size, embed.num_patches = (stride, stride), grid, grid[0] * grid[1]
    with torch.no_grad():
        resized = resample_abs_pos_embed(positions, list(grid), list(old), num_prefix_tokens=prefix)
    network.pos_embed = nn.Parameter(resized.clone())


def _channels_at(output: Tensor, network: Any, name: str) -> int:
    """Returns the dimension of the channels in the output of a network."""
    if output.dim() == 2:
        return 1
    if output.dim() == 3:
        grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
        if grid is not None and output.shape[1] >= math.prod(grid):
            return 2
    if output.dim() == 4:
        if str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC"):
            return 3
        features = getattr(network, "head_hidden_size", None) or network.num_features
        return 3 if output.shape[1] != features and output.shape[3] == features else 1
    raise FedReIDError(
        f"model.name={name}: returns {shown(output)} instead of a map over positions; set model.pooling=auto"
    )


def _grid(tokens: int) -> tuple[int, int] | None:
    """Returns height and width of a grid of `tokens` tokens, if it is a square or twice as high as wide."""
    for ratio in (1, 2):
        width = math.isqrt(tokens // ratio) if tokens > 0 else 0
        if width and ratio * width * width == tokens:
            return ratio * width, width
    return None


def _stages(names: Any) -> set[str]:
    return {".".join(name.split(".")[:2]) for name in names}


def _swin(key: str) -> str:
    """Returns timm's name of a Swin tensor: in timm, a layer between stages belongs to the later stage."""
    found = re.fullmatch(r"(.*layers\.)(\d)(\.downsample\..*)", key)
    return f"{found[1]}{int(found[2]) + 1}{found[3]}" if found else key
