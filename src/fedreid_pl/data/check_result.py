"""The result of the check of the datasets of a configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedreid_pl.data.catalogue import Counts
from fedreid_pl.data.inventory_counts import Inventory
from fedreid_pl.data.overlap_found import Overlap
from fedreid_pl.data.samples import SPLITS

Use = Literal["client", "unseen", "public", "none"]


@dataclass(frozen=True)
class SplitCounts:
    """Numbers of persons (all distractors are one), images (junk included) and cameras of a split."""

    identities: int
    images: int
    cameras: int


@dataclass
class DatasetCheck:
    """The result of the check of one dataset.

    Args:
        name: name in `data.datasets`.
        use: `"client"`, `"unseen"` (in `data.leave_out`), `"public"`, or `"none"` for a dataset that the configuration
            does not use.
        folder: folder of the dataset, `None` if it is missing.
        layout: key of the layout of the dataset.
        found: source of person and camera numbers, with one file name as an example.
        splits: counts by split.
        cameras: number of cameras in all splits.
        table1: counts of Table 1 of the paper, if they apply.
        differences: differences between the counts and Table 1, one line each.
        notes: explanations of these counts.
        problem: reason why the dataset cannot be used, and what to do.
        images: number of different files that were decoded.
        unreadable: path and reason of every file that could not be decoded.
        skipped: whether a run skips unreadable files (`data.on_bad_image=skip`) instead of ending.
        files: inventory of all files in the folder.
        pixels: hashes of the decoded images by path.
        seconds: duration of the check.
    """

    name: str
    use: Use
    folder: Path | None = None
    layout: str | None = None
    found: str = ""
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    cameras: int = 0
    table1: Counts | None = None
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None
    images: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    skipped: bool = False
    files: Inventory | None = None
    pixels: dict[str, bytes] = field(default_factory=dict, repr=False)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether a run can use the dataset: it is readable, and every image is decoded or may be skipped.

        Counts that differ from the paper are not an error.
        """
        return self.problem is None and (self.skipped or not self.unreadable)

    def counts(self) -> Counts | None:
        """Returns the counts in the form of Table 1, or `None` if the dataset was not read."""
        if not self.splits:
            return None
        numbers = [number for name in SPLITS for number in (self.splits[name].identities, self.splits[name].images)]
        return Counts(self.cameras, *numbers)


@dataclass
class DataCheck:
    """The result of `check_data`.

    Args:
        data: name of the data configuration.
        root: the folder of the datasets.
        synthetic: whether the images are drawn by this program.
        datasets: clients in the order of the configuration, the public set, and other datasets of the catalogue.
        problem: reason why the datasets cannot be used together, although each of them can be used alone.
        remarks: remarks on the images that a run would read and test, one line each.
        overlaps: images and persons that are in two places. Images are compared by their bytes and by their pixels.
        seconds: duration of the check.
    """

    data: str
    root: Path
    synthetic: bool
    datasets: list[DatasetCheck]
    problem: str | None = None
    remarks: list[str] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def faulty(self) -> list[DatasetCheck]:
        """The datasets that the configuration needs but a run cannot use."""
        return [dataset for dataset in self.datasets if dataset.use != "none" and not dataset.ok]

    @property
    def ok(self) -> bool:
        """Whether a run with this configuration finds all datasets that it needs."""
        return self.problem is None and not self.faulty

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain values for JSON."""
        values = asdict(self) | {"root": str(self.root), "ok": self.ok}
        for dataset, item in zip(self.datasets, values["datasets"], strict=True):
            item["ok"] = dataset.ok
            item["folder"] = str(dataset.folder) if dataset.folder else None
            item["table1"] = dataset.table1._asdict() if dataset.table1 else None
            del item["pixels"]
            item["files"] = dataset.files.as_dict() if dataset.files else None
            item["unreadable"] = [{"path": path, "reason": reason} for path, reason in dataset.unreadable]
        return values
