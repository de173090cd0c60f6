"""The places in front of the cameras: one wide background image per camera."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fedreid_pl.data.minireid.looks import Colour
from fedreid_pl.data.minireid.person import shade
from fedreid_pl.data.minireid.streams import Stream, noise_bytes

WIDTH, HEIGHT = 320, 176
"""Size of a background in canvas pixels; a detection shows an 80 x 144 window of it."""

PLACES: dict[str, tuple[tuple[Colour, ...], tuple[Colour, ...], tuple[str, ...]]] = {
    # floor colours, wall colours, objects that may be there
    "street": (((110, 110, 112), (136, 132, 126)), ((150, 138, 124), (122, 96, 82)), ("windows", "cars", "kerb")),
    "plaza": (((176, 170, 160), (150, 148, 146)), ((170, 172, 176), (150, 132, 116)), ("tiles", "windows", "trees")),
    "campus": (((150, 146, 136), (112, 126, 84)), ((92, 112, 72), (120, 130, 100)), ("trees", "lawn", "kerb")),
    "crossing": (((92, 92, 96), (104, 102, 100)), ((128, 128, 132), (148, 142, 132)), ("zebra", "cars")),
    "carpark": (((126, 126, 128), (110, 108, 104)), ((160, 158, 150), (120, 128, 110)), ("cars", "kerb", "trees")),
    "shopfront": (((166, 156, 146), (190, 182, 172)), ((190, 160, 128), (140, 150, 166)), ("posters", "tiles")),
    "corridor": (((188, 182, 170), (150, 140, 128)), ((214, 210, 200), (186, 196, 198)), ("doors", "tiles")),
    "hall": (((170, 172, 176), (142, 136, 130)), ((204, 200, 190), (160, 166, 176)), ("pillars", "posters", "tiles")),
    "airport": (((196, 196, 194), (162, 164, 168)), ((140, 144, 152), (198, 194, 184)), ("pillars", "posters")),
}


def background(kind: str, domain: str, camera: int) -> Image.Image:
    """Returns the background of a camera without persons, an RGB image of `WIDTH` x `HEIGHT` pixels."""
    draw = Stream(domain, "scene", camera)
    floors, walls, things = PLACES[kind]
    floor, wall = (shade(draw.pick(group), draw.between(0.8, 1.15)) for group in (floors, walls))
    horizon = round(draw.between(28, 84))
    picture = Image.new("RGB", (WIDTH, HEIGHT), floor)
    pen = ImageDraw.Draw(picture)
    for row in range(horizon, HEIGHT, 8):  # the floor gets lighter towards the viewer
        pen.rectangle((0, row, WIDTH, row + 8), fill=shade(floor, 0.86 + 0.22 * (row - horizon) / HEIGHT))
    pen.rectangle((0, 0, WIDTH, horizon), fill=wall)
    for thing in things:
        if draw.chance(0.85):
            _THINGS[thing](pen, draw, horizon, floor, wall)
    pen.line((0, horizon, WIDTH, horizon), fill=shade(wall, 0.6), width=2)
    return _grain(picture.filter(ImageFilter.GaussianBlur(1)), domain, camera)


def _grain(picture: Image.Image, domain: str, camera: int) -> Image.Image:
    """Adds coarse and fine noise to the background, the same in all channels."""
    coarse = noise_bytes(12 * 22, domain, "stains", camera).reshape(12, 22)
    stains = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    fine = noise_bytes(WIDTH * HEIGHT, domain, "grain", camera).reshape(HEIGHT, WIDTH)
    change = (stains.astype(np.int16) - 128) // 8 + (fine.astype(np.int16) - 128) // 14
    pixels = np.asarray(picture).astype(np.int16) + change[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _windows(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    glass = draw.pick(((70, 84, 102), (120, 140, 156), (52, 54, 60)))
    step = 20 + draw.index(22)
    for x in range(draw.index(step), WIDTH, step):
        pen.rectangle((x, horizon * 0.2, x + step * 0.55, horizon * 0.72), fill=glass, outline=shade(wall, 1.2))


def _doors(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    leaf = draw.pick(((120, 84, 56), (150, 156, 160), (88, 104, 120), (166, 146, 116)))
    for x in range(draw.index(60), WIDTH, 70 + draw.index(40)):
        pen.rectangle((x, 2, x + 30, horizon), fill=leaf, outline=shade(leaf, 0.7))


def _posters(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    for x in range(draw.index(30), WIDTH, 44):
        colour = draw.pick(((186, 62, 52), (60, 92, 160), (224, 196, 90), (70, 130, 90), (228, 226, 220)))
        pen.rectangle((x, horizon * 0.15, x + 24, horizon * 0.8), fill=colour)
        pen.rectangle((x + 4, horizon * 0.3, x + 20, horizon * 0.45), fill=shade(colour, 0.6))


def _pillars(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    tone = shade(wall, draw.between(0.6, 1.2))
    for x in range(draw.index(60), WIDTH, 90):
        pen.rectangle((x, 0, x + 14, horizon + 22), fill=tone)
        pen.rectangle((x + 10, 0, x + 14, horizon + 22), fill=shade(tone, 0.75))


def _trees(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    for _ in range(14):
        x, y, size = draw.index(WIDTH), draw.index(max(horizon - 8, 8)), 12 + draw.index(22)
        leaf = shade((78, 104, 58), draw.between(0.6, 1.4))
        pen.rectangle((x - 2, y, x + 2, horizon + 6), fill=(84, 66, 50))
        pen.ellipse((x - size, y - size // 2, x + size, y + size // 2), fill=leaf)


def _lawn(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    x, grass = draw.index(WIDTH), shade((104, 132, 68), draw.between(0.75, 1.2))
    pen.polygon([(x - 60, horizon), (x + 60, horizon), (x + 160, HEIGHT), (x - 10, HEIGHT)], fill=grass)


def _kerb(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    y, slope = horizon + 10 + draw.index(60), draw.index(30) - 15
    pen.polygon([(0, y), (WIDTH, y + slope), (WIDTH, y + slope + 6), (0, y + 6)], fill=shade(floor, 1.3))


def _cars(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    for x in range(draw.index(60), WIDTH, 80 + draw.index(60)):
        paint = draw.pick(((164, 40, 40), (200, 202, 204), (44, 48, 56), (60, 84, 130), (150, 150, 146)))
        pen.rectangle((x, horizon - 8, x + 56, horizon + 10), fill=paint)
        pen.polygon([(x + 10, horizon - 8), (x + 17, horizon - 20), (x + 42, horizon - 20), (x + 50, horizon - 8)],
                    fill=shade(paint, 0.6))  # fmt: skip
        for wheel in (x + 8, x + 38):
            pen.ellipse((wheel, horizon + 5, wheel + 11, horizon + 16), fill=(26, 26, 28))


def _zebra(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    lean, top = draw.index(40) - 20, horizon + 14 + draw.index(20)
    for x in range(-20, WIDTH, 30):
        pen.polygon([(x, top), (x + 15, top), (x + 15 + lean, HEIGHT), (x + lean, HEIGHT)], fill=(206, 206, 202))


def _tiles(pen: ImageDraw.ImageDraw, draw: Stream, horizon: int, floor: Colour, wall: Colour) -> None:
    line, step, gap = shade(floor, draw.pick((0.75, 1.2))), 24 + draw.index(20), 6.0
    for x in range(-WIDTH, 2 * WIDTH, step):
        pen.line((x, horizon, x + (x - WIDTH // 2) // 2, HEIGHT), fill=line)
    y = float(horizon)
    while y < HEIGHT:
        pen.line((0, y, WIDTH, y), fill=line)
        y, gap = y + gap, gap * 1.3


_THINGS = {
    "windows": _windows, "doors": _doors, "posters": _posters, "pillars": _pillars, "trees": _trees,
    "lawn": _lawn, "kerb": _kerb, "cars": _cars, "zebra": _zebra, "tiles": _tiles,
}  # fmt: skip
