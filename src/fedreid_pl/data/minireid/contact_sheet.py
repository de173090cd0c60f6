"""One picture to look at: persons of each domain beside each other as their cameras saw them."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fedreid_pl.data.minireid.schedule import GALLERY_FOLDER, QUERY_FOLDER, TRAIN_FOLDER

TILE = (64, 128)
"""Width and height that every image is shown at, in pixels."""
CAMERAS = 6
"""At most this many cameras of a person are shown."""
COLUMNS = 3
"""Persons beside each other."""
NAME = re.compile(r"(-?\d+)_c(\d+)")


def contact_sheet(root: str | Path, path: str | Path, identities: int = 6) -> Path:
    """Write a PNG with a block per domain: `identities` persons, each in up to six cameras, labelled.

    Persons with the most cameras are shown first. Unlabelled images are shown in rows of their own.

    Args:
        root: a folder made by `ensure_minireid` or `write_benchmark`.
        path: the PNG to write; its folder is made if missing.
        identities: persons per domain.

    Returns:
        `path`.
    """
    root, path = Path(root), Path(path)
    wide, high, gap, text = *TILE, 4, 15
    group = CAMERAS * (wide + 2) + 18
    rows = -(-identities // COLUMNS)
    block = 30 + rows * (high + text + gap)
    names = [folder.name for folder in sorted(root.iterdir(), key=_order) if (folder / TRAIN_FOLDER).is_dir()]
    sheet = Image.new("RGB", (COLUMNS * group + 10, 34 + block * len(names)), (250, 250, 248))
    pen = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(11), ImageFont.load_default(17)
    pen.text((10, 8), "MiniReID: synthetic pedestrians. Each group is one person in several cameras.", (90, 90, 90), large)
    for number, name in enumerate(names):
        y = 34 + number * block
        pen.line((10, y, sheet.width - 10, y), fill=(200, 200, 196))
        pen.text((10, y + 5), name, (20, 20, 20), large)
        for place, (label, files) in enumerate(_people(root / name, identities)):
            x0 = 10 + place % COLUMNS * group
            y0 = y + 30 + place // COLUMNS * (high + text + gap)
            for column, (camera, file) in enumerate(files[:CAMERAS]):
                with Image.open(file) as picture:
                    shown = picture.convert("RGB").resize(TILE, Image.Resampling.BICUBIC)
                x = x0 + column * (wide + 2)
                sheet.paste(shown, (x, y0 + text))
                pen.text((x, y0), f"{label} c{camera}" if column == 0 else f"c{camera}", (60, 60, 60), small)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _order(folder: Path) -> tuple[int, str]:
    """Largest domain first, the way the tables list them."""
    train = folder / TRAIN_FOLDER
    return (-sum(1 for _ in train.iterdir()) if train.is_dir() else 0, folder.name)


def _people(domain: Path, identities: int) -> list[tuple[str, list[tuple[int, Path]]]]:
    seen: dict[str, dict[int, Path]] = {}
    loose: list[tuple[int, Path]] = []
    for folder in (QUERY_FOLDER, GALLERY_FOLDER, TRAIN_FOLDER):
        for file in sorted((domain / folder).glob("*.jpg")):
            found = NAME.match(file.name)
            if found is None:
                continue
            if int(found[1]) > 0:
                seen.setdefault(found[1], {}).setdefault(int(found[2]), file)
            elif folder == TRAIN_FOLDER:
                loose.append((int(found[2]), file))
    ranked = sorted(seen.items(), key=lambda item: (-min(len(item[1]), CAMERAS), item[0]))
    people = [(label, sorted(files.items())) for label, files in ranked[:identities]]
    loose = loose[:: max(1, len(loose) // (identities * CAMERAS))]
    groups = [("-1", loose[start : start + CAMERAS]) for start in range(0, len(loose), CAMERAS)]
    return (people + groups)[:identities]
