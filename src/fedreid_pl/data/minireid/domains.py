"""The ten domains of every version of MiniReID: sizes, cameras and looks.

A training set has about a tenth of the images of the real dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fedreid_pl.data.minireid import looks
from fedreid_pl.data.minireid.looks import Look
from fedreid_pl.data.minireid.streams import VERSION


@dataclass(frozen=True)
class Domain:
    """Sizes and style of one domain.

    Args:
        name: folder name; it is part of every seed, so two domains never share a person or a camera.
        cameras: number of cameras, numbered from 1.
        train_ids, train_images: training persons and their images.
        query_ids, query_images: test persons and their query images.
        gallery_images: images of the test folder, junk and distractors included.
        gallery_only_ids: persons in the gallery that only one camera sees and that are never a query; they have
            ordinary positive numbers.
        junk: images of the test folder with the number `-1`: badly cropped detections.
        distractors: images of the test folder with the number `0000`: background and strangers.
        train_single_ids: training persons that only one camera sees.
        query_cameras: `"all"` (queries from several cameras) or `"first"` (queries from camera 1, gallery images from
            the other cameras).
        size: width and height of the files, in pixels.
        look: clothes, places and camera hardware.
        version: version of the benchmark; it is part of every seed, so two versions never share a person or a camera.

    Raises:
        ValueError: if the counts are impossible, for example more query images than pairs of person and camera.
    """

    name: str
    cameras: int
    train_ids: int
    train_images: int
    query_ids: int
    query_images: int
    gallery_images: int
    gallery_only_ids: int = 0
    junk: int = 0
    distractors: int = 0
    train_single_ids: int = 0
    query_cameras: str = "all"
    size: tuple[int, int] = (32, 64)
    look: Look = looks.CUHK02
    version: int = VERSION

    @property
    def key(self) -> str:
        """Version and name, the first part of every seed of this domain."""
        return f"minireid-v{self.version}/{self.name}"

    @property
    def labelled(self) -> bool:
        """Whether the training images have person numbers; in the public domain all numbers are `-1`."""
        return self.query_ids > 0

    @property
    def images(self) -> int:
        """Number of files in all three folders."""
        return self.train_images + self.query_images + self.gallery_images

    def __post_init__(self) -> None:
        known = self.gallery_images - self.junk - self.distractors - self.gallery_only_ids
        query_cells = self.query_ids * (self.cameras if self.query_cameras == "all" else 1)
        two_cameras = self.labelled and self.query_cameras == "all"
        checks = {
            "train_images >= train_ids": self.train_images >= self.train_ids,
            "train_single_ids <= train_ids": self.train_single_ids <= self.train_ids,
            "query_images >= query_ids": self.query_images >= self.query_ids,
            "at least two cameras": self.cameras >= 2,
            "query_cameras is 'all' or 'first'": self.query_cameras in ("all", "first"),
            "one query per person and camera": not two_cameras or self.query_images <= query_cells,
            # every queried person needs two cameras, or a query might have no match in another camera
            "enough gallery images": known >= self.query_ids * (2 if two_cameras else 1),
        }
        failed = [text for text, holds in checks.items() if not holds]
        if failed:
            raise ValueError(f"{self.name}: impossible counts, needs {failed[0]}")

    def scaled(self, factor: float) -> Domain:
        """Returns the domain with all numbers of persons and images multiplied by `factor`, but at least valid sizes.

        Cameras, look, file size and name do not change, so a person looks the same as in the full domain.
        """

        def part(count: int, least: int = 0) -> int:
            return max(least, round(count * factor)) if count else 0

        train_ids, query_ids = part(self.train_ids, 2), part(self.query_ids, 2)
        only, junk, distractors = part(self.gallery_only_ids), part(self.junk), part(self.distractors)
        query_images = part(self.query_images, query_ids)
        if self.query_cameras == "all":
            query_images = min(query_images, query_ids * self.cameras)
        answers = 2 if self.query_cameras == "all" else 1
        least = answers * query_ids + only + junk + distractors
        return replace(
            self,
            train_ids=train_ids,
            train_images=part(self.train_images, min(2 * train_ids, self.train_images)),
            train_single_ids=min(part(self.train_single_ids), train_ids),
            query_ids=query_ids,
            query_images=query_images,
            gallery_images=part(self.gallery_images, least),
            gallery_only_ids=only,
            junk=junk,
            distractors=distractors,
        )


_LATEST = (
    Domain("mini-msmt17", 15, 104, 3262, 306, 918, 3060, size=(32, 64), look=looks.MSMT17),
    Domain("mini-dukemtmcreid", 8, 70, 1652, 300, 600, 2400, 174, size=(36, 72), look=looks.DUKE),
    Domain("mini-market1501", 6, 75, 1294, 300, 600, 2400, 0, 464, 340, size=(32, 64), look=looks.MARKET),
    Domain("mini-cuhk03np", 2, 77, 737, 300, 600, 1500, size=(36, 80), look=looks.CUHK03),
    Domain(
        "mini-prid2011", 2, 29, 374, 300, 300, 650, 350, train_single_ids=18, query_cameras="first", size=(32, 64),
        look=looks.PRID2011,
    ),
    Domain("mini-cuhk01", 2, 49, 194, 300, 600, 600, query_cameras="first", size=(30, 80), look=looks.CUHK01),
    Domain("mini-viper", 2, 32, 63, 316, 316, 316, query_cameras="first", size=(24, 64), look=looks.VIPER),
    Domain(
        "mini-3dpes", 2, 9, 45, 300, 600, 750, 49, train_single_ids=1, query_cameras="first", size=(28, 64),
        look=looks.THREEDPES,
    ),
    Domain("mini-ilids", 2, 6, 25, 300, 490, 650, query_cameras="first", size=(32, 72), look=looks.ILIDS),
)  # fmt: skip

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in _LATEST}
"""The nine labelled domains of the newest version, largest first."""

PUBLIC = Domain("mini-cuhk02", 10, 182, 726, 0, 0, 0, size=(30, 80), look=looks.CUHK02)
"""The tenth domain: unlabelled images for distillation, training folder only, every file numbered `-1`."""

_TEST_SIZES = ("query_ids", "query_images", "gallery_images", "gallery_only_ids", "junk", "distractors")
_FIRST_TESTS = {
    "mini-msmt17": (306, 1166, 8216, 0, 0, 0),
    "mini-dukemtmcreid": (70, 223, 1766, 41, 0, 0),
    "mini-market1501": (75, 337, 1973, 0, 382, 280),
    "mini-cuhk03np": (70, 140, 533, 0, 0, 0),
    "mini-prid2011": (40, 40, 65, 25, 0, 0),
    "mini-cuhk01": (49, 97, 97, 0, 0, 0),
    "mini-viper": (40, 40, 40, 0, 0, 0),
    "mini-3dpes": (40, 110, 140, 6, 0, 0),
    "mini-ilids": (40, 65, 87, 0, 0, 0),
}


def domains_of(version: int) -> dict[str, Domain]:
    """Returns all ten domains of a version by name, the public domain last.

    All versions have training sets of the same sizes, and the same looks. Version 1 has smaller test sets.

    >>> [len(domains_of(version)) for version in (1, 2)]
    [10, 10]
    """
    every = {**DOMAINS, PUBLIC.name: PUBLIC}
    if version == VERSION:
        return every
    first = {name: replace(domain, version=1) for name, domain in every.items()}
    for name, numbers in _FIRST_TESTS.items():
        sizes: dict[str, Any] = dict(zip(_TEST_SIZES, numbers, strict=True))
        first[name] = replace(first[name], **sizes)
    return first
