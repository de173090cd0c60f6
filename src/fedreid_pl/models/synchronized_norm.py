"""BatchNorm over the images of all processes, on any device, and the plugin that enables it during a fit."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.plugins import LayerSync
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.batch_part import current_part


class SynchronizedNorm(_BatchNorm):
    """BatchNorm with statistics over all processes, like torch's SyncBatchNorm, but on the CPU too.

    The layer synchronises in training mode if `working_on` has set a part of a batch. Parts may have unequal sizes.
    Otherwise it is a plain BatchNorm: in eval mode, and for a batch that every process computes completely.

    `NormSync` converts a BatchNorm to this class and back by replacing its `__class__`. The module, its parameters and
    its buffers stay the same objects with the same names, so optimizers and hooks still work.
    """

    # Attributes that `SyncBatchNorm.forward` needs. This is no subclass, because DDP rejects SyncBatchNorm on the CPU.
    process_group = None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels  # type: ignore[misc]

    @torch.compiler.disable  # torch.compile must break its graph at the collective operation
    def forward(self, input: Tensor) -> Tensor:
        """Returns the normalised input `[B, C, ...]` in the same shape and memory order.

        Raises:
            ValueError: if all processes together have only one value per channel.
        """
        if not self.training or current_part() is None:
            return super().forward(input)
        if input.device.type != "cpu":
            return nn.SyncBatchNorm.forward(self, input)  # type: ignore[arg-type]
        self._check_input_dim(input)
        mean, variance, count = _statistics(input)
        if self.track_running_stats:
            self._track(mean, variance * (count / (count - 1)))
        return _Normalize.apply(input, self.weight, self.bias, mean, variance, count, self.eps)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm needs [B, C, ...], got {tuple(input.shape)}")

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics towards those of the whole batch; `variance` is the unbiased one."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        factor = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(variance.to(self.running_var.dtype), factor)


class SynchronizedNormAct(SynchronizedNorm):
    """SynchronizedNorm followed by the layers `drop` and `act`, for the BatchNorm layers of timm."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns the normalised and activated input in the same shape `[B, C, ...]`."""
        return self.act(self.drop(super().forward(input)))  # type: ignore[operator]


@torch.no_grad()
def _statistics(input: Tensor) -> tuple[Tensor, Tensor, int]:
    """Returns mean `[C]` and biased variance `[C]` over the inputs of all processes, and the values per channel.

    The results are float32, or float64 for float64 input. After one collective operation, means and centred squares of
    the parts are combined by the formula of Chan, Golub and LeVeque (1983).
    """
    values = _at_least_float32(input)
    dims = _all_but_channels(input)
    mean = values.mean(dims, keepdim=True)
    squares = (values - mean).square_().sum(dims)
    own = torch.cat([mean.flatten(), squares, mean.new_tensor([values.numel() // values.shape[1]])]).double()
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own)
    together = torch.stack(parts)  # [processes, 2 C + 1]
    (means, squares), counts = together[:, :-1].chunk(2, dim=1), together[:, -1:]
    count = counts.sum()
    if count < 2:
        raise ValueError(f"BatchNorm needs more than one value per channel in training, got {tuple(input.shape)}")
    whole = (counts * means).sum(0) / count
    variance = (squares + counts * (means - whole).square()).sum(0) / count
    return whole.to(values.dtype), variance.to(values.dtype), int(count)


class _Normalize(torch.autograd.Function):
    """Normalises by the statistics of all processes; the backward pass needs one collective operation.

    The gradient flows through the statistics too. As in torch's SyncBatchNorm, the gradients of weight and bias are
    those of this process's part; DDP adds them up.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: int,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return F.batch_norm(input, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, weight, mean, variance = ctx.saved_tensors
        dims = _all_but_channels(input)
        normal = F.batch_norm(input, mean, variance, eps=ctx.eps)
        gradient, normal = _at_least_float32(gradient), _at_least_float32(normal)
        slope, offset = (gradient * normal).sum(dims), gradient.sum(dims)  # gradients of weight and bias, [C]
        total = torch.cat([slope, offset])
        distributed.all_reduce(total)
        total /= ctx.count
        shape = (1, -1, *[1] * (input.dim() - 2))
        all_slope, all_offset = (value.view(shape) for value in total.chunk(2))
        scale = torch.rsqrt(variance + ctx.eps) * (1.0 if weight is None else weight)
        of_input = torch.addcmul(gradient - all_offset, normal, all_slope, value=-1).mul_(scale.view(shape))
        needs = ctx.needs_input_grad
        return of_input.to(input.dtype), slope if needs[1] else None, offset if needs[2] else None, *[None] * 4


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _all_but_channels(values: Tensor) -> list[int]:
    return [0, *range(2, values.dim())]


def _synchronized(kind: type[nn.Module]) -> type[SynchronizedNorm]:
    """Returns the synchronised class for a class of BatchNorm layers."""
    if issubclass(kind, SynchronizedNorm):
        return kind
    if kind.forward is _BatchNorm.forward:
        return SynchronizedNorm
    if kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm."):
        return SynchronizedNormAct
    raise FedReIDError(
        f"trainer.sync_batchnorm=true: the layer {kind.__module__}.{kind.__qualname__} cannot be synchronised over "
        "processes; set trainer.sync_batchnorm=false"
    )


class NormSync(LayerSync):
    """Lightning plugin that synchronises every BatchNorm of a model from the start of a fit to its end."""

    def __init__(self) -> None:
        self._kinds: list[tuple[nn.Module, type[nn.Module]]] = []

    def apply(self, model: nn.Module) -> nn.Module:
        """Converts the BatchNorm layers of a model to `SynchronizedNorm` and returns the model; `revert` undoes it.

        Raises:
            FedReIDError: if a layer is of an unknown subclass of BatchNorm.
        """
        found = [
            (module, _synchronized(type(module)))
            for module in model.modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        ]
        for module, kind in found:
            self._kinds.append((module, type(module)))
            module.__class__ = kind
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Restores the original classes of the BatchNorm layers and returns the model."""
        while self._kinds:
            module, kind = self._kinds.pop()
            module.__class__ = kind  # type: ignore[assignment]
        return model
