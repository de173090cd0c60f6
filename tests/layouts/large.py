"""The large datasets Market-1501, DukeMTMC-reID, CUHK03-NP and MSMT17 in distributed and converted layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .record import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN, Miniature, Shot, Sight, cast, fixed

FOLDERS = {TRAIN: "bounding_box_train", QUERY: "query", GALLERY: "bounding_box_test"}
Namer = Callable[[Sight], str]


def market_name(sight: Sight) -> str:
    """Returns a name with person, camera, sequence, frame and box; a query's box was drawn by hand and is 00."""
    box = 0 if sight.split == QUERY else sight.number + 1
    sequence, frame = 1 + sight.person % 3, sight.person * 25 + sight.number
    return f"{sight.person:04d}_c{sight.camera}s{sequence}_{frame:06d}_{box:02d}.jpg"


def duke_name(sight: Sight) -> str:
    """Returns a name with person, camera and frame."""
    return f"{sight.person:04d}_c{sight.camera}_f{sight.person * 1000 + sight.number:07d}.jpg"


def cuhk03_name(sight: Sight) -> str:
    """Returns a name with person, camera and a running number of the split."""
    return f"{sight.person:04d}_c{sight.camera}_{300 + 10 * sight.person + sight.number}.png"


def converted_msmt17_name(sight: Sight) -> str:
    """Returns a name with person, camera of one or two digits, and index."""
    return f"{sight.person:04d}_c{sight.camera}_{(sight.split == QUERY) * 50 + sight.number:04d}.jpg"


MARKET = cast([1, 2, 3, 4, 5, 6], train=[2, 7, 10, 11, 12, 1500, 1501], test=[1, 4, 23, 1498])
MARKET_JUNK = [f"-1_c{camera}s1_000{camera}01_03.jpg" for camera in (1, 3, 6)]
MARKET_DISTRACTORS = [f"0000_c{camera}s2_000151_0{camera}.jpg" for camera in (1, 4, 5)]
DUKE = cast([1, 2, 5, 8], train=[1, 5, 9, 30, 7139], test=[6, 20, 7140], alone=[3, 2000])
CUHK03 = cast([1, 2], train=[1, 2, 4, 70, 1467], test=[3, 9, 1000])
MSMT17 = cast([1, 2, 9, 10, 12, 15], train=range(6), test=range(4), shots=2)
"""Test persons 0 to 3 differ from the training persons with these numbers; person 0 is a person."""


def market_shots(sights: Iterable[Sight], name: Namer) -> list[Shot]:
    """Makes images in Market-1501's folders; training and test persons are always different."""
    return [Shot(f"{FOLDERS[s.split]}/{name(s)}", (s.split == TRAIN, s.person), s.camera, s.split) for s in sights]


def market1501() -> Miniature:
    """Makes junk, distractors, and the boxes and notes that single-query protocols do not read."""
    shots = market_shots(MARKET, market_name)
    for names, person in ((MARKET_JUNK, JUNK), (MARKET_DISTRACTORS, DISTRACTOR)):
        shots += [Shot(f"bounding_box_test/{name}", person, int(name.split("_c")[1][0]), GALLERY) for name in names]
    boxes = ["gt_bbox/0001_c1s1_001051_00.jpg", "gt_bbox/0002_c1s1_000451_00.jpg"]
    texts = {"readme.txt": "notes\n", "gt_query/0001_c1s1_001051_00_good.mat": b"\x00MATLAB"}
    return fixed("market1501", shots, boxes, texts=texts)


def duke() -> Miniature:
    """Makes gallery-only persons of one camera with separate numbers."""
    return fixed("market1501", market_shots(DUKE, duke_name), texts={"LICENSE_DukeMTMC.txt": "notes\n"})


def cuhk03() -> Miniature:
    """Makes one half of CUHK03-NP, detected or labeled."""
    return fixed("market1501", market_shots(CUHK03, cuhk03_name))


def converted_msmt17() -> Miniature:
    """Makes MSMT17 in the folders of Market-1501."""
    return fixed("market1501", market_shots(MSMT17, converted_msmt17_name), restarts=True)


def msmt17(train: str, test: str, newline: str) -> Miniature:
    """Makes MSMT17's distributed layout: folders of persons, and lists with line ends `newline` and a blank line."""
    shots, lists = [], {name: [] for name in ("train", "val", "query", "gallery")}
    for place, sight in enumerate(MSMT17):
        image = f"{sight.person:04d}_{place:03d}_{sight.camera:02d}_0303morning_{sight.number:04d}_{place % 3}.jpg"
        inside = f"{sight.person:04d}/{image}"
        folder = train if sight.split == TRAIN else test
        shots.append(Shot(f"{folder}/{inside}", (sight.split == TRAIN, sight.person), sight.camera, sight.split))
        # val has the persons of train
        name = "val" if sight.split == TRAIN and sight.number else sight.split
        lists[name].append(f"{inside} {sight.person}")
    texts = {f"list_{name}.txt": newline.join([*lines, "", ""]) for name, lines in lists.items()}
    unlisted = f"{test}/0000/0000_900_03_0303noon_0001_0.jpg"
    return fixed("msmt17", shots, [unlisted], texts=texts)


def people_folders(sights: Sequence[Sight], name: Namer, more: Iterable[Shot] = (), **options) -> Miniature:
    """Makes the authors' processed folders of a large set: `train_all`, and its images again in `train` and `val`."""
    shots = []
    twice, held_out = [], set()
    for sight in sights:
        inside = f"{sight.person:04d}/{name(sight)}"
        if sight.split == TRAIN:
            twice.append(f"pytorch/{'train' if sight.person in held_out else 'val'}/{inside}")
            held_out.add(sight.person)
        folder = "train_all" if sight.split == TRAIN else sight.split
        person = (sight.split == TRAIN, sight.person)
        shots.append(Shot(f"pytorch/{folder}/{inside}", person, sight.camera, sight.split))
    twice.append("pytorch/multi-query/0001/0001_c1s1_001051_00.jpg")
    return fixed("fedreid_processed", [*shots, *more], twice, **options)


def processed_market() -> Miniature:
    """Makes junk in the folder -1 and distractors in the folder 0000."""
    more = [
        Shot(f"pytorch/gallery/{name.split('_')[0]}/{name}", person, int(name.split("_c")[1][0]), GALLERY)
        for names, person in ((MARKET_JUNK, JUNK), (MARKET_DISTRACTORS, DISTRACTOR))
        for name in names
    ]
    return people_folders(MARKET, market_name, more)


LARGE: dict[str, Callable[[], Miniature]] = {
    "Market-1501-v15.09.15": market1501,
    "DukeMTMC-reID": duke,
    "cuhk03-np/detected": cuhk03,
    "cuhk03-np/labeled": cuhk03,
    "MSMT17": converted_msmt17,
    "MSMT17_V1": lambda: msmt17("train", "test", "\n"),
    "MSMT17_V2": lambda: msmt17("mask_train_v2", "mask_test_v2", "\r\n"),
    "processed/Market": processed_market,
    "processed/DukeMTMC-reID": lambda: people_folders(DUKE, duke_name),
    "processed/Duke": lambda: people_folders(DUKE, duke_name),
    "processed/cuhk03-np-detected": lambda: people_folders(CUHK03, cuhk03_name),
    "processed/cuhk03": lambda: people_folders(CUHK03, cuhk03_name),
    "processed/MSMT17": lambda: people_folders(MSMT17, converted_msmt17_name, restarts=True),
}
