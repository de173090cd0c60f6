"""The appearance of a person: body, hair and clothes, drawn once per identity."""

from __future__ import annotations

from dataclasses import dataclass

from fedreid_pl.data.minireid.looks import COLOURS, Colour, Look, Weights, weights
from fedreid_pl.data.minireid.streams import Stream

SKIN: tuple[Colour, ...] = (
    (236, 200, 174), (222, 180, 150), (206, 160, 126), (178, 130, 98), (138, 96, 70), (98, 68, 52),
)  # fmt: skip
HAIR: tuple[tuple[Colour, float], ...] = (
    ((26, 24, 26), 6), ((54, 40, 32), 5), ((92, 64, 42), 3), ((148, 110, 66), 2), ((196, 164, 104), 1.5),
    ((150, 148, 146), 1.5), ((120, 54, 36), 0.7),
)  # fmt: skip
HAIR_STYLES = weights("short 8, crop 3, long 5, bob 2, tail 2, bun 1, bald 1, cap 2, hat 1")


@dataclass(frozen=True)
class Person:
    """Appearance of one identity; lengths are in hundredths of the body height.

    Args:
        width: relative width of the body, 1 = average.
        legs: relative length of the legs, 1 = average.
        skin, hair, upper, inner, lower, shoes, bag_colour, accent: colours.
        hair_style: short, crop, long, bob, tail, bun, bald, cap or hat.
        garment: tee, shirt, hoodie, jacket or coat.
        opened: whether the jacket or coat is worn open over `inner`.
        pattern: pattern of the upper garment in `accent`: plain, stripes, pinstripes, checks, block, logo or yoke.
        bottom: trousers, shorts, skirt or dress.
        fit: relative width of the trouser legs, 1 = average.
        hem: lower end of shorts and skirts.
        socks: colour between trousers or skirt and shoes; it may be the skin colour.
        bag: none, backpack, shoulder, hand or trolley.
        side: +1 or -1, the side of the bag.
        scarf: whether the person wears a scarf in `accent`.
    """

    width: float
    legs: float
    skin: Colour
    hair: Colour
    hair_style: str
    garment: str
    opened: bool
    pattern: str
    upper: Colour
    inner: Colour
    accent: Colour
    bottom: str
    lower: Colour
    fit: float
    hem: float
    socks: Colour
    shoes: Colour
    bag: str
    bag_colour: Colour
    side: int
    scarf: bool


def draw_person(look: Look, *key: str | int) -> Person:
    """Returns the person of a key such as `("mini-viper", "person", 17)`, with clothes in the domain's style."""
    draw = Stream(*key)
    skin = draw.pick(SKIN)
    garment, bottom = draw.weighted(look.garments), draw.weighted(look.bottoms)
    upper = _dye(draw, look.upper)
    accent = _apart(draw, look.upper, upper)
    socks = skin if draw.chance(0.7) else draw.pick((COLOURS["black"], COLOURS["charcoal"], COLOURS["white"]))
    return Person(
        width=draw.between(0.82, 1.2),
        legs=draw.between(0.94, 1.06),
        skin=skin,
        hair=draw.weighted(HAIR),
        hair_style=draw.weighted(HAIR_STYLES),
        garment=garment,
        opened=garment in ("jacket", "coat", "shirt") and draw.chance(0.35),
        pattern=draw.weighted(look.patterns),
        upper=upper,
        inner=_apart(draw, look.upper, upper),
        accent=accent,
        bottom="trousers" if bottom == "dress" and garment not in ("tee", "shirt") else bottom,
        lower=_dye(draw, look.lower),
        fit=draw.between(0.75, 1.3),
        hem=draw.between(62, 76),
        socks=socks,
        shoes=_dye(draw, weights("black 5, white 4, brown 2, grey 2, navy 1, red 1, blue 1, beige 1")),
        bag=draw.weighted(look.bags),
        bag_colour=_dye(
            draw, weights("black 6, charcoal 2, navy 2, brown 3, red 2, blue 2, green 1, purple 1, beige 1")
        ),
        side=1 if draw.chance(0.5) else -1,
        scarf=garment in ("jacket", "coat") and draw.chance(0.3),
    )


def shade(colour: Colour, factor: float) -> Colour:
    """Returns the colour made darker (`factor` < 1) or lighter (`factor` > 1)."""
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def _dye(draw: Stream, palette: Weights) -> Colour:
    """Returns a random colour of the palette with a small random variation."""
    red, green, blue = COLOURS[draw.weighted(palette)]
    light = draw.between(0.85, 1.15)
    return tuple(max(8, min(246, int(c * light + draw.between(-9, 9)))) for c in (red, green, blue))  # type: ignore[return-value]


def _apart(draw: Stream, palette: Weights, other: Colour) -> Colour:
    """Returns a colour that differs clearly from `other`: from the palette, or another one after three attempts."""
    for _ in range(3):
        colour = _dye(draw, palette)
        if sum(abs(a - b) for a, b in zip(colour, other, strict=True)) > 130:
            return colour
    return shade(other, 0.45) if sum(other) > 330 else shade((210, 208, 204), draw.between(0.7, 1.0))
