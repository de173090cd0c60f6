"""The user's own images: one folder per person in each of train, query and gallery.

    ROOT/train/PERSON/IMAGE   ROOT/query/PERSON/IMAGE   ROOT/gallery/PERSON/IMAGE

PERSON is a number (`0012`, `12`; 0 is an ordinary person). If one of the folders is not a number, all are names: names
are numbered in alphabetical order, and the same name is the same person in query and gallery. `-1` or `junk` contains
junk. `distractor` contains images that are ranked and never correct.

The camera is in the image's name, parsed by the grammar of `data.names` (`anna_c2_0001.jpg`, `0001_cam2_7.png`) or by
`data.name_pattern`, or it is a folder below the person's (`train/0012/cam2/7.jpg`). Either all images have a camera or
none has. Without cameras every query has camera 0 and every gallery image camera 1 (training images 0), so that all
gallery images of the person are matches. Query and gallery must then not contain the same shot, or the scores are too
high.
"""

from __future__ import annotations

from pathlib import Path

from fedreid_pl.data.readers.csv_table import is_csv_table
from fedreid_pl.data.readers.cuhk03_mat import is_cuhk03_mat
from fedreid_pl.data.readers.dgd import is_dgd
from fedreid_pl.data.readers.fedreid_processed import is_fedreid_processed
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import has_folders, make_table
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.readers.named import person_images, read_named
from fedreid_pl.data.samples import SPLITS, SampleTable

EXPECTS = "train, query and gallery, each with one folder of images per person"
OTHERS = (is_market1501, is_msmt17, is_fedreid_processed, is_dgd, is_cuhk03_mat, is_csv_table)


def is_id_folders(root: Path) -> bool:
    """Returns whether `root` has `train`, `query` and `gallery`, and none of the more specific layouts."""
    return has_folders(root, "train", "query", "gallery") and not any(recognise(root) for recognise in OTHERS)


def read_id_folders(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns the samples below `root`, sorted by split and path.

    Raises:
        FedReIDError: if a folder is missing or has no image in a person's folder, two folders have the same number, or
            some names have a camera and others do not.
    """
    folders = ["train"] if options.train_only else list(SPLITS)
    images = [image for folder in folders for image in person_images(root, folder, SPLITS[folder], EXPECTS)]
    named = read_named(root, images, options.name_pattern)
    return make_table(name, root, named.rows, found=named.found, has_cameras=named.has_cameras)


LAYOUT = Layout("id_folders", "one folder per person", EXPECTS, is_id_folders, read_id_folders, named=True)
