"""What the server computes with: a network of its own and unlabelled public images."""

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
    """Networks that the server may load a client's or its own backbone into, and the images to run them on.

    Networks are made at the first use and kept; an algorithm that only averages needs none.

    Args:
        make: builds a backbone.
        public: the server's unlabelled images, or `None`.
        device: where networks and images go.

    Attributes:
        elsewhere: does forward passes in other processes, with the same bits; `None`: this process does them.
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
        """Network number `index`, in eval mode, with whatever weights it was left with."""
        while len(self._networks) <= index:
            network = self.make().to(self.device)
            network.zero_grad(set_to_none=True)
            self._networks.append(network)
        return self._networks[index].eval()

    def features(self, tasks: Iterable[ForwardPass]) -> Iterator[Tensor]:
        """Yields the features of every task in its turn, by a network of this process or where an engine has slots."""
        if self.elsewhere is not None:
            yield from self.elsewhere(list(tasks))
            return
        for task in tasks:
            yield features_of(self.network(1), task)

    def batches(self, size: int) -> Iterator[Tensor]:
        """The public images in row order, normalised, on the device; a last batch of one joins the one before.

        Raises:
            RuntimeError: if there is no public set.
        """
        if self.public is None:
            raise RuntimeError("this federation has no public images")
        bounds = list(range(0, max(len(self.public) - 1, 1), size))
        for start, end in zip(bounds, [*bounds[1:], len(self.public)], strict=True):
            yield normalize(self.public.read(range(start, end)).to(self.device))

    def agree(self, state: Mapping[str, Tensor]) -> State:
        """The first process's copy of `state`, on the CPU, in every process: equal bits whatever the devices."""
        result = copied(state)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for name, value in result.items():
                shared = value.to(self.device)
                torch.distributed.broadcast(shared, 0)
                result[name] = shared.cpu()
        return result
