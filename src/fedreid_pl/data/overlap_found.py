"""One finding: pictures or persons that are in two places."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Overlap:
    """One finding.

    Args:
        what: `persons` (the same numbers), `bytes` (the same file) or `pixels` (the same picture once decoded).
        where: the two places, such as `("market train", "market gallery")`.
        count: pictures of the first place that are in the second, or persons.
        of: pictures, or persons, of the first place.
        examples: pairs of paths, or person numbers.
        serious: whether a model is tested on pictures that it trained on in the same dataset, or an unseen dataset
            shares pictures with another place.
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
            return f"{shared}, such as {examples}; make sure that they are other people"
        same = "byte for byte" if self.what == "bytes" else "once decoded"
        across = " under another camera" if one.endswith(" query") and two.endswith(" gallery") else ""
        return (
            f"{self.count:,} of the {self.of:,} pictures of {one} are also in {two}{across}, {same}, such as {examples}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
