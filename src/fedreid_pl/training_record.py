"""Records the losses and the training accuracy of a client's turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor


class TrainingRecord:
    """Collects the losses and predictions of every training step, and averages them over the images of the turn.

    The record keeps tensors on their device, so a step does not wait for the device.

    Args:
        terms: names of the added losses.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        self._names = tuple(terms)
        self.clear()

    def clear(self) -> None:
        """Deletes all recorded steps."""
        self._losses: list[Tensor] = []
        self._terms: dict[str, list[Tensor]] = {name: [] for name in self._names}
        self._predicted: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._reported: list[float] = []

    def add_term(self, name: str, value: Tensor) -> None:
        """Adds the value of an added loss in the current step, a scalar without gradient."""
        self._terms[name].append(value)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, reported: float) -> None:
        """Adds a step.

        Args:
            loss: loss of the step, a scalar.
            logits: `[B, identities]`.
            labels: `[B]` int64.
            reported: share of the step that this process reports: 1 / P if all P processes compute the same step.
        """
        self._losses.append(loss.detach())
        self._predicted.append(logits.detach().argmax(1))
        self._labels.append(labels)
        self._reported.append(reported)

    def means(self, reduce_sum: Callable[[Tensor], Tensor]) -> Mapping[str, float]:
        """Returns `train/loss`, `train/accuracy` and `train/NAME` of every added loss, as means over the images.

        Args:
            reduce_sum: returns the sum of a tensor over all processes.
        """
        losses = torch.stack(self._losses)  # [steps]
        hits = torch.stack([(part == own).sum() for part, own in zip(self._predicted, self._labels, strict=True)])
        reported = losses.new_tensor(self._reported)
        counts = losses.new_tensor([len(own) for own in self._labels]) * reported
        sums = [(losses * counts).sum(), (hits * reported).sum()]
        sums += [(torch.stack(terms).to(losses.dtype) * counts).sum() for terms in self._terms.values()]
        sums.append(counts.sum())
        *totals, images = reduce_sum(torch.stack(sums)).tolist()
        names = ("train/loss", "train/accuracy", *(f"train/{name}" for name in self._names))
        return {name: total / images for name, total in zip(names, totals, strict=True)}
