"""Conversion of a decoded image of any mode to the 8-bit RGB image that an image viewer shows."""

from __future__ import annotations

import functools
import io
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

MOST_16 = 65_535

_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_ORIENTED = ("exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


class NoRange(ValueError):
    """Raised for pixels without a defined range from black to white."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the image upright in 8-bit sRGB, converted by its embedded profile, with transparent parts on white.

    Args:
        image: image of any mode, as opened by Pillow.

    Raises:
        NoRange: for floating-point pixels, and for integers outside 16 bits.
        Exception: Pillow raises various exceptions for a damaged file.
    """
    image.load()
    if image.mode == "RGB" and not image.info.keys() & {*_ORIENTED, "icc_profile", "transparency"}:
        return image
    upright = _upright(image)
    colours, alpha = _colours_and_alpha(upright)
    rgb = _in_srgb(colours, image.info.get("icc_profile"))
    if alpha is None:
        return rgb
    canvas = Image.new("RGB", rgb.size, "white")
    canvas.paste(rgb, mask=alpha)
    return canvas


def _upright(image: Image.Image) -> Image.Image:
    """Returns the image rotated by its EXIF orientation. Pillow rotates TIFF itself; damaged EXIF data are ignored."""
    if image.info.keys() & set(_ORIENTED):
        with suppress(Exception):
            return ImageOps.exif_transpose(image)
    return image


def _colours_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Returns the image in L, RGB or CMYK, and its opacity in L, or `None` if no part is transparent."""
    if image.mode in _DEEP or image.mode == "I":
        return _from_integers(image)
    if image.mode == "F":
        raise NoRange("floating-point pixels (mode F) have no defined range; convert the image to 8 or 16 bits")
    if not image.has_transparency_data:
        return image if image.mode in _SPACES else image.convert("L" if image.mode == "1" else "RGB"), None
    _fit_transparency(image)
    if image.mode in ("LA", "La"):
        grey, alpha = image.convert("LA").split()
        return grey, alpha
    *colours, alpha = image.convert("RGBA").split()
    return Image.merge("RGB", colours), alpha


def _fit_transparency(image: Image.Image) -> None:
    """Converts the transparent colour of a 16-bit RGB image to 8 bits, because Pillow reads its pixels in 8 bits."""
    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and max(colour) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _from_integers(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Returns a grey image of 16 bits, or of 32 bits with 16-bit values, in L, and its opacity or `None`."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    bits = _tiff_bits(image)
    if low < 0 or high > MOST_16:
        raise NoRange(f"integer pixels from {low:,} to {high:,} (mode I) are outside 16 bits; convert the image")
    if image.mode == "I" and bits == 32 and 0 < high < 256:
        raise NoRange(
            f"32-bit integer pixels up to {high} (mode I) may stand for 8 or 16 bits; convert the image to 8 or 16 bits"
        )
    most = 2**bits - 1 if bits is not None and bits < 16 else MOST_16
    grey = ((values * 255 + most // 2) // most).clip(0, 255).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    alpha = None
    if isinstance(transparent, int):
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.fromarray(grey), alpha


def _tiff_bits(image: Image.Image) -> int | None:
    """Returns the bits per sample that a TIFF file declares, or `None` for other formats."""
    bits: Any = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    return int(bits[0] if isinstance(bits, tuple) else bits) if bits else None


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts an image in L, RGB or CMYK to sRGB by its embedded profile.

    As in image viewers, a profile that is unreadable or belongs to another colour space is ignored.
    """
    transform = _transform(profile, image.mode) if profile else None
    return image.convert("RGB") if transform is None else transform.apply(image)


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns the conversion from a profile to sRGB, or `None` if it has no effect or the profile is unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(source, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "CMYK":
        return transform
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3)
    ramp = Image.fromarray(probe if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
    change = np.abs(np.asarray(transform.apply(ramp), int) - np.asarray(ramp.convert("RGB"), int))
    return transform if change.max() > 1 else None  # the profile is sRGB if colours change by rounding only
