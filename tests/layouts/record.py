"""A miniature dataset: its files and, in plain Python, their persons, cameras and splits."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

JUNK, DISTRACTOR = "junk", "distractor"
"""Keys of images without a known person: excluded from the gallery, and ranked but never correct."""

TRAIN, QUERY, GALLERY = "train", "query", "gallery"


class Shot(NamedTuple):
    """One image whose person, camera and split are fixed by the files.

    Persons and cameras are keys, not numbers: equal keys mean the same person or camera; readers may use any numbers.
    """

    path: str
    person: Hashable
    camera: Hashable
    split: str


class Draw(NamedTuple):
    """A draw of `take` groups of images: all images of a drawn group are used, the other groups are not."""

    groups: tuple[frozenset[str], ...]
    take: int
    person: Hashable
    camera: int
    split: str


@dataclass(frozen=True)
class Protocol:
    """The rules of a drawn split.

    Args:
        persons: the persons that are split into training and test.
        trained: number of training persons.
        draws: maps the drawn training persons to the groups of images that are used.
        recorded: training persons of split 0, if published.
        official: training persons of each split that is distributed with the dataset.
    """

    persons: frozenset[Hashable]
    trained: int
    draws: Callable[[frozenset[Hashable]], list[Draw]]
    recorded: frozenset[Hashable] | None = None
    official: tuple[frozenset[Hashable], ...] = ()


@dataclass(frozen=True)
class Miniature:
    """One small dataset in one layout.

    Args:
        layout: its value of `data.layout`.
        pictures: paths of all images on the disk, used or not.
        persons: maps every usable image to its person's key.
        shots: the used images, if the files fix them; otherwise `protocol` contains the rules.
        texts: other files, by path.
        restarts: whether person numbers restart in the test part, so that one number may be a training person and
            another test person.
        unmatched: queries whose person is in no other camera of the gallery.
        public: the images of a public set, if these are more than the training part.
    """

    layout: str
    pictures: tuple[str, ...]
    persons: Mapping[str, Hashable]
    shots: tuple[Shot, ...] = ()
    protocol: Protocol | None = None
    texts: Mapping[str, str | bytes] = field(default_factory=dict)
    restarts: bool = False
    unmatched: frozenset[str] = frozenset()
    public: frozenset[str] | None = None

    @property
    def splits(self) -> frozenset[str]:
        """Returns the existing splits; a public set has no test splits."""
        return frozenset(shot.split for shot in self.shots) or frozenset((TRAIN, QUERY, GALLERY))


def fixed(layout: str, shots: Sequence[Shot], unused: Iterable[str] = (), **more) -> Miniature:
    """Makes a miniature with a fixed split; `unused` are additional images."""
    pictures = tuple(dict.fromkeys([*(shot.path for shot in shots), *unused]))
    return Miniature(layout, pictures, {shot.path: shot.person for shot in shots}, tuple(shots), **more)


def drawn(layout: str, persons: Mapping[str, Hashable], protocol: Protocol, unused: Iterable[str] = (), **more):
    """Makes a miniature with a drawn split."""
    return Miniature(layout, (*persons, *unused), persons, protocol=protocol, **more)


class Sight(NamedTuple):
    """An image without a name yet: the `number`-th of this person, camera and split."""

    split: str
    person: int
    camera: int
    number: int


def cast(
    cameras: Sequence[int], train: Sequence[int], test: Sequence[int], alone: Sequence[int] = (), shots: int = 2
) -> list[Sight]:
    """Returns the images of all persons: two cameras each, but one for the first of `train` and for all of `alone`.

    Each camera shows at least two persons of `train` if there are more persons than cameras. Both cameras of a `test`
    person have a query and `shots` gallery images; persons in `alone` are only in the gallery.
    """
    sights = []
    for place, person in enumerate(train):
        seen = [cameras[(place + step) % len(cameras)] for step in ((0, 1) if place else (0,))]
        sights += [Sight(TRAIN, person, camera, number) for camera in seen for number in range(shots)]
    for place, person in enumerate(test):
        for camera in (cameras[-1 - place % len(cameras)], cameras[-1 - (place + 1) % len(cameras)]):
            sights.append(Sight(QUERY, person, camera, 0))
            sights += [Sight(GALLERY, person, camera, number) for number in range(1, shots + 1)]
    return sights + [Sight(GALLERY, person, cameras[place % len(cameras)], 0) for place, person in enumerate(alone)]
