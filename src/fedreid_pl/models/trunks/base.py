"""What every trunk offers to the backbone around it."""

from __future__ import annotations

from torch import Tensor, nn

from fedreid_pl.errors import FedReIDError


class Trunk(nn.Module):
    """A network without its pooling and its classifier: images `[B, 3, H, W]` -> feature maps `[B, C, h, w]`.

    Attributes:
        out_channels: size of the pooled feature after `finish`.
    """

    out_channels: int

    @property
    def stage_prefixes(self) -> tuple[tuple[str, ...], ...]:
        """Beginnings of the entries' names, stage by stage from the images on; the first stage is the stem.

        Entries behind the pooling (`finish`) belong to no stage. Empty for a network whose stages are not known here.
        """
        return ()

    def finish(self, pooled: Tensor) -> Tensor:
        """Returns the trunk's feature `[B, out_channels]` of the pooled feature maps `[B, C]`.

        Most trunks return their argument. ConvNeXt has a LayerNorm behind its pooling, OSNet a fully connected layer.
        """
        return pooled

    def adapted(self, tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
        """Returns a file's tensors under this trunk's names and in its shapes, and what was changed, for a message.

        Args:
            tensors: of a weights file, under any prefix.
            source: how a message names the file.

        Raises:
            FedReIDError: if a tensor cannot be brought into this trunk's shape.
        """
        return tensors, []

    def residual_stages(self) -> tuple[nn.Module, ...]:
        """The modules of the trunk's residual stages, first to last; empty if the network is not made of any."""
        return ()

    @property
    def named(self) -> nn.Module:
        """The module whose names are those of published weights files."""
        return self


def refuse_last_stride(name: str, last_stride: int) -> None:
    """Refuses a last stride other than the usual one for a network in which it cannot be set.

    Raises:
        FedReIDError: naming the network.
    """
    if last_stride != 2:
        raise FedReIDError(
            f"model.last_stride={last_stride}: cannot be set for model.name={name}, only for ResNets, small and "
            "mobilenet_v2; leave it out"
        )


def refuse_patch_stride(name: str, patch_stride: int | None) -> None:
    """Refuses a stride of patches for a network without patches.

    Raises:
        FedReIDError: naming the network.
    """
    if patch_stride is not None:
        raise FedReIDError(
            f"model.patch_stride={patch_stride}: can be set for ViTs of timm only, not for model.name={name}; "
            "leave it out"
        )
