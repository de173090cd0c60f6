"""The section `data` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from fedreid_pl.config.keys import key


@dataclass
class DataConfig:
    """Settings of the datasets: where the pictures are, how they are read, and how they are divided into clients."""

    name: str = key("minireid", "Name of the data configuration. Set by data=NAME.")
    synthetic: bool = key(
        False,
        "Whether this program generated the pictures. The program sets this key from the files and their manifest. "
        'Every table then says "synthetic".',
    )
    source: str = key(
        "folder",
        "Source of the pictures. folder: read data.root; minireid: generate the MiniReID benchmark first.",
        choices=("folder", "minireid"),
    )
    version: int = key(
        1, "Version of the MiniReID benchmark: 1 or 2 (the newest). Used with data.source=minireid.", at_least=1
    )
    root: str | None = key(None, "Folder that contains one folder per dataset.", path=True)
    minireid_dir: str | None = key(
        None,
        "Folder in which the MiniReID benchmark is generated. null: a folder in ~/.cache/fedreid_pl "
        "($FEDREID_PL_CACHE).",
        path=True,
    )
    layout: str = key("market1501", "Layout of the dataset folders. auto: recognise the layout of each folder.")
    name_pattern: str | None = key(
        None,
        "Regular expression with the groups person, camera and frame, searched in file names. null: the naming "
        "schemes that the program knows.",
    )
    split: int = key(0, "Number of the split, for a dataset with several official or random splits.", at_least=0)
    split_seed: int = key(0, "Seed of random splits and of random groups of identities.", at_least=0)
    test_ids: float = key(
        0.5,
        "Share of the persons seen by several cameras that is used for testing (data=crops).",
        above=0.0,
        at_most=0.95,
    )
    datasets: list[str] = key(
        list, "Dataset folders in data.root, or NAME=FOLDER, in order. Empty: every folder with the layout data.layout."
    )
    leave_out: str | None = key(
        None,
        "Datasets that no client trains on: NAME or NAME,NAME. The global model is tested on their query and gallery "
        "sets as on an unseen domain. Training, validation, BatchNorm statistics and the public set use none of their"
        " pictures.",
    )
    public: str | None = key(None, "Folder of the unlabelled public set for distillation. It is never a client.")
    public_overlap: str = key(
        "refuse",
        "Action for public images that show test persons of a client (CUHK02's P1 and CUHK01). refuse: stop with an "
        "error; drop: remove the images; keep: use them.",
        choices=("refuse", "drop", "keep"),
    )
    overlap: str = key(
        "auto",
        "Action when a picture or a person occurs in two places. refuse: stop with an error; warn: print a warning; "
        "auto: refuse a picture that is in the training set and in the test set of one dataset, or in the test set of"
        " data.leave_out and anywhere else, and warn about other cases.",
        choices=("auto", "refuse", "warn"),
    )
    scenario: str = key(
        "by_dataset",
        "Division of the datasets into clients: one client per dataset, per camera or per group of identities, or one"
        " client with all data (merged).",
        choices=("by_dataset", "by_camera", "by_identity", "merged"),
    )
    clients: str = key(
        "all",
        "Clients that take part. all: every client; large: clients with at least the median number of training "
        "images; small: clients with fewer.",
        choices=("all", "large", "small"),
    )
    parts: int | None = key(
        None,
        "Number of identity groups per dataset with data.scenario=by_identity. null: the number of cameras of the "
        "dataset.",
        at_least=1,
    )
    height: int = key(256, "Image height in pixels.", at_least=8, at_most=8192)
    width: int = key(128, "Image width in pixels.", at_least=8, at_most=8192)
    pad: int = key(10, "Width in pixels of the black border that is added before the random crop.", at_least=0)
    flip: float = key(0.5, "Probability that a training image is mirrored.", at_least=0.0, at_most=1.0)
    erasing: float = key(
        0.0,
        "Probability that a random rectangle of a training image is erased (random erasing).",
        at_least=0.0,
        at_most=1.0,
    )
    jitter: float = key(
        0.0, "Strength of the random changes of brightness, contrast and saturation.", at_least=0.0, at_most=1.0
    )
    cache: str = key(
        "auto",
        "Cache of decoded images. memory; disk: in data.cache_dir, shared with later runs; none; auto: memory if the "
        "images fit.",
        choices=("auto", "memory", "disk", "none"),
    )
    cache_dir: str | None = key(
        None,
        "Folder of decoded images and of the indexes of large datasets. null: ~/.cache/fedreid_pl ($FEDREID_PL_CACHE).",
        path=True,
    )
    workers: int | None = key(
        None,
        "Number of threads that load images ahead when the images are not cached in memory. All clients share the "
        "threads. null: one per processor.",
        at_least=0,
    )
    on_bad_image: str = key(
        "error",
        "Action for an image that cannot be read. error: stop the run and name the image; skip: leave the image out "
        "of the dataset before training.",
        choices=("error", "skip"),
    )
    instances: int | None = key(
        None, "Images per identity in a batch (K in P x K sampling). null: batches of shuffled images.", at_least=2
    )
    hold_out: str = key(
        "none",
        "Training images that are left out. none: use all; first: leave out the first image of every identity (the "
        "published code without --train_all).",
        choices=("none", "first"),
    )
    incomplete_batches: str = key(
        "train",
        "Last batch of an epoch when it has fewer than batch_size images. train: train on it; skip: skip it (the "
        "published code). With skip, a client with fewer than batch_size images never trains.",
        choices=("train", "skip"),
    )
    val_ids: float = key(
        0.0,
        "Share of each client's training identities that is held out for validation. Above 0, the validation score "
        "selects the best round.",
        at_least=0.0,
        at_most=0.5,
    )
    single_shot: int = key(
        0,
        "Number of random single-shot galleries (one image per person) over which the CMC is averaged; 10 is usual. "
        "0: no single-shot CMC.",
        at_least=0,
        at_most=10_000,
    )
    keep_unmatched: bool = key(
        False,
        "Counts a query without a match in another camera as a failure (the published code). false: leave such "
        "queries out.",
    )
    test_batch_size: int = key(128, "Images per batch in evaluation.", at_least=1)
    probe_size: int = key(
        32, "Number of training images in the probe batch that measures the cosine distance weight.", at_least=1
    )
