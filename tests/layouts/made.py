"""Layouts of scripts and users: meta.json with split.json, folders made from them, folders of persons, a table."""

from __future__ import annotations

import json
from collections.abc import Callable

from .record import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN, Miniature, Shot, fixed

VIEWS = {
    0: (1, 1), 1: (1, 2), 2: (2, 1),  # queries
    3: (2, 2), 4: (3, 0), 5: (1, 1), 6: (0, 2), 10: (2, 2), 11: (1, 1),  # training; two persons are in one camera only
    7: (0, 1), 8: (2, 1), 9: (0, 2),  # gallery only
}  # fmt: skip
"""Number of images of every person by camera, as in PRID2011; person 0 is a person."""

PROBE, TRAINED, ALONE = (0, 1, 2), (3, 4, 5, 6, 10, 11), (7, 8, 9)


def split_of(person: int, camera: int) -> str:
    """Training persons train with both cameras; a probe's first camera is the query, all other images the gallery."""
    return TRAIN if person in TRAINED else QUERY if person in PROBE and camera == 0 else GALLERY


def formatted(below: str = "", ending: str = "png", validation: bool = False) -> Miniature:
    """Makes meta.json and split.json, with the images beside them or in a folder."""
    identities = [
        [
            [f"cam_{camera}/{person:05d}_{image:05d}.{ending}" for image in range(count)]
            for camera, count in enumerate(own)
        ]
        for person, own in sorted(VIEWS.items())
    ]
    shots = [
        Shot(below + path, person, camera, split_of(person, camera))
        for person, views in enumerate(identities)
        for camera, paths in enumerate(views)
        for path in paths
    ]
    train = {"train": TRAINED[::2], "val": TRAINED[1::2]} if validation else {"trainval": TRAINED}
    split = {**train, "test_probe": PROBE, "test_gallery": PROBE + ALONE}
    meta = {"name": "mini", "shot": "multiple", "num_cameras": 2, "identities": identities}
    return fixed("dgd", shots, texts={"meta.json": json.dumps(meta), "split.json": json.dumps(split)})


def processed(ending: str, alone: int = 7) -> Miniature:
    """Makes the authors' folders of a small set: persons without leading zeros, names that begin with the camera.

    Person `alone` is only in the gallery; if `alone` is 0, person 7 replaces person 0 as the query.
    """
    shots, twice = [], []
    for role, own in VIEWS.items():
        person = {7: alone, alone: 7}.get(role, role)
        for camera, count in enumerate(own):
            split = split_of(role, camera)
            for image in range(count):
                inside = f"{person}/cam_{camera}_{person:05d}_{image:05d}.{ending}"
                folder = "train_all" if split == TRAIN else split
                shots.append(Shot(f"pytorch/{folder}/{inside}", person, camera, split))
                if split == TRAIN:
                    twice.append(f"pytorch/{'val' if image else 'train'}/{inside}")
    return fixed("fedreid_processed", shots, twice, texts={"pytorch/imgs.json": "{}\n"})


def processed_public() -> Miniature:
    """Makes the authors' public set, which has only training images."""
    shots = [
        Shot(f"pytorch/train_all/{person}/cam_{camera}_{person:05d}_00000.png", person, camera, TRAIN)
        for person in (0, 1, 2, 10, 1815)
        for camera in (0, 1)
    ]
    return fixed("fedreid_processed", shots)


def numbered_folders() -> Miniature:
    """Makes persons 0, 2, 10 and others, cameras of one or two digits, all endings, junk, distractors, a lone query."""
    endings = (".jpg", ".JPG", ".png", ".bmp", ".jpeg")
    seen = {TRAIN: {0: (1, 12), 2: (2,), 10: (1, 2), 33: (12, 3)}, QUERY: {4: (1,), 5: (12,), 6: (2,)}}
    seen[GALLERY] = {4: (1, 12, 2), 5: (1, 12), 6: (2,), 40: (3,)}
    shots = []
    for split, persons in seen.items():
        for person, cameras in persons.items():
            for camera in cameras:
                name = f"shot{len(shots):02d}_c{camera}{endings[len(shots) % 5]}"
                shots.append(Shot(f"{split}/{person}/{name}", person, camera, split))
    shots += [Shot(f"gallery/-1/{i}_c{i}.jpg", JUNK, i, GALLERY) for i in (1, 2)]
    shots += [Shot(f"gallery/distractor/{i}_c{i}.jpg", DISTRACTOR, i, GALLERY) for i in (2, 3)]
    lone = next(shot.path for shot in shots if (shot.split, shot.person) == (QUERY, 6))
    return fixed("id_folders", shots, unmatched=frozenset([lone]))


def named_folders() -> Miniature:
    """Makes persons with names and no cameras: queries count as one camera, gallery images as another."""
    seen = {
        TRAIN: {"anna": 2, "berta": 3, "carla": 1},
        QUERY: {"dora": 1, "emil": 2},
        GALLERY: {"dora": 2, "emil": 1, "10": 2, "junk": 1, "distractor": 1},
    }
    shots = [
        Shot(f"{split}/{person}/{image}.jpg", person, "gallery" if split == GALLERY else "any", split)
        for split, persons in seen.items()
        for person, count in persons.items()
        for image in range(count)
    ]
    return fixed("id_folders", shots)


def table() -> Miniature:
    """Makes a table with Windows lines, a byte order mark, quotes, a blank line, reordered columns, a shared image."""
    rows = [("morning", 0, 1), ("morning", 0, 14), ("noon, sunny", 7, 1), ("morning", 7, 2), ("noon, sunny", 12, 14)]
    shots = [Shot(f"shots/{day}/{i}.jpg", person, camera, TRAIN) for i, (day, person, camera) in enumerate(rows)]
    shots += [Shot(f"shots/query {camera}.png", 3, camera, QUERY) for camera in (1, 14)]
    shots += [Shot(f"shots/query {camera}.png", 3, camera, GALLERY) for camera in (1, 14)]
    shots += [Shot("shots/lone.bmp", 4, 2, QUERY), Shot("shots/lone again.bmp", 4, 2, GALLERY)]
    shots += [Shot("blurred.jpeg", JUNK, 1, GALLERY), Shot("passer-by.jpeg", DISTRACTOR, 2, GALLERY)]
    codes = {JUNK: "-1", DISTRACTOR: "distractor"}
    lines = ["camera,split,hat,identity,path"]
    lines += [f'{s.camera},{s.split},yes,{codes.get(s.person, s.person)},"{s.path}"' for s in reversed(shots)]
    lines.insert(4, "")
    text = "\ufeff" + "\r\n".join([*lines, "", ""])
    more = {"samples.csv": text, "notes.csv": "day,weather\n"}
    return fixed("csv_table", shots, ["shots/unlisted.jpg"], texts=more, unmatched=frozenset(["shots/lone.bmp"]))


MADE: dict[str, Callable[[], Miniature]] = {
    "processed/viper": lambda: processed("bmp"),
    "processed/prid": lambda: processed("png", alone=0),
    "processed/cuhk02": processed_public,
    "formatted/prid": formatted,
    "formatted/3dpes": lambda: formatted("images/", "bmp", validation=True),
    "own/numbers": numbered_folders,
    "own/names": named_folders,
    "own/table": table,
}
