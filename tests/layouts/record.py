"""What a miniature dataset is: the files to write and, in plain Python, what they show."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

JUNK, DISTRACTOR = "junk", "distractor"
"""Keys of images that show no known person: left out of the gallery, and ranked but never correct."""

TRAIN, QUERY, GALLERY = "train", "query", "gallery"


class Shot(NamedTuple):
    """One image whose person, camera and split the files themselves say.

    Persons and cameras are keys, not numbers: equal keys mean the same person or camera, whatever a reader calls it.
    """

    path: str
    person: Hashable
    camera: Hashable
    split: str


class Draw(NamedTuple):
    """Of these groups of images so many are used, all images of a group together, the other groups not so."""

    groups: tuple[frozenset[str], ...]
    take: int
    person: Hashable
    camera: int
    split: str


@dataclass(frozen=True)
class Protocol:
    """The rules of a split that is drawn.

    Args:
        persons: those of whom some train and the others are tested.
        trained: how many of them train.
        draws: from those who were drawn for training, what has to be used and how.
        recorded: who trains in split 0, where that was written down.
        official: who trains in each of the splits that come with the dataset.
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
        layout: the value of `data.layout` that it has.
        pictures: paths of all pictures on disk, whether the dataset uses them or not.
        persons: of every picture that may be used its person's key.
        shots: what is used, where the files say so; otherwise `protocol` has the rules.
        texts: other files, by path.
        restarts: names count persons anew in the test part and nothing else tells: one number may be two persons, one
            of whom trains.
        unmatched: queries whose person no other camera of the gallery shows.
        public: what training images alone are, where that is more than the training part.
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
        """The splits that there are: a public set has no test."""
        return frozenset(shot.split for shot in self.shots) or frozenset((TRAIN, QUERY, GALLERY))


def fixed(layout: str, shots: Sequence[Shot], unused: Iterable[str] = (), **more) -> Miniature:
    """A miniature that says itself who trains and who is tested; `unused` pictures lie beside."""
    pictures = tuple(dict.fromkeys([*(shot.path for shot in shots), *unused]))
    return Miniature(layout, pictures, {shot.path: shot.person for shot in shots}, tuple(shots), **more)


def drawn(layout: str, persons: Mapping[str, Hashable], protocol: Protocol, unused: Iterable[str] = (), **more):
    """A miniature whose split is drawn."""
    return Miniature(layout, (*persons, *unused), persons, protocol=protocol, **more)


class Sight(NamedTuple):
    """One image before it has a name: the `number`-th of this person, camera and split."""

    split: str
    person: int
    camera: int
    number: int


def cast(
    cameras: Sequence[int], train: Sequence[int], test: Sequence[int], alone: Sequence[int] = (), shots: int = 2
) -> list[Sight]:
    """Who is seen where: everybody by two cameras, the first of `train` and all of `alone` by one.

    Each of the cameras sees two persons of `train` or more if there are more persons than cameras. Both cameras of a
    `test` person have a query and `shots` gallery images; persons who are `alone` are in the gallery only.
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
