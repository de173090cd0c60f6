"""Reads pictures of a run's folder safely: only inside the folder, decoded, made small and encoded again."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

from PIL import Image

from fedreid_pl.bounded import inside, read_bounded
from fedreid_pl.errors import FedReIDError

MOST_BYTES = 1024 * 1024
MOST_PIXELS = 1024 * 1024
SIDE = 256
"""Largest width or height of a thumbnail in pixels."""


def open_thumbnail(folder: Path, name: str) -> Image.Image | None:
    """Returns the picture as RGB with at most `SIDE` pixels on a side, `None` if it is missing or not a JPEG picture.

    Only the JPEG decoder is used, for at most a megabyte and a million pixels. Links out of the folder are not
    followed.
    """
    try:
        content = read_bounded(inside(folder, name), MOST_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                if image.width * image.height > MOST_PIXELS:
                    return None
                picture = image.convert("RGB")
    except (FedReIDError, OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return None
    picture.thumbnail((SIDE, SIDE))
    picture.info.clear()  # otherwise comments and profiles would be saved again
    return picture


def thumbnail(folder: Path, name: str) -> bytes:
    """Returns the picture as a new JPEG file without metadata, `b""` if there is no valid picture."""
    picture = open_thumbnail(folder, name)
    if picture is None:
        return b""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def data_address(jpeg: bytes) -> str:
    """Returns the address of a picture that is embedded in the page."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
