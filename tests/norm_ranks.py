"""Runs BatchNorm layers over one process's part of a batch, and writes the outputs; tests start it in every process.

python norm_ranks.py FOLDER RANK
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from fedreid_pl.functional.batch_part import BatchPart, working_on
from fedreid_pl.models.synchronized_norm import NormSync

PARTS = ((4,), (0, 2, 9), (1, 3, 5, 6, 7, 8, 10))
"""Positions of three processes' images in a batch of eleven."""
STEPS = 3


class Case(NamedTuple):
    """A layer and its batches of eleven images."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (5,)
    dtype: torch.dtype = torch.float32
    offset: float = 3.0
    channels_last: bool = False


def without_bias() -> nn.Module:
    """Returns a BatchNorm without a trainable bias, as in the BNNeck."""
    layer = nn.BatchNorm1d(5)
    layer.register_parameter("bias", None)
    return layer


CASES = {
    "1d": Case(lambda: nn.BatchNorm1d(5)),
    "1d float64": Case(lambda: nn.BatchNorm1d(5), dtype=torch.float64),
    "2d": Case(lambda: nn.BatchNorm2d(5), (5, 4, 3)),
    "2d float64": Case(lambda: nn.BatchNorm2d(5), (5, 4, 3), torch.float64),
    "2d float64 channels_last": Case(lambda: nn.BatchNorm2d(5), (5, 4, 3), torch.float64, channels_last=True),
    "float64 without bias": Case(without_bias, dtype=torch.float64),
    "float64 without parameters": Case(lambda: nn.BatchNorm1d(5, affine=False), dtype=torch.float64),
    "float64 without statistics": Case(lambda: nn.BatchNorm1d(5, track_running_stats=False), dtype=torch.float64),
    "float64 cumulative mean": Case(lambda: nn.BatchNorm1d(5, momentum=None), dtype=torch.float64),
    "far from zero": Case(lambda: nn.BatchNorm2d(5), (5, 4, 3), offset=3000.0),
    "bfloat16": Case(lambda: nn.BatchNorm2d(5), (5, 4, 3), torch.bfloat16),
}


def results(case: Case, part: BatchPart | None) -> dict[str, Any]:
    """Returns outputs and gradients of some training steps and an evaluation, and the layer's final state.

    Args:
        part: this process's positions; `None` runs the plain layer over whole batches.
    """
    draws = torch.Generator().manual_seed(0)
    layer = case.make().to(torch.float64 if case.dtype == torch.float64 else torch.float32)
    for value in layer.parameters():
        value.data.normal_(1.0, 0.5, generator=draws)
    sync = NormSync()
    if part is not None:
        sync.apply(layer)
    places = list(range(11)) if part is None else list(part.places)
    outputs, gradients = [], []
    for _ in range(STEPS):
        whole = case.offset + torch.randn(11, *case.shape, dtype=torch.float64, generator=draws)
        target = torch.randn(11, *case.shape, dtype=torch.float64, generator=draws)
        inputs = whole.to(case.dtype)[places]
        if case.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        inputs.requires_grad_()
        with working_on(part):
            output = layer(inputs)
        (output - target[places]).square().sum().backward()  # parameters' gradients add up over the steps
        assert inputs.grad is not None and output.dtype == case.dtype
        assert output.stride() == inputs.stride()
        outputs.append(output.detach())
        gradients.append(inputs.grad)
    sync.revert(layer)
    layer.eval()
    evaluated = layer(whole.to(case.dtype)).detach()
    slopes = {name: value.grad for name, value in layer.named_parameters()}
    state = {name: value for name, value in layer.named_buffers()}
    return {"outputs": outputs, "gradients": gradients, "slopes": slopes, "state": state, "evaluated": evaluated}


def too_few() -> str:
    """Returns the layer's error for a batch that has one vector over all processes; the other parts are empty."""
    layer: Any = NormSync().apply(nn.BatchNorm1d(5))
    own: Tensor = torch.zeros(1 if distributed.get_rank() == 0 else 0, 5)
    try:
        with working_on(BatchPart((0,), 1)):
            layer(own)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    """Runs all cases in one of three processes."""
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=len(PARTS))
    part = BatchPart(PARTS[rank], 11)
    found: dict[str, Any] = {name: results(case, part) for name, case in CASES.items()}
    found["too few"] = too_few()
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
