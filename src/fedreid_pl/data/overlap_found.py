"""The record of an overlap: images or persons that are in two places."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Overlap:
    """Images or persons that are in two places.

    Args:
        what: `persons` (the same numbers), `bytes` (the same file) or `pixels` (the same decoded image).
        where: the two places, such as `("market train", "market gallery")`.
        count: number of images (or persons) of the first place that are also in the second.
        of: number of all images (or persons) of the first place.
        examples: pairs of paths, or person numbers.
        serious: whether a model is tested on its own training images of the same dataset, or an unseen dataset shares
            images with another place.
    """

    what: str
    where: tuple[str, str]
    count: int
    of: int
    examples: tuple[str, ...]
    serious: bool = False

    def __str__(self) -> str:
        one, two = self.where
        examples = ", ".join(self.examples)
        if self.what == "persons":
            shared = f"{self.count:,} of the {self.of:,} persons of {one} have the number of a person of {two}"
            return f"{shared}, such as {examples}; make sure that they are different people"
        same = "byte for byte" if self.what == "bytes" else "after decoding"
        across = " under another camera" if one.endswith(" query") and two.endswith(" gallery") else ""
        return (
            f"{self.count:,} of the {self.of:,} pictures of {one} are also in {two}{across}, {same}, such as {examples}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the overlap as plain values for JSON."""
        return asdict(self)
