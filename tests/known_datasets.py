"""A few empty files of every dataset in the catalogue, in its authors' layout."""

from __future__ import annotations

from pathlib import Path

from dataset_files import touch

MARKET = (
    *("bounding_box_train/0001_c1_1.jpg", "bounding_box_train/0001_c2_1.jpg", "bounding_box_train/0002_c1_1.jpg"),
    *("query/0003_c1_1.jpg", "bounding_box_test/0003_c2_1.jpg"),
)
PROCESSED = (
    *("pytorch/train_all/1/cam_0_00001_00000.jpg", "pytorch/train_all/2/cam_0_00002_00000.jpg"),
    *("pytorch/query/3/cam_0_00003_00000.jpg", "pytorch/gallery/3/cam_1_00003_00000.jpg"),
)
MSMT = tuple(
    f"{folder}/{person}/{person}_00{image}_0{image + 1}_a.jpg"
    for folder in ("train", "test")
    for person in ("0000", "0001")
    for image in (0, 1)
)
TRAIN_LINES = "".join(f"{path[6:]} {int(path[6:10])}\n" for path in MSMT[:4])
LISTS = {
    "list_train.txt": TRAIN_LINES[: len(TRAIN_LINES) // 2],
    "list_val.txt": TRAIN_LINES[len(TRAIN_LINES) // 2 :],
    "list_query.txt": f"{MSMT[4][5:]} 0\n",
    "list_gallery.txt": f"{MSMT[5][5:]} 0\n",
}
PRID = tuple(
    f"{place}" + ("/0001.png" if shot == "multi_shot" else ".png")
    for shot in ("single_shot", "multi_shot")
    for camera in ("cam_a", "cam_b")
    for person in (1, 2, 3, 4)
    for place in [f"{shot}/{camera}/person_{person:04d}"]
)
FILES = {
    "MSMT17": MSMT,
    "DukeMTMC-reID": MARKET,
    "Market-1501": MARKET,
    "CUHK03-NP": MARKET,
    "PRID2011": PRID,
    "CUHK01": tuple(f"campus/000{person}00{image}.png" for person in (1, 2, 3, 4) for image in (1, 2, 3, 4)),
    "VIPeR": tuple(f"cam_{camera}/00{person}_45.bmp" for camera in "ab" for person in range(4)),
    "3DPeS": tuple(f"RGB/{person}_{view}_FRAME_17_RGB.bmp" for person in range(1, 5) for view in (1, 2)),
    "i-LIDS": tuple(f"Persons/000{person}00{image}.jpg" for person in range(1, 5) for image in (1, 2)),
    "CUHK02": tuple(
        f"P{pair}/cam{view}/00{person}_1.png" for pair in range(1, 6) for view in (1, 2) for person in (1, 2)
    ),
    "GRID": tuple(
        f"{side}/000{person}_{camera}_1.jpeg"
        for side, camera in (("probe", 1), ("gallery", 2))
        for person in (1, 2, 3, 4)
    ),
    "CAVIAR4REID": tuple(f"CAVIARa/000{person}{image:03d}.jpg" for person in range(1, 5) for image in (1, 11)),
}
"""A few images of each dataset in its authors' layout, with at least two training persons and one test person."""


def write(root: Path, dataset: str, folder: str | None = None) -> Path:
    """Creates the empty files of `dataset` in the folder `root/folder`."""
    place = touch(root / (folder or dataset), *FILES[dataset])
    if dataset == "MSMT17":
        for name, text in LISTS.items():
            (place / name).write_text(text)
    return place
