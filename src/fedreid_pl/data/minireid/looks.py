"""The look of each domain: palettes, clothes, places and camera hardware."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[int, int, int]
Weights = tuple[tuple[str, float], ...]

COLOURS: dict[str, Colour] = {
    "black": (30, 30, 34),
    "charcoal": (60, 62, 68),
    "grey": (122, 124, 128),
    "silver": (184, 185, 184),
    "white": (230, 229, 226),
    "navy": (30, 40, 84),
    "blue": (50, 94, 172),
    "sky": (130, 176, 214),
    "denim": (72, 92, 132),
    "stone": (128, 146, 170),
    "teal": (30, 116, 120),
    "green": (54, 124, 66),
    "olive": (96, 98, 58),
    "khaki": (166, 148, 108),
    "beige": (208, 190, 158),
    "brown": (98, 66, 44),
    "rust": (162, 82, 42),
    "orange": (224, 120, 40),
    "yellow": (222, 188, 64),
    "red": (180, 40, 44),
    "maroon": (106, 30, 44),
    "pink": (222, 142, 162),
    "purple": (104, 62, 134),
}


def weights(text: str) -> Weights:
    """Returns a text such as `"black 3, red 1"` as pairs of name and weight; a missing weight is 1."""
    pairs = (item.split() for item in text.split(","))
    return tuple((pair[0], float(pair[1]) if len(pair) > 1 else 1.0) for pair in pairs)


PATTERNS = weights("plain 8, stripes 3, pinstripes 1, checks 2, block 4, logo 5, yoke 3")
BAGS = weights("none 6, backpack 3, shoulder 3, hand 2")


@dataclass(frozen=True)
class Look:
    """Style of a domain.

    Args:
        scenes: kinds of places that its cameras see (keys of `scene.PLACES`).
        upper, lower: colours of clothes with their weights.
        garments: upper garments: tee, shirt, hoodie, jacket, coat.
        bottoms: lower garments: trousers, shorts, skirt, dress.
        patterns: plain, stripes, pinstripes, checks, block, logo, yoke.
        bags: none, backpack, shoulder, hand, trolley.
        cast: difference between the cameras' colours, 0 (none) to 1.
        sharpness: lowest and highest resolution of its cameras, 1 = every pixel.
        looseness: typical size of the detector's errors in canvas pixels (the canvas is 64 x 128).
        occlusion: probability that an object occludes the person.
    """

    scenes: tuple[str, ...]
    upper: Weights
    lower: Weights
    garments: Weights
    bottoms: Weights
    patterns: Weights = PATTERNS
    bags: Weights = BAGS
    cast: float = 0.6
    sharpness: tuple[float, float] = (0.55, 1.0)
    looseness: float = 3.0
    occlusion: float = 0.10


DARK = "black 8, charcoal 6, navy 6, grey 4, brown 3, maroon 2, olive 2, denim 2, beige 1, red 1, white 1"
BRIGHT = (
    "white 7, black 5, grey 4, red 3, blue 4, sky 3, pink 3, yellow 2, green 3, purple 2, orange 2, navy 3, "
    "teal 2, charcoal 3, beige 2, silver 2"
)
MIXED = (
    "black 6, white 4, grey 4, charcoal 4, navy 4, blue 3, red 3, green 2, olive 2, beige 2, brown 2, pink 1, "
    "purple 1, sky 2, teal 1, maroon 2, khaki 2, silver 2"
)
TROUSERS = "black 6, denim 6, navy 4, charcoal 4, grey 2, khaki 2, stone 2, brown 1, beige 1, white 1"
LIGHT_TROUSERS = "denim 5, black 5, khaki 3, stone 4, navy 3, white 2, beige 2, grey 3, olive 1, pink 1"

SUMMER_TOPS = weights("tee 8, shirt 4, hoodie 1")
WINTER_TOPS = weights("jacket 6, coat 4, hoodie 4, shirt 1")
MIXED_TOPS = weights("tee 4, shirt 4, hoodie 3, jacket 4, coat 1")
LONG = weights("trousers 9, skirt 1")
SUMMER_BOTTOMS = weights("trousers 4, shorts 5, skirt 2, dress 2")
MIXED_BOTTOMS = weights("trousers 7, shorts 2, skirt 1, dress 1")

MSMT17 = Look(
    ("street", "corridor", "plaza", "hall", "campus"),
    weights(MIXED), weights(TROUSERS), MIXED_TOPS, MIXED_BOTTOMS, cast=0.75,
)  # fmt: skip
DUKE = Look(
    ("campus", "plaza", "street"), weights(DARK), weights(TROUSERS), WINTER_TOPS, LONG,
    bags=weights("none 3, backpack 6, shoulder 2, hand 1"), occlusion=0.16,
)  # fmt: skip
MARKET = Look(
    ("plaza", "campus", "shopfront"), weights(BRIGHT), weights(LIGHT_TROUSERS), SUMMER_TOPS, SUMMER_BOTTOMS,
    bags=weights("none 4, backpack 4, shoulder 3, hand 2"), cast=0.55,
)  # fmt: skip
CUHK03 = Look(
    ("corridor", "hall"), weights(BRIGHT), weights(LIGHT_TROUSERS), MIXED_TOPS, MIXED_BOTTOMS,
    cast=0.15, sharpness=(0.85, 1.0), looseness=1.5, occlusion=0.05,
)  # fmt: skip
PRID2011 = Look(
    ("crossing", "street"), weights(DARK), weights(TROUSERS), WINTER_TOPS, LONG, cast=0.7, sharpness=(0.5, 0.8),
)  # fmt: skip
CUHK01 = Look(
    ("campus", "corridor"), weights(BRIGHT), weights(TROUSERS), SUMMER_TOPS, MIXED_BOTTOMS, looseness=1.5,
)  # fmt: skip
VIPER = Look(
    ("street", "campus", "crossing"), weights(MIXED), weights(LIGHT_TROUSERS), SUMMER_TOPS, SUMMER_BOTTOMS,
    cast=1.0, sharpness=(0.5, 0.8), looseness=2.0,
)  # fmt: skip
THREEDPES = Look(
    ("carpark", "plaza", "campus"), weights(MIXED), weights(TROUSERS), MIXED_TOPS, LONG, cast=0.9,
    sharpness=(0.45, 0.7),
)  # fmt: skip
ILIDS = Look(
    ("airport", "hall"), weights(DARK), weights(TROUSERS), WINTER_TOPS, LONG, cast=0.8,
    bags=weights("none 2, trolley 5, shoulder 3, backpack 2, hand 1"), sharpness=(0.5, 0.75), occlusion=0.35,
)  # fmt: skip
CUHK02 = Look(
    ("campus", "corridor", "plaza"), weights(MIXED), weights(LIGHT_TROUSERS), MIXED_TOPS, MIXED_BOTTOMS, cast=0.7,
)  # fmt: skip
