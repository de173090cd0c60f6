"""The base class of trunks: the interface that a backbone uses."""

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
        """Prefixes of entry names for every stage, from input to output; the first stage is the stem.

        Layers after the pooling (`finish`) belong to no stage. Empty if the stages of the network are unknown.
        """
        return ()

    def finish(self, pooled: Tensor) -> Tensor:
        """Returns the trunk's feature `[B, out_channels]`, given the pooled feature maps `[B, C]`.

        Most trunks return the argument. ConvNeXt has a LayerNorm after its pooling, OSNet a fully connected layer.
        """
        return pooled

    def adapted(self, tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
        """Returns the tensors of a file with this trunk's names and shapes, and the list of changes for a message.

        Args:
            tensors: tensors of a weights file, with any prefix.
            source: name of the file in messages.

        Raises:
            FedReIDError: if a tensor cannot be converted to the shape in this trunk.
        """
        return tensors, []

    def residual_stages(self) -> tuple[nn.Module, ...]:
        """Returns the modules of the residual stages, first to last; empty if the network has none."""
        return ()

    @property
    def named(self) -> nn.Module:
        """The module whose state dict has the names of published weights files."""
        return self


def refuse_last_stride(name: str, last_stride: int) -> None:
    """Raises an error for `last_stride` other than 2, for a network in which this stride cannot be set.

    Raises:
        FedReIDError: if `last_stride` is not 2.
    """
    if last_stride != 2:
        raise FedReIDError(
            f"model.last_stride={last_stride}: cannot be set for model.name={name}, only for ResNets, small and "
            "mobilenet_v2; leave it out"
        )


def refuse_patch_stride(name: str, patch_stride: int | None) -> None:
    """Raises an error if `patch_stride` is given for a network without patches.

    Raises:
        FedReIDError: if `patch_stride` is not `None`.
    """
    if patch_stride is not None:
        raise FedReIDError(
            f"model.patch_stride={patch_stride}: can be set for ViTs of timm only, not for model.name={name}; "
            "leave it out"
        )
