"""Draws a query and the gallery images that a model ranks first as one picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

HEIGHT, FRAME, GAP = 128, 4, 6  # pixels
RIGHT, WRONG, PLAIN = (0, 158, 115), (213, 50, 40), (120, 120, 120)


def ranked_strip(query: Image.Image, gallery: Sequence[tuple[Image.Image, bool]]) -> Image.Image:
    """Returns one picture: the query in a grey frame, then the gallery images in the order of their rank.

    A correct image has a green frame. A wrong image has a red frame and a cross in its lower left corner, so that the
    two can be distinguished without colours.

    Args:
        query: image of any size and mode.
        gallery: images, and whether each shows the query's person.

    Returns:
        RGB image, `HEIGHT` pixels high inside the frames; widths keep each image's aspect ratio.

    >>> strip = ranked_strip(Image.new("RGB", (32, 64)), [(Image.new("L", (64, 128)), True)])
    >>> strip.size, strip.getpixel((0, 0)), strip.getpixel((strip.width - 1, 0))
    ((162, 136), (120, 120, 120), (0, 158, 115))
    """
    framed = [_frame(query, PLAIN)]
    for image, correct in gallery:
        framed.append(_frame(image, RIGHT if correct else WRONG, struck=not correct))
    gaps = [3 * GAP, *[GAP] * (len(framed) - 2)] if gallery else []
    width = sum(picture.width for picture in framed) + sum(gaps)
    strip = Image.new("RGB", (width, HEIGHT + 2 * FRAME), (255, 255, 255))
    place = 0
    for picture, gap in zip(framed, [*gaps, 0], strict=True):
        strip.paste(picture, (place, 0))
        place += picture.width + gap
    return strip


def _frame(image: Image.Image, colour: tuple[int, int, int], struck: bool = False) -> Image.Image:
    width = max(1, round(image.width * HEIGHT / image.height))
    inner = image.convert("RGB").resize((width, HEIGHT), Image.Resampling.BILINEAR)
    if struck:
        draw = ImageDraw.Draw(inner)
        side = min(width, HEIGHT) // 4
        draw.line((0, HEIGHT - side, side, HEIGHT), fill=colour, width=3)
        draw.line((0, HEIGHT, side, HEIGHT - side), fill=colour, width=3)
    framed = Image.new("RGB", (width + 2 * FRAME, HEIGHT + 2 * FRAME), colour)
    framed.paste(inner, (FRAME, FRAME))
    return framed
