"""The small datasets in their authors' layouts; all except CUHK02 have drawn splits."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from .record import DISTRACTOR, GALLERY, QUERY, TRAIN, Draw, Miniature, Protocol, Shot, drawn, fixed
from .rules import FIRST, SECOND, each, persons_of, pseudo_cameras, two_cameras


def prid2011() -> Miniature:
    """Makes PRID2011: persons 1 to 200 are in both cameras; persons 201 of cameras a and b are different."""
    numbers = {"a": [1, 2, 7, 30, 99, 150, 200, 201, 203, 385], "b": [1, 2, 7, 30, 99, 150, 200, 201, 202, 749]}
    frames = {("a", 2): 13, ("b", 30): 12, ("a", 201): 11, ("a", 203): 10, ("b", 99): 0}  # two frames for all others
    single, multi = {}, {}
    for camera, own in numbers.items():
        for number in own:
            person = ("both" if number <= 200 else camera, number)
            single[person, camera] = f"single_shot/cam_{camera}/person_{number:04d}.png"
            folder = f"multi_shot/cam_{camera}/person_{number:04d}"
            multi[person, camera] = [
                f"{folder}/{frame:04d}.png" for frame in range(1, frames.get((camera, number), 2) + 1)
            ]
    shared = frozenset(person for person, _ in single if person[0] == "both")

    def draws(trained: frozenset[Hashable]) -> list[Draw]:
        found = []
        for (person, camera), path in single.items():
            place = {"a": FIRST, "b": SECOND}[camera]
            if person in trained or person[0] == "a":
                own = multi[person, camera]
                found.append(Draw(each(own), min(10, len(own)), person, place, TRAIN))
            else:
                found.append(Draw(each([path]), 1, person, place, QUERY if camera == "a" else GALLERY))
        return found

    persons = {path: person for (person, _), path in single.items()}
    persons |= {path: person for (person, _), own in multi.items() for path in own}
    protocol = Protocol(shared, len(shared) // 2, draws)
    return drawn("prid2011", persons, protocol, texts={"readme.txt": "notes\n"})


def cuhk01() -> Miniature:
    """Makes CUHK01: images 1 and 2 of a person are of the first camera, 3 and 4 of the second."""
    groups = {
        person: {
            camera: each(f"campus/{person:04d}{image:03d}.png" for image in images)
            for camera, images in ((FIRST, (1, 2)), (SECOND, (3, 4)))
        }
        for person in (1, 2, 3, 4, 10, 100, 486, 970, 971)
    }
    return drawn("cuhk01", persons_of(groups), two_cameras(groups))


def cuhk02() -> Miniature:
    """Makes CUHK02: five pairs of cameras with equal person numbers; the last pair is the test set."""
    shots = []
    for pair in range(1, 6):
        for view in (1, 2):
            split = TRAIN if pair < 5 else (QUERY, GALLERY)[view - 1]
            for person in (1, 2, 3 + pair):
                names = (f"{person:03d}_{2 * pair + image:04d}.png" for image in (1, 2))
                shots += [
                    Shot(f"Dataset/P{pair}/cam{view}/{name}", (pair, person), (pair, view), split) for name in names
                ]
    return fixed("cuhk02", shots, public=frozenset(shot.path for shot in shots))


def viper() -> Miniature:
    """Makes VIPeR: person numbers start at 0 and have gaps; angles are independent of camera and person."""
    groups = {
        person: {
            FIRST: each([f"cam_a/{person:03d}_{45 * (person % 3)}.bmp"]),
            SECOND: each([f"cam_b/{person:03d}_{45 * (person % 4 + 1)}.bmp"]),
        }
        for person in (0, 1, 3, 4, 45, 90, 632, 872, 873)
    }
    return drawn("viper", persons_of(groups), two_cameras(groups))


def threedpes() -> Miniature:
    """Makes 3DPeS: a view is a short sequence of one camera; some persons have a single view."""
    views: dict[int, list[frozenset[str]]] = {}
    for place, person in enumerate((1, 2, 3, 10, 11, 20, 100, 101, 193)):
        for view in range(1 + place % 4):
            frames = range(4, 5 + (person + view) % 3)
            names = [f"RGB/{person}_{16 + 3 * view + place}_FRAME_{17 * frame}_RGB.bmp" for frame in frames]
            views.setdefault(person, []).append(frozenset(names))
    order = np.random.RandomState(9686).permutation(len(views))
    tested = order[: len(views) - len(views) // 2].tolist()
    recorded = frozenset(person for place, person in enumerate(sorted(views)) if place not in tested)
    persons = {path: person for person, own in views.items() for group in own for path in sorted(group)}
    masks = [path.replace("RGB/", "Silhouettes/") for path in persons]
    return drawn("3dpes", persons, pseudo_cameras(views, recorded), masks)


def ilids() -> Miniature:
    """Makes i-LIDS: two to six images of a person, without a camera in the name."""
    views = {
        person: each(f"Persons/{person:04d}{image:03d}.jpg" for image in range(1, 3 + place % 5))
        for place, person in enumerate((1, 2, 3, 10, 57, 60, 99, 118, 119))
    }
    order = np.random.RandomState(411).permutation(len(views))
    recorded = frozenset(sorted(views)[place] for place in order[: len(views) // 2].tolist())
    persons = {path: person for person, own in views.items() for (path,) in own}
    return drawn("ilids", persons, pseudo_cameras(views, recorded))


def grid(*official: frozenset[int]) -> Miniature:
    """Makes GRID: one probe and one gallery image of a person, and gallery images of person 0, who is no query."""
    numbers = (1, 2, 3, 10, 77, 125, 126, 250)
    cameras = {person: (place % 8 + 1, (place + 3) % 8 + 1) for place, person in enumerate(numbers)}
    sides = {
        person: tuple(
            f"{folder}/{person:04d}_{camera}_25{person:03d}_107_32_106_221.jpeg"
            for folder, camera in zip(("probe", "gallery"), cameras[person], strict=True)
        )
        for person in numbers
    }
    nobody = {f"gallery/0000_{camera}_26{camera:03d}_1_1_9_9.jpeg": camera for camera in (1, 2, 5, 8)}

    def draws(trained: frozenset[Hashable]) -> list[Draw]:
        found = [Draw(each([path]), 1, DISTRACTOR, camera, GALLERY) for path, camera in nobody.items()]
        for person, paths in sides.items():
            for path, camera, split in zip(paths, cameras[person], (QUERY, GALLERY), strict=True):
                found.append(Draw(each([path]), 1, person, camera, TRAIN if person in trained else split))
        return found

    persons = {path: person for person, paths in sides.items() for path in paths} | dict.fromkeys(nobody, DISTRACTOR)
    protocol = Protocol(frozenset(numbers), len(numbers) // 2, draws, official=official)
    texts = {"features_and_partitions.mat": partitions(official)} if official else {}
    return drawn("grid", persons, protocol, texts=texts)


def partitions(splits: Sequence[frozenset[int]]) -> bytes:
    """Writes GRID's file of splits: one cell per split, a struct whose third field lists the training persons."""
    from scipy.io import savemat

    cells = np.empty((1, len(splits)), dtype=object)
    for number, persons in enumerate(splits):
        row = np.array([sorted(persons)], dtype=np.uint16)
        cells[0, number] = {"first": row + 1, "second": row + 2, "third": row}
    stream = io.BytesIO()
    savemat(stream, {"trainIdxAll": cells})
    return stream.getvalue()


def caviar() -> Miniature:
    """Makes CAVIAR4REID: images 1 to 10 are of the first camera, 11 to 20 of the second; others are not used."""
    groups = {
        person: {
            camera: each(f"CAVIARa/{person:04d}{image:03d}.jpg" for image in images)
            for camera, images in ((FIRST, (1, 2, 10)), (SECOND, (11, 12, 20)))
        }
        for person in (1, 2, 3, 9, 10, 49, 50)
    }
    others = [f"CAVIARa/{person:04d}{image:03d}.jpg" for person in (51, 72) for image in (1, 10)]
    return drawn("caviar", persons_of(groups), two_cameras(groups), others)


SMALL: dict[str, Callable[[], Miniature]] = {
    "prid_2011": prid2011,
    "CUHK01": cuhk01,
    "CUHK02": cuhk02,
    "VIPeR": viper,
    "3DPeS": threedpes,
    "i-LIDS_Pedestrian": ilids,
    "underground_reid": grid,
    "underground_reid-official": lambda: grid(frozenset({1, 10, 77, 250}), frozenset({2, 3, 125, 126})),
    "CAVIAR4REID": caviar,
}
