"""How fast this machine computes, and how much arithmetic a network needs: what bounds a measured time."""

from __future__ import annotations

import time
from statistics import median

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

SIDE = 3000


def operations(network: nn.Module, height: int, width: int) -> float:
    """Returns the multiplications and additions of a forward pass with one image, in GFLOP."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 3, height, width))
    return counter.get_total_flops() / 1e9


def product_rate(threads: int, repeats: int = 5) -> float:
    """Returns the speed of torch's product of two fp32 matrices of 3000 x 3000, in GFLOP/s; the median of `repeats`."""
    torch.set_num_threads(threads)
    one, other = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    seconds = []
    for _ in range(repeats + 1):  # the first product allocates memory and is not counted
        start = time.perf_counter()
        torch.matmul(one, other)
        seconds.append(time.perf_counter() - start)
    return 2 * SIDE**3 / 1e9 / median(seconds[1:])
