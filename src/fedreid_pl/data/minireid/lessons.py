"""Labelled images for the training of initial backbones; no place, camera or person is in the ten domains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from fedreid_pl.data.minireid import looks
from fedreid_pl.data.minireid.camera import Camera, Studio
from fedreid_pl.data.minireid.domains import Domain
from fedreid_pl.data.minireid.looks import COLOURS, Colour, Weights
from fedreid_pl.data.minireid.person import HAIR_STYLES, Person
from fedreid_pl.data.minireid.scene import PLACES
from fedreid_pl.data.minireid.schedule import Shot
from fedreid_pl.data.minireid.streams import Stream
from fedreid_pl.data.minireid.things import draw_category, draw_thing

CATEGORIES = 100
CAMERAS = 12


@dataclass(frozen=True)
class Lesson:
    """A classification task for the training of an initial backbone.

    Args:
        name: `things` classifies things by shape and colours, `shapes` by shape only. `garments` classifies what
            persons wear and carry, without colours. `clothes` adds the colours of two garments. Every person is drawn
            once, so the backbone cannot learn identities.
        images: number of images.
    """

    name: str
    images: int = 4000

    @property
    def domain(self) -> Domain:
        """The domain with the places and cameras of the lesson; its name, part of every seed, differs from the ten."""
        style = looks.Look(
            tuple(PLACES), looks.weights(looks.MIXED), looks.weights(looks.TROUSERS), looks.MIXED_TOPS,
            looks.MIXED_BOTTOMS, bags=looks.weights("none 4, backpack 3, shoulder 3, hand 2, trolley 2"),
            cast=0.9, sharpness=(0.45, 1.0),
        )  # fmt: skip
        return Domain(f"start-{self.name}", CAMERAS, self.images, self.images, 0, 0, 0, look=style)


LESSONS = {name: Lesson(name) for name in ("things", "shapes", "garments", "clothes")}


def draw_lesson(
    lesson: Lesson, progress: Callable[[str], None] | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Draws the images of a lesson.

    Returns:
        Images `[N, 64, 32, 3]` uint8, labels `[N, Q]` int64 of Q questions, and the number of answers to each question.
    """
    domain, images, labels = lesson.domain, [], []
    about_things = lesson.name in ("things", "shapes")
    studio = _ThingStudio(domain, lesson.name == "shapes") if about_things else Studio(domain)
    for number in range(lesson.images):
        camera = 1 + Stream(domain.key, "camera of", number).index(CAMERAS)
        if about_things:
            shot = Shot("", "thing", number % CATEGORIES, camera, number)
            labels.append([number % CATEGORIES])
        else:
            shot = Shot("", "person", number, camera, 0)
            labels.append(_answers(studio.person("person", number), lesson.name == "clothes"))
        images.append(np.asarray(studio.take(shot)))
        if progress is not None and number % 100 == 0:
            progress(f"drawing training images for the initial backbone: {number} of {lesson.images} images")
    answers = (CATEGORIES,) if about_things else tuple(len(names) for names in _questions(lesson.name == "clothes"))
    return np.stack(images), np.array(labels), answers


class _ThingStudio(Studio):
    """Renders images of things; the person number of a shot is the category."""

    def __init__(self, domain: Domain, recolour: bool) -> None:
        super().__init__(domain)
        self._recolour = recolour
        self._things = [draw_category(domain.key, "thing", number) for number in range(CATEGORIES)]

    def _stage(self, shot: Shot, camera: Camera, pen: ImageDraw.ImageDraw, walk: Stream, draw: Stream) -> None:
        draw_thing(pen, self._things[shot.person], draw, self._recolour)


def _questions(colours: bool) -> list[tuple[str, ...]]:
    def names(table: Weights) -> tuple[str, ...]:
        return tuple(name for name, _ in table)

    garments = [
        names(table)
        for table in (
            looks.MIXED_TOPS, looks.MIXED_BOTTOMS, looks.PATTERNS, HAIR_STYLES,
            looks.weights("none, backpack, shoulder, hand, trolley"),
        )
    ]  # fmt: skip
    return [*garments, *([tuple(COLOURS)] * 2 if colours else [])]


def _answers(person: Person, colours: bool) -> list[int]:
    said = [person.garment, person.bottom, person.pattern, person.hair_style, person.bag]
    said += [_nearest(person.upper), _nearest(person.lower)] if colours else []
    return [names.index(answer) for names, answer in zip(_questions(colours), said, strict=True)]


def _nearest(colour: Colour) -> str:
    def distance(name: str) -> int:
        return sum((a - b) ** 2 for a, b in zip(COLOURS[name], colour, strict=True))

    return min(COLOURS, key=distance)
