"""torch.compile for a backbone's trunk, without a trace of it in the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class CompiledTrunk:
    """The trunk of a backbone, compiled for full training batches; everything else stays as it is.

    One graph serves all clients, as they are lent the same backbone: the head, whose size differs, and dropout, which
    would draw other numbers, are left out. Batches of another size, and the network in eval mode, run uncompiled,
    instead of being compiled for every size that some client's last batch has. The network's state dict, copies of it
    and its results outside of `full_batch` know nothing of this.

    Args:
        backbone: has a module `trunk`.
        mode: of `torch.compile`; `reduce-overhead` replays CUDA graphs on a GPU.
        batch: images of a full training batch in this process.
        backend: of `torch.compile`.
    """

    def __init__(self, backbone: nn.Module, mode: str, batch: int, backend: str | Callable = "inductor") -> None:
        trunk = backbone.trunk
        assert isinstance(trunk, nn.Module)
        self.trunk, self.batch = trunk, batch
        chosen = mode if backend == "inductor" else None  # the modes are inductor's
        self._forward = torch.compile(trunk.forward, dynamic=False, backend=backend, mode=chosen)

    @contextmanager
    def full_batch(self, images: Tensor) -> Iterator[None]:
        """Within it the trunk runs compiled, if `images` `[B, 3, H, W]` are a full batch and the trunk is training."""
        if len(images) != self.batch or not self.trunk.training:
            yield
            return
        torch.compiler.cudagraph_mark_step_begin()  # a step's memory is reused by the next one
        vars(self.trunk)["forward"] = self._forward
        try:
            yield
        finally:
            del vars(self.trunk)["forward"]
