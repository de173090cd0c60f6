"""The list of all images of a domain: person, camera and file name of each, without pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from fedreid_pl.data.minireid.domains import Domain
from fedreid_pl.data.minireid.streams import Stream

TRAIN_FOLDER, QUERY_FOLDER, GALLERY_FOLDER = "bounding_box_train", "query", "bounding_box_test"
FOLDERS = (TRAIN_FOLDER, GALLERY_FOLDER, QUERY_FOLDER)
TRACK = 3
"""Number of images of one walk through a camera's view; they share viewpoint, place and light."""

Cell = tuple[int, int]
"""A person and a camera."""


@dataclass(frozen=True)
class Shot:
    """The description of one image.

    Args:
        path: `folder/file name` below the domain's folder.
        kind: `person`, `stranger` (a person without a number), `junk` (a bad crop) or `background`.
        person: number of the person within `kind`; it determines the appearance.
        camera: camera number, from 1.
        index: running number of the image among those of this person and camera.
    """

    path: str
    kind: str
    person: int
    camera: int
    index: int


@lru_cache(maxsize=32)
def schedule(domain: Domain) -> tuple[Shot, ...]:
    """Returns all images of a domain in a fixed order (training, query, gallery; persons ascending).

    Person numbers start at 1. As in Market-1501, they are assigned to training and test at random, and training and
    test never share a number.
    """
    people = domain.train_ids + domain.query_ids + domain.gallery_only_ids
    numbers = Stream(domain.key, "numbers").shuffled(range(1, people + 1))
    train = sorted(numbers[: domain.train_ids])
    asked = sorted(numbers[domain.train_ids : domain.train_ids + domain.query_ids])
    only = sorted(numbers[domain.train_ids + domain.query_ids :])
    shots = _shots(domain, TRAIN_FOLDER, _training(domain, train), {})
    if domain.labelled:
        query = _query(domain, asked)
        gallery = _gallery(domain, asked, only, query)
        shots += _shots(domain, QUERY_FOLDER, query, {})
        shots += _shots(domain, GALLERY_FOLDER, gallery, query)
        shots += _anonymous(domain)
    return tuple(shots)


def _training(domain: Domain, people: list[int]) -> dict[Cell, int]:
    draw = Stream(domain.key, "training")
    single = set(draw.shuffled(people)[: domain.train_single_ids])
    # a person needs an additional image for every additional camera
    spare = domain.train_images - len(people)
    wanted: dict[int, list[int]] = {}
    for person in draw.shuffled(people):
        seen = 1 if person in single else _cameras_seen(draw, domain.cameras)
        seen = 1 + min(seen - 1, spare)
        spare -= seen - 1
        wanted[person] = sorted(draw.shuffled(range(1, domain.cameras + 1))[:seen])
    cells = [(person, camera) for person in people for camera in wanted[person]]
    return _spread(draw, cells, domain.train_images, even=domain.train_images < 5 * len(people))


def _query(domain: Domain, people: list[int]) -> dict[Cell, int]:
    draw = Stream(domain.key, "query")
    if domain.query_cameras == "first":
        return _spread(draw, [(person, 1) for person in people], domain.query_images, even=True)
    # one image per selected person and camera: first every person once, the rest at random
    first = {(person, 1 + draw.index(domain.cameras)) for person in people}
    rest = [(p, c) for p in people for c in range(1, domain.cameras + 1) if (p, c) not in first]
    chosen = first | set(draw.shuffled(rest)[: domain.query_images - len(first)])
    return dict.fromkeys(sorted(chosen), 1)


def _gallery(domain: Domain, people: list[int], only: list[int], query: dict[Cell, int]) -> dict[Cell, int]:
    draw = Stream(domain.key, "gallery")
    total = domain.gallery_images - domain.junk - domain.distractors
    if domain.query_cameras == "first":
        others = range(2, domain.cameras + 1)
        cells = [(person, 2 + draw.index(len(others))) for person in people]
        cells += [(person, 2 + draw.index(len(others))) for person in only]
        return _spread(draw, sorted(cells), total, even=True)
    must = set()
    for person in people:  # two cameras each, so that every query has a match in another camera
        must |= {(person, camera) for camera in draw.shuffled(range(1, domain.cameras + 1))[:2]}
    must |= {(person, 1 + draw.index(domain.cameras)) for person in only}
    asked = [cell for cell in draw.shuffled(sorted(query)) if cell not in must]
    cells = sorted(must | set(asked[: max(0, total - len(must))]))
    return _spread(draw, cells, total, even=False)


def _cameras_seen(draw: Stream, cameras: int) -> int:
    return 2 if cameras == 2 else 2 + draw.index(cameras - 2 if cameras < 6 else cameras // 2)


def _spread(draw: Stream, cells: list[Cell], total: int, even: bool) -> dict[Cell, int]:
    """Distributes `total` images over the cells, at least one each; unevenly (as by long and short walks) or evenly."""
    if len(cells) > total:
        raise ValueError(f"{len(cells)} persons and cameras cannot share {total} images")
    shares = [(1.0 if even else draw.between(0.1, 1.0) * draw.between(0.2, 1.0)) for _ in cells]
    rest, whole = total - len(cells), sum(shares)
    exact = [rest * share / whole for share in shares]
    counts = [1 + int(part) for part in exact]
    # largest remainder method; ties are broken by a random order, not by position
    order = draw.shuffled(range(len(cells)))
    order.sort(key=lambda cell: int(exact[cell]) - exact[cell])
    for cell in order[: total - sum(counts)]:
        counts[cell] += 1
    return dict(zip(cells, counts, strict=True))


def _shots(domain: Domain, folder: str, counts: dict[Cell, int], before: dict[Cell, int]) -> list[Shot]:
    shots = []
    for (person, camera), count in counts.items():
        start = before.get((person, camera), 0)  # gallery images continue the numbers of the query images
        for index in range(start, start + count):
            box = 0 if folder == QUERY_FOLDER else 1 + (person + index) % 5
            number = f"{person:04d}" if domain.labelled else "-1"
            shots.append(_shot(folder, number, "person", person, camera, index, box))
    return shots


def _anonymous(domain: Domain) -> list[Shot]:
    shots = []
    for kind, number, count in (("junk", "-1", domain.junk), ("distractor", "0000", domain.distractors)):
        draw = Stream(domain.key, kind)
        for index in range(count):
            camera = 1 + draw.index(domain.cameras)
            drawn = "junk" if kind == "junk" else draw.pick(("background", "background", "stranger"))
            box = 1 + index % 5
            shots.append(_shot(GALLERY_FOLDER, number, drawn, index, camera, 0, box))
    return shots


def _shot(folder: str, number: str, kind: str, person: int, camera: int, index: int, box: int) -> Shot:
    # frame numbers only need to look realistic and be unique per camera, person and index
    sequence = 1 + (person * 7 + camera) % 6
    frame = 101 + person % 600 * 1500 + person // 600 + 25 * index
    return Shot(f"{folder}/{number}_c{camera}s{sequence}_{frame:06d}_{box:02d}.jpg", kind, person, camera, index)
