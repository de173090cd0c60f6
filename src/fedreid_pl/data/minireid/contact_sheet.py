"""The contact sheet of MiniReID: some persons of each domain, as seen by their cameras."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fedreid_pl.data.minireid.schedule import GALLERY_FOLDER, QUERY_FOLDER, TRAIN_FOLDER
from fedreid_pl.errors import FedReIDError

PAPER = (250, 250, 248)
TILE = (64, 128)
"""Width and height of every image on the sheet, in pixels."""
CAMERAS = 6
"""Largest number of cameras per person on the sheet."""
WIDTH = 3 * (CAMERAS * (TILE[0] + 2) + 18) + 20
"""Width of the sheet: three persons in six cameras, or eight in two."""
TITLE = "MiniReID: synthetic pedestrians. Each group is one person as several cameras saw them."
NAME = re.compile(r"(-?\d+)_c(\d+)")

Group = tuple[str, list[tuple[int, Path]]]
"""A label, and pairs of camera and file."""


def contact_sheet(root: str | Path, path: str | Path, identities: int = 6) -> Path:
    """Writes a PNG with one block per domain: `identities` labelled persons, each in up to six cameras.

    Persons that most cameras see are shown. Unlabelled images form separate groups.

    Args:
        root: a folder written by `ensure_minireid` or `write_benchmark`.
        path: the PNG to write; its folder is created if it is missing.
        identities: persons per domain.

    Returns:
        `path`.

    Raises:
        FedReIDError: if `root` contains no domain.
    """
    root, path = Path(root), Path(path)
    domains = sorted((folder.parent for folder in root.glob(f"*/{TRAIN_FOLDER}")), key=_order)
    if not domains:
        raise FedReIDError(f"{root}: contains no folder <domain>/{TRAIN_FOLDER}; give a folder of MiniReID")
    blocks = [_block(domain, identities) for domain in domains]
    sheet = Image.new("RGB", (WIDTH, 34 + sum(block.height for block in blocks)), PAPER)
    ImageDraw.Draw(sheet).text((10, 8), TITLE, (90, 90, 90), ImageFont.load_default(17))
    y = 34
    for block in blocks:
        sheet.paste(block, (0, y))
        y += block.height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _block(domain: Path, identities: int) -> Image.Image:
    groups = _people(domain, identities)
    wide = max((len(files) for _, files in groups), default=1) * (TILE[0] + 2) + 18
    columns = max(1, (WIDTH - 10) // wide)
    line = TILE[1] + 19
    block = Image.new("RGB", (WIDTH, 36 + -(-len(groups) // columns) * line), PAPER)
    pen, small = ImageDraw.Draw(block), ImageFont.load_default(11)
    pen.line((10, 0, WIDTH - 10, 0), fill=(200, 200, 196))
    pen.text((10, 5), domain.name, (20, 20, 20), ImageFont.load_default(17))
    for place, (label, files) in enumerate(groups):
        x, y = 10 + place % columns * wide, 30 + place // columns * line
        for number, (camera, file) in enumerate(files):
            with Image.open(file) as picture:
                shown = picture.convert("RGB").resize(TILE, Image.Resampling.BICUBIC)
            block.paste(shown, (x, y + 15))
            pen.text((x, y), f"c{camera}" if number else f"{label} c{camera}", (60, 60, 60), small)
            x += TILE[0] + 2
    return block


def _order(domain: Path) -> tuple[bool, int, str]:
    """Returns the sort key of a domain: the largest domain first, as in tables; unlabelled domains last."""
    sizes = [sum(1 for _ in (domain / folder).glob("*.jpg")) for folder in (QUERY_FOLDER, TRAIN_FOLDER)]
    return sizes[0] == 0, -sizes[1], domain.name


def _people(domain: Path, identities: int) -> list[Group]:
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
    people = [(label, sorted(files.items())[:CAMERAS]) for label, files in ranked[:identities]]
    loose = sorted(loose)[:: max(1, len(loose) // (identities * CAMERAS))]
    groups = [("-1", loose[start : start + CAMERAS]) for start in range(0, len(loose), CAMERAS)]
    return (people + groups)[:identities]
