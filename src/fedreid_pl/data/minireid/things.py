"""Draws things instead of persons: categories of coloured shapes, similar to the object categories of ImageNet."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ImageDraw

from fedreid_pl.data.minireid.looks import COLOURS, Colour
from fedreid_pl.data.minireid.person import shade
from fedreid_pl.data.minireid.streams import Stream

SHAPES = ("box", "oval", "wedge", "bar")


@dataclass(frozen=True)
class Part:
    """A part of a thing; lengths are relative to half the thing's width and height.

    Args:
        shape: box, oval, wedge (a triangle) or bar (a slanted stripe).
        x, y: centre.
        width, height: half the size.
        colour: index of the thing's colour.
    """

    shape: str
    x: float
    y: float
    width: float
    height: float
    colour: int


@dataclass(frozen=True)
class Thing:
    """A category: its parts, drawn in this order, and its colours."""

    parts: tuple[Part, ...]
    colours: tuple[Colour, ...]


def draw_category(*key: str | int) -> Thing:
    """Returns the category of a key such as `("minireid-v2/start-things", "thing", 17)`: a body and 3 to 6 parts."""
    draw = Stream(*key)
    parts = [Part(draw.pick(("box", "oval", "wedge")), 0.0, 0.0, draw.between(0.5, 1), draw.between(0.6, 1), 0)]
    for number in range(3 + draw.index(4)):
        x, y = draw.between(-0.7, 0.7), draw.between(-0.85, 0.85)
        size = draw.between(0.15, 0.5), draw.between(0.08, 0.4)
        parts.append(Part(draw.pick(SHAPES), x, y, *size, 1 + number % 3))
    return Thing(tuple(parts), tuple(COLOURS[draw.pick(tuple(COLOURS))] for _ in range(4)))


def draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, draw: Stream, recolour: bool) -> None:
    """Draws one thing of a category in the middle of a canvas of 80 x 144 pixels.

    Size, proportions, lean, side, position and (slightly) colours vary between images.

    Args:
        pen: drawing context of the image.
        thing: the category.
        draw: random numbers of this image.
        recolour: use random colours instead of the category's, so that only the shape identifies the category.
    """
    scale, proportion = draw.between(0.75, 1.1), draw.between(0.85, 1.15)
    wide, high = 27 * scale * proportion * (1 if draw.chance(0.5) else -1), 54 * scale / proportion
    lean, x, y = draw.between(-0.15, 0.15), 40 + draw.between(-6, 6), 72 + draw.between(-8, 8)
    names = tuple(COLOURS)
    colours = [COLOURS[draw.pick(names)] if recolour else colour for colour in thing.colours]
    colours = [shade(colour, draw.between(0.85, 1.15)) for colour in colours]

    def at(part: Part, right: float, down: float) -> tuple[int, int]:
        across, along = part.x + right * part.width, part.y + down * part.height
        return round(x + (across + lean * along) * wide), round(y + along * high)

    for part in thing.parts:
        if part.shape == "oval":
            (left, top), (right, bottom) = at(part, -1, -1), at(part, 1, 1)
            pen.ellipse((min(left, right), top, max(left, right), bottom), fill=colours[part.colour])
            continue
        corners = {
            "box": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
            "wedge": ((0, -1), (1, 1), (-1, 1)),
            "bar": ((-1, -1), (-0.5, -1), (1, 1), (0.5, 1)),
        }[part.shape]
        pen.polygon([at(part, *corner) for corner in corners], fill=colours[part.colour])
