"""Pictures that a run's folder names: looked up inside it, decoded, made small and encoded anew."""

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
"""Pixels of the longer side that a picture keeps."""


def open_thumbnail(folder: Path, name: str) -> Image.Image | None:
    """The picture as RGB, at most `SIDE` pixels on a side; `None` if it is not there or no JPEG picture.

    Only the decoder of JPEG is used, on at most a megabyte and a million pixels; links out of the folder are not
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
    picture.info.clear()  # a comment or a profile would be written again
    return picture


def thumbnail(folder: Path, name: str) -> bytes:
    """The picture encoded anew as JPEG, without anything that stood beside its pixels; an empty one if it is none."""
    picture = open_thumbnail(folder, name)
    if picture is None:
        return b""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def data_address(jpeg: bytes) -> str:
    """The address of a picture that lies in the page itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
