"""The server's own network and its unlabelled public images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from fedreid_pl.data.augmentation import normalize
from fedreid_pl.data.images import ImageSource
from fedreid_pl.federation.forward import ForwardPass, features_of
from fedreid_pl.federation.messages import State
from fedreid_pl.models.weights import copied


class ServerNetwork:
    """Provides networks into which the server can load a backbone, and images to run them on.

    A network is created at its first use and then reused. Algorithms that only average need no network.

    Args:
        make: builds a backbone.
        public: the server's unlabelled images, or `None`.
        device: device of networks and images.

    Attributes:
        elsewhere: runs forward passes in other processes, with equal results bit by bit; `None` uses this process.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        public: ImageSource | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.make, self.public, self.device = make, public, torch.device(device)
        self.elsewhere: Callable[[Sequence[ForwardPass]], Iterator[Tensor]] | None = None
        self._networks: list[nn.Module] = []

    def network(self, index: int = 0) -> nn.Module:
        """Returns network number `index` in eval mode, with the weights of its last use."""
        while len(self._networks) <= index:
            network = self.make().to(self.device)
            network.zero_grad(set_to_none=True)
            self._networks.append(network)
        return self._networks[index].eval()

    def features(self, tasks: Iterable[ForwardPass]) -> Iterator[Tensor]:
        """Yields the features of each task in order, computed in this process or in an engine's slots."""
        if self.elsewhere is not None:
            yield from self.elsewhere(list(tasks))
            return
        for task in tasks:
            yield features_of(self.network(1), task)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yields the public images in row order, normalised, on the device, `[B, 3, H, W]`.

        If the last batch has a single image, the image joins the batch before it.

        Raises:
            RuntimeError: if the server has no public images.
        """
        if self.public is None:
            raise RuntimeError("this run has no public images; set data.public or create ServerNetwork with images")
        bounds = list(range(0, max(len(self.public) - 1, 1), size))
        for start, end in zip(bounds, [*bounds[1:], len(self.public)], strict=True):
            yield normalize(self.public.read(range(start, end)).to(self.device))

    def agree(self, state: Mapping[str, Tensor]) -> State:
        """Returns the first process's copy of `state` on the CPU in every process, so that all have equal bits."""
        result = copied(state)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for name, value in result.items():
                shared = value.to(self.device)
                torch.distributed.broadcast(shared, 0)
                result[name] = shared.cpu()
        return result
