"""Draws a person in a given pose and view onto an image."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ImageDraw

from fedreid_pl.data.minireid.looks import Colour
from fedreid_pl.data.minireid.person import Person, shade

FRONT, BACK, SIDE = "front", "back", "side"


@dataclass(frozen=True)
class Pose:
    """The pose of a person in front of a camera.

    Args:
        view: `FRONT`, `BACK` or `SIDE`.
        facing: +1 or -1, the direction of walking in a side view and of the light in the other views.
        swing: walking phase, -1 to 1.
        pitch: downward tilt of the camera, 0 to about 0.3: heads grow, legs shrink.
        light: +1 or -1, the side that the light comes from.
    """

    view: str
    facing: int
    swing: float
    pitch: float
    light: int


class Pencil:
    """Draws in body units: x from the middle, y down from the top of the head; the body is 100 units high.

    Coordinates are rounded to whole pixels before the rasteriser gets them, so that rounding errors of products cannot
    change a pixel.

    Args:
        draw: drawing context of the image.
        centre: pixel column of the body's middle.
        feet: pixel row of the soles.
        height: body height in pixels.
        pitch: see `Pose`.
        mirror: +1 or -1, the sign of x.
    """

    def __init__(
        self, draw: ImageDraw.ImageDraw, centre: float, feet: float, height: float, pitch: float, mirror: int = 1
    ) -> None:
        self._draw, self._centre, self._top = draw, centre, feet - height
        self._unit, self._pitch, self._mirror = height / 100, pitch, mirror

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Returns the pixel of a point of the body."""
        wide = self._unit * self._mirror * (1 + self._pitch * (50 - y) / 100)
        down = y * (1 + self._pitch * (100 - y) / 100)
        return round(self._centre + x * wide), round(self._top + down * self._unit)

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """Draws a filled polygon."""
        self._draw.polygon([self.at(x, y) for x, y in points], fill=colour)

    def limb(self, x0: float, y0: float, w0: float, x1: float, y1: float, w1: float, colour: Colour) -> None:
        """Draws an upright quadrilateral from `(x0, y0)` with width `w0` to `(x1, y1)` with width `w1`."""
        self.shape([(x0 - w0 / 2, y0), (x0 + w0 / 2, y0), (x1 + w1 / 2, y1), (x1 - w1 / 2, y1)], colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Draws a filled ellipse."""
        (x0, y0), (x1, y1) = self.at(x - rx, y - ry), self.at(x + rx, y + ry)
        self._draw.ellipse((min(x0, x1), y0, max(x0, x1), y1), fill=colour)


def draw_pedestrian(
    draw: ImageDraw.ImageDraw, person: Person, pose: Pose, centre: float, feet: float, height: float
) -> None:
    """Draws `person` in `pose`; `centre`, `feet` and `height` are in pixels of the image.

    The light comes from the side `pose.light`: the other half of the clothes is darker.
    """
    side = pose.view == SIDE
    pencil = Pencil(draw, centre, feet, height, pose.pitch, pose.facing if side else 1)
    # in a back view left and right of the person are swapped, so that a bag stays on the same shoulder
    hand = person.side * (-1 if pose.view == BACK else 1)
    lit = pose.light * (pose.facing if side else 1)
    if person.bag == "trolley":
        _trolley(pencil, person, -22 if side else hand * 19)
    if side:
        _arm(pencil, person, 0.0, -pose.swing * 9, 0.72)
        if person.bag == "backpack":
            pencil.shape([(-5, 18), (-14, 21), (-15, 39), (-5, 42)], person.bag_colour)
    _legs(pencil, person, pose, side)
    if not side:
        reach = 11.6 * person.width
        _arm(pencil, person, -reach, pose.swing * 1.5, 1.0 if lit < 0 else 0.8)
        _arm(pencil, person, reach, -pose.swing * 1.5, 1.0 if lit > 0 else 0.8)
    _torso(pencil, person, pose.view, lit)
    if side:
        _arm(pencil, person, 0.0, pose.swing * 9, 0.92)
    _head(pencil, person, pose.view)
    _bag(pencil, person, pose.view, hand)


def _legs(pencil: Pencil, person: Person, pose: Pose, side: bool) -> None:
    hip, wide = 50 - (person.legs - 1) * 40, person.width
    for leg in (-1, 1):
        tone = 0.78 if leg * pose.light < 0 or (side and leg < 0) else 1.0
        ahead = leg * pose.swing
        foot, sole = (ahead * 14, 98.0) if side else (leg * 4.6 * wide, 98.0 - max(0.0, ahead) * 5)
        knee = (foot * 0.42 + 1.5, 73.0) if side else (leg * 4.7 * wide, 73.0 - max(0.0, ahead) * 2)
        top = (0.0, hip) if side else (leg * 4.4 * wide, hip)
        cloth, skin = shade(person.lower, tone), shade(person.socks, tone)
        ankle = 5.4 * person.fit
        if person.bottom == "trousers":
            pencil.limb(*top, 10.5 * wide, *knee, 7.6 * person.fit, cloth)
            pencil.limb(*knee, 7.6 * person.fit, foot, sole - 3, ankle, cloth)
        else:
            pencil.limb(*top, 8.5 * wide, *knee, 6.2, skin)
            pencil.limb(*knee, 6.2, foot, sole - 3, 4.4, skin)
            if person.bottom == "shorts":
                part = (person.hem - hip) / (knee[1] - hip)
                edge = (top[0] + (knee[0] - top[0]) * part, person.hem)
                pencil.limb(*top, 11 * wide, *edge, 9.5 * person.fit, cloth)
        toe = foot + (2.4 if side else leg * 0.6)
        pencil.limb(foot, sole - 4, 5.2, toe, sole + 1.5, 9.5 if side else 6.4, shade(person.shoes, tone))
    if person.bottom in ("skirt", "dress"):
        cloth = person.lower if person.bottom == "skirt" else person.upper
        flare = (7 if side else 10.5) * wide + (person.hem - 60) * 0.2
        pencil.limb(0, 44, (11 if side else 18) * wide, 0, person.hem, 2 * flare, cloth)
        pencil.limb(-flare / 2 * pose.light, 48, 5, -flare * 0.7 * pose.light, person.hem, 6, shade(cloth, 0.8))


def _arm(pencil: Pencil, person: Person, x: float, swing: float, tone: float) -> None:
    sleeve, skin = shade(person.upper, tone), shade(person.skin, tone)
    if person.pattern == "yoke":  # raglan sleeves in the accent colour
        sleeve = shade(person.accent, tone)
    bulk = 7.2 if person.garment in ("jacket", "coat", "hoodie") else 5.6
    elbow, wrist = x + swing * 0.45 + (0.9 if x > 0 else -0.9 if x < 0 else 0), x + swing
    pencil.limb(x * 0.93, 18, bulk, elbow, 34, bulk, sleeve)
    if person.garment == "tee":
        pencil.limb(elbow, 32, 4.2, wrist, 48, 3.6, skin)
    else:
        pencil.limb(elbow, 33, bulk, wrist, 47, bulk * 0.8, sleeve)
    pencil.oval(wrist, 49, 2.3, 2.8, skin)


def _torso(pencil: Pencil, person: Person, view: str, lit: int) -> None:
    hem = {"tee": 51.0, "shirt": 53.0, "hoodie": 53.0, "jacket": 55.0, "coat": 71.0}[person.garment]
    if person.bottom == "dress":
        hem = 47.0
    scale = person.width * (0.62 if view == SIDE else 1.0)
    top, waist, foot = 11.4 * scale, 9.2 * scale, 10.2 * scale + (hem - 50) * 0.08
    chest, edge = [(-top * 0.55, 14.8), (top * 0.55, 14.8), (top, 18)], [(waist, 38), (foot, hem)]
    outline = [*chest, *edge, (-foot, hem), (-waist, 38), (-top, 18)]
    pencil.shape(outline, person.upper)

    def half(y: float) -> float:
        return top + (waist - top) * (y - 18) / 20 if y < 38 else waist + (foot - waist) * (y - 38) / (hem - 38)

    def band(y0: float, y1: float, colour: Colour, left: float = -1.0, right: float = 1.0) -> None:
        a, b = half(y0), half(y1)
        pencil.shape([(left * a, y0), (right * a, y0), (right * b, y1), (left * b, y1)], colour)

    pattern = person.pattern
    if pattern in ("stripes", "checks"):
        for y in range(20, int(hem) - 2, 7):
            band(y, y + 2.6, person.accent)
    if pattern in ("pinstripes", "checks"):
        for column in (-0.66, 0.0, 0.66):
            band(18, hem, person.accent, column - 0.13, column + 0.13)
    if pattern == "block":
        band(33, hem, person.accent)
    if pattern == "yoke":
        band(18, 24, person.accent)
    band(18, hem, shade(person.upper if pattern != "block" else person.accent, 0.74), -lit * 0.99, -lit * 0.62)
    if view == FRONT:
        if person.opened:
            band(18, hem, person.inner, -0.32, 0.32)
        elif person.garment in ("jacket", "coat", "shirt"):
            band(18, hem, shade(person.upper, 0.6), -0.06, 0.06)
        pencil.shape([(-3.4, 14.5), (3.4, 14.5), (0, 20)], person.skin if not person.opened else person.inner)
    if pattern == "logo" and view != SIDE and not (view == FRONT and person.opened):
        # a badge on the front, a large print on the back
        pencil.shape([(-5, 23), (5, 23), (5, 31), (-5, 31)], person.accent)
        if view == BACK:
            pencil.shape([(-6.5, 22), (6.5, 22), (6.5, 36), (-6.5, 36)], person.accent)
    if person.garment == "coat":
        band(40, 42.5, shade(person.upper, 0.6))


def _head(pencil: Pencil, person: Person, view: str) -> None:
    style, hair = person.hair_style, person.hair
    long_hair = style in ("long", "bob")
    length = 24 if style == "long" else 16
    if long_hair and view != BACK:
        pencil.limb(-1.5 if view == SIDE else 0, 5, 11.5, -2 if view == SIDE else 0, length, 11, hair)
    pencil.limb(0, 11, 5, 0, 17, 6, shade(person.skin, 0.82))
    if person.garment == "hoodie":
        pencil.oval(-2 if view == SIDE else 0, 15.8, 6.8, 3.2, shade(person.upper, 0.8))
    pencil.oval(0.4 if view == SIDE else 0, 7.4, 5.0, 6.6, hair if view == BACK and style != "bald" else person.skin)
    if style not in ("bald", "cap", "hat"):
        if view == SIDE:
            pencil.oval(-1.6, 5.6, 4.8, 5.6, hair)
        elif view == FRONT:
            pencil.oval(0, 3.0 if style == "crop" else 3.4, 5.2, 2.6 if style == "crop" else 3.6, hair)
    if view == FRONT:
        pencil.limb(0, 6.6, 6.2, 0, 7.9, 6.2, shade(person.skin, 0.62))  # shadow of the brows
    if long_hair and view == BACK:
        pencil.limb(0, 6, 10.5, 0, length, 11.5, hair)
    if style == "tail" and view != FRONT:
        pencil.limb(-5.5 if view == SIDE else 0, 5, 2.6, -6.5 if view == SIDE else 0, 19, 3.6, shade(hair, 0.8))
    if style == "bun":
        pencil.oval(-4 if view == SIDE else 0, 0.6, 2.9, 2.9, hair)
    if style in ("cap", "hat"):
        pencil.oval(0, 3.2, 5.4, 3.8, person.accent)
        if style == "hat":
            pencil.limb(0, 4.4, 13, 0, 6.2, 14, person.accent)
        elif view != BACK:
            pencil.limb(4 if view == SIDE else 0, 4.6, 9, 4 if view == SIDE else 0, 6.2, 9, shade(person.accent, 0.7))
    if person.scarf:
        pencil.limb(0, 13.4, 9, 0, 17.6, 11, person.accent)
        if view == FRONT:
            pencil.limb(2, 17, 3.6, 2.6, 31, 4, shade(person.accent, 0.9))


def _bag(pencil: Pencil, person: Person, view: str, hand: int) -> None:
    bag, dark = person.bag_colour, shade(person.bag_colour, 0.7)
    reach = 11.8 * person.width
    if person.bag == "backpack":
        if view == BACK:
            pencil.shape([(-8, 19), (-6, 17), (6, 17), (8, 19), (9, 41), (-9, 41)], bag)
            pencil.shape([(-6, 31), (6, 31), (6, 39), (-6, 39)], dark)
        elif view == FRONT:
            for strap in (-1, 1):
                pencil.limb(strap * 6.5, 16, 2.8, strap * 7.5, 36, 2.8, bag)
        else:
            pencil.limb(-1, 16, 3, -2, 34, 3, bag)
    elif person.bag == "shoulder":
        # the strap runs from the far shoulder to the bag at the hip
        x = 1.0 if view == SIDE else hand * (reach - 1)
        if view != SIDE or person.side > 0:
            pencil.limb(-x * 0.6, 16, 2.4, x * 0.8, 43, 2.4, dark)
            pencil.limb(x, 41, 11, x, 54, 12, bag)
            pencil.limb(x, 41, 11, x, 44, 11, dark)
    elif person.bag == "hand":
        x = 4.0 if view == SIDE else hand * (reach + 1)
        pencil.limb(x, 50, 3, x, 54, 6, dark)
        pencil.limb(x, 54, 9, x, 66, 10.5, bag)


def _trolley(pencil: Pencil, person: Person, x: float) -> None:
    pencil.limb(x * 0.8, 52, 1.6, x, 72, 1.6, (60, 60, 64))
    pencil.limb(x, 71, 13, x, 96, 13, person.bag_colour)
    pencil.limb(x, 77, 9, x, 80, 9, shade(person.bag_colour, 0.7))
    pencil.limb(x, 96, 12, x, 99, 12, (24, 24, 26))
