"""Persons and cameras from file and folder names, parsed by the grammar of `data.names`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.data.names import (
    NameParts,
    camera_of_folder,
    compile_pattern,
    number_cameras,
    parse_name,
    plain_number,
    why_no_camera,
    why_no_person,
)
from fedreid_pl.data.readers.listing import Row, person_numbers, pictures_and_folders
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN
from fedreid_pl.errors import FedReIDError

CODES = {"-1": JUNK, "junk": JUNK, "distractor": DISTRACTOR}
"""Names of person folders for junk and distractors."""


@dataclass(frozen=True)
class Image:
    """An image, with the information from its folders.

    Args:
        path: path relative to the dataset's folder.
        split: number of the split.
        person: name of the person's folder; `None` if the person is in the file name.
        camera: name of the camera's folder; `None` if the camera is in the file name, or missing.
    """

    path: str
    split: int
    person: str | None = None
    camera: str | None = None


def person_images(root: Path, folder: str, split: int, expects: str) -> list[Image]:
    """Returns the images of `root/folder/PERSON/IMAGE` and `root/folder/PERSON/CAMERA/IMAGE`.

    Args:
        root: the dataset's folder.
        folder: folder relative to `root`; empty for `root` itself.
        split: split of the images.
        expects: expected content of the dataset, for messages.

    Raises:
        FedReIDError: if the folder is missing or contains no such image, or a person has images in both forms.
    """
    below = f"{folder}/" if folder else ""
    images = []
    for person in pictures_and_folders(root / folder, expects)[1]:
        place = root / folder / person
        names, inner = pictures_and_folders(place, expects)
        cameras = {camera: own for camera in inner if (own := pictures_and_folders(place / camera, expects)[0])}
        if names and cameras and all(camera_of_folder(camera) for camera in cameras):
            camera = next(iter(cameras))
            raise FedReIDError(
                f"{place}: images lie in the person's folder ({names[0]}) and in a folder below it "
                f"({camera}/{cameras[camera][0]}); put all of them into folders of cameras, or none"
            )
        images += [Image(f"{below}{person}/{name}", split, person) for name in names]
        images += [
            Image(f"{below}{person}/{camera}/{name}", split, person, camera_of_folder(camera) or camera)
            for camera, own in cameras.items()
            for name in own
            if not names  # if the person's folder has images, a subfolder such as "thumbnails" is not a camera
        ]
    if not images:
        raise FedReIDError(f"{root / folder}: contains no image in a folder of its person, such as 0001/NAME.jpg")
    return images


@dataclass(frozen=True)
class Named:
    """Persons and cameras from the names of a dataset.

    Args:
        rows: one row for every image, in the order of the images.
        found: source of person and camera, with one name as an example.
        has_cameras: whether the names have cameras. If not, queries and training images have camera 0, and gallery
            images have camera 1.
        numbered: whether person numbers are those in the names; if not, persons are numbered in alphabetical order.
    """

    rows: list[Row]
    found: str
    has_cameras: bool
    numbered: bool = True


def read_named(root: Path, images: Sequence[Image], pattern: str | None, *, needs_camera: bool = False) -> Named:
    """Returns person and camera of every image, parsed from its name or its folders.

    Args:
        root: the dataset's folder, for messages.
        images: images of the dataset, at least one.
        pattern: the regular expression of `data.name_pattern`.
        needs_camera: raise an error for names without a camera.

    Raises:
        FedReIDError: if a name cannot be parsed, or some names have a camera and others do not.
    """
    parts = _parse(root, images, pattern)
    persons = [
        image.person if image.person is not None else found.person for image, found in zip(images, parts, strict=True)
    ]
    cameras = [
        image.camera if image.camera is not None else found.camera for image, found in zip(images, parts, strict=True)
    ]
    without = [place for place, camera in enumerate(cameras) if camera is None]
    has_cameras = len(without) < len(images)
    if without and (has_cameras or (needs_camera and pattern is None)):
        path = root / images[without[0]].path
        others = next((image.path for image, camera in zip(images, cameras, strict=True) if camera is not None), None)
        raise FedReIDError(f"{path}: the name {why_no_camera(others)}")
    numbers = number_cameras(camera for camera in cameras if camera is not None)
    are_folders = images[0].person is not None
    who, numbered = number_persons(root, {person for person in persons if person is not None}, are_folders)
    assumed = {TRAIN: 0, QUERY: 0, GALLERY: 1}
    rows: list[Row] = [
        (image.path, who[person or ""], assumed[image.split] if camera is None else numbers[camera], image.split)
        for image, person, camera in zip(images, persons, cameras, strict=True)
    ]
    return Named(rows, _describe(images, parts, rows, pattern, has_cameras), has_cameras, numbered)


def number_persons(root: Path, names: Collection[str], are_folders: bool) -> tuple[dict[str, int], bool]:
    """Returns the number of every person, and whether these numbers are those in the names.

    If all names are numbers, they are used. Otherwise persons are numbered from 0 in alphabetical order.

    Raises:
        FedReIDError: if two folders have the same number, such as `01` and `1`.
    """
    known = sorted(name for name in names if name not in CODES)
    if not all(re.fullmatch(r"[0-9]{1,18}", name) for name in known):
        return CODES | {name: number for number, name in enumerate(known)}, False
    return CODES | (person_numbers(root, known) if are_folders else {name: int(name) for name in known}), True


def _parse(root: Path, images: Sequence[Image], pattern: str | None) -> list[NameParts]:
    compiled = None
    if pattern is not None:
        try:
            compiled = compile_pattern(pattern)
        except ValueError as error:
            raise FedReIDError(f"data.name_pattern={pattern}: {error}") from error
    parts = []
    for image in images:
        name = posixpath.basename(image.path)
        found = parse_name(name, compiled)
        if found.problem and not (image.camera is not None and compiled is None):
            raise FedReIDError(f"{root / image.path}: the name {found.problem}")
        if image.person is None and found.person is None:
            reason = why_no_person(name) if compiled is None else f"data.name_pattern={pattern} has no group person"
            raise FedReIDError(f"{root / image.path}: the name {reason}" if compiled is None else reason)
        if compiled is not None:
            _check_folders(root, image, found)
        parts.append(found)
    return parts


def _check_folders(root: Path, image: Image, found: NameParts) -> None:
    """Raises an error if a pattern finds another person or camera in the name than the folder has."""
    for kind, folder, text in (("person", image.person, found.person), ("camera", image.camera, found.camera)):
        if folder is not None and text is not None and plain_number(folder) != plain_number(text):
            raise FedReIDError(
                f"{root / image.path}: data.name_pattern takes {text} for the {kind}, the folder says {folder}; "
                f"leave the group {kind} out of the pattern"
            )


def _describe(
    images: Sequence[Image], parts: Sequence[NameParts], rows: Sequence[Row], pattern: str | None, has_cameras: bool
) -> str:
    """Returns the source of person and camera, with the first image as an example."""
    image, found, row = images[0], parts[0], rows[0]
    way = "data.name_pattern" if pattern is not None else "the file's name"
    person = "the folder's name" if image.person is not None else way
    camera = "the camera's folder" if image.camera is not None else way
    if not has_cameras:
        how = f"person from {person}, no camera in names"
    elif person == camera:
        how = f"person and camera from {person}"
    else:
        how = f"person from {person}, camera from {camera}"
    who = {JUNK: "junk", DISTRACTOR: "a distractor"}.get(row[1], str(row[1]))
    spelled = image.camera if image.camera is not None else found.spelled
    seen = f"camera {row[2]} ({spelled})" if has_cameras else "no camera"
    frame = f", frame {found.frame}" if found.frame is not None else ""
    written = image.person if image.person is not None else found.person
    if image.person is not None and found.frame is None and found.person is not None:
        frame = f", frame {found.person}"  # in a person's folder, a name with one number has only the frame
    return f"{how}; {image.path}: person {who} ({written}), {seen}{frame}"
