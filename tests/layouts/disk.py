"""Writes a miniature: drawn images of different sizes, files in any order, and the usual stray files."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

from PIL import Image, ImageDraw

from .record import Miniature

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}


def write(miniature: Miniature, root: Path, order: int = 0) -> Path:
    """Writes all files of the miniature below `root`; `order` determines the order of creation.

    Adds a hidden file and a folder with image names, and files of file managers. The content does not depend on the
    order.
    """
    files: dict[str, bytes] = {path: picture(path) for path in miniature.pictures}
    disguised = next((path for path in miniature.pictures if path.endswith(".png")), None)
    if disguised is not None:
        files[disguised] = picture(disguised, "JPEG")
    for folder in {os.path.dirname(path) for path in miniature.pictures}:
        name = next(path for path in miniature.pictures if os.path.dirname(path) == folder).rpartition("/")[2]
        ending = os.path.splitext(name)[1]
        files[f"{folder}/._{name}"] = b"\x00\x05\x16\x07"
        files[f"{folder}/thumbnails{ending}/{name}"] = picture(name)
        files[f"{folder}/Thumbs.db"] = files[f"{folder}/.DS_Store"] = b"\x00"
        for above in Path(folder).parents:
            files.setdefault(f"{above}/thumbnails{ending}/readme.txt", b"notes")
    for path, content in miniature.texts.items():
        files[path] = content.encode() if isinstance(content, str) else content
    paths = sorted(files)
    random.Random(order).shuffle(paths)
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(files[path])
    return root


def picture(path: str, encoding: str | None = None) -> bytes:
    """Returns a drawn pedestrian; the path determines size and colours, and its ending the format by default."""
    chance = random.Random(path)
    width, height = chance.randint(8, 20), chance.randint(16, 44)
    ground, coat, trousers = (tuple(chance.randrange(256) for _ in range(3)) for _ in range(3))
    image = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(image)
    pen.rectangle((width // 4, height // 5, 3 * width // 4, height // 2), fill=coat)
    pen.rectangle((width // 3, height // 2, 2 * width // 3, height - 1), fill=trousers)
    pen.ellipse((width // 3, 1, 2 * width // 3, height // 5), fill=(200, 160, 130))
    stream = io.BytesIO()
    image.save(stream, encoding or FORMATS[os.path.splitext(path)[1].lower()])
    return stream.getvalue()
