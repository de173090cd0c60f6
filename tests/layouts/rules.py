"""Rules of drawn splits that several small datasets share."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from .record import GALLERY, QUERY, TRAIN, Draw, Protocol

FIRST, SECOND = 1, 2
Groups = Mapping[Hashable, Mapping[int, Sequence[frozenset[str]]]]
"""Groups of images that are used together, by person and camera."""


def each(paths: Iterable[str]) -> tuple[frozenset[str], ...]:
    """Puts every image into a separate group."""
    return tuple(frozenset([path]) for path in paths)


def two_cameras(groups: Groups) -> Protocol:
    """Half of the persons, rounded down, train; of the others, camera 1 is the query and camera 2 the gallery."""

    def draws(trained: frozenset[Hashable]) -> list[Draw]:
        found = []
        for person, views in groups.items():
            for camera, own in views.items():
                split = TRAIN if person in trained else QUERY if camera == FIRST else GALLERY
                found.append(Draw(tuple(own), len(own), person, camera, split))
        return found

    return Protocol(frozenset(groups), len(groups) // 2, draws)


def pseudo_cameras(views: Mapping[int, Sequence[frozenset[str]]], recorded: frozenset[int]) -> Protocol:
    """Like `two_cameras`, but half of a person's views (rounded down) are drawn as camera 1."""

    def draws(trained: frozenset[Hashable]) -> list[Draw]:
        found = []
        for person, own in views.items():
            first, second = (TRAIN, TRAIN) if person in trained else (QUERY, GALLERY)
            found.append(Draw(tuple(own), len(own) // 2, person, FIRST, first))
            found.append(Draw(tuple(own), len(own) - len(own) // 2, person, SECOND, second))
        return found

    return Protocol(frozenset(views), len(views) // 2, draws, recorded)


def persons_of(groups: Groups) -> dict[str, Hashable]:
    """Returns the person of every image."""
    return {
        path: person
        for person, views in groups.items()
        for own in views.values()
        for group in own
        for path in sorted(group)
    }
