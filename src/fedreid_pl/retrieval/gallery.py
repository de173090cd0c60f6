"""A gallery of persons: features with person names, and search by similarity."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fedreid_pl.errors import FedReIDError, counted
from fedreid_pl.retrieval.audit import write_audit
from fedreid_pl.retrieval.features import Features
from fedreid_pl.retrieval.gallery_file import GalleryFile, Row
from fedreid_pl.retrieval.held_rows import HeldRows
from fedreid_pl.retrieval.index import Index, build_index, check_index
from fedreid_pl.retrieval.matching import (
    Group,
    Match,
    Pooling,
    best_persons,
    best_rows,
    check_choices,
    matches_of,
    scores_in_parts,
    unit_features,
)
from fedreid_pl.retrieval.model import Progress, ReIDModel
from fedreid_pl.retrieval.pictures import Pictures, persons_of


class Gallery:
    """Features of persons in one file (SQLite) or in memory, searched exactly or by an approximate index.

    Rows are personal data. A gallery stores no images, only features and the names that the caller gives. Rows may
    expire. Removed rows are overwritten in the file. Several processes may add, remove and search at the same time:
    every change is a transaction, and after a killed process the file has the state of the last complete transaction.

    Args:
        path: the file, created if it is missing; `None` keeps the gallery in memory.
        index: `exact`, `faiss` or `usearch`.
        audit: file to which every search appends one line of JSON: time, number of queries, filters, and the persons
            found; `None` disables it.

    Raises:
        FedReIDError: if the file is not a gallery or cannot be opened, or if there is no such index.

    >>> import torch
    >>> gallery = Gallery()
    >>> features = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0]]))
    >>> gallery.add(features, persons=["ann", "bob"])
    2
    >>> gallery.search(torch.tensor([[1.0, 0.0]]), k=1)[0][0].person
    'ann'
    """

    def __init__(self, path: str | Path | None = None, index: str = "exact", audit: str | Path | None = None) -> None:
        self._file = GalleryFile(Path(os.path.expanduser(path)) if path is not None else None)
        check_index(index)
        self._index_name, self._audit = index, Path(os.path.expanduser(audit)) if audit is not None else None
        self._seen: tuple[int, ...] | None = None
        self._held = HeldRows()
        self._index: Index | None = None

    @classmethod
    def build(
        cls,
        model: ReIDModel,
        pictures: str | Path | Sequence[str | Path],
        path: str | Path | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Gallery:
        """Returns a gallery of the images in a folder (`PERSON/*.jpg`, `PERSON/CAMERA/*.jpg`) or of single files.

        An image without a folder is a separate person with the name of the file.

        Args:
            model: embeds the images; the gallery stores the identity of the model.
            pictures: a folder, a file or files.
            path: file of the gallery; `None` keeps the gallery in memory.
            progress: called after every batch.
            options: arguments of `Gallery`.

        Raises:
            FedReIDError: if there is no image, or the gallery was built with another model.
        """
        gallery = cls(path, **options)
        gallery.add_pictures(model, pictures, progress=progress)
        return gallery

    def __len__(self) -> int:
        self._refresh()
        return len(self._held)

    @property
    def header(self) -> dict[str, Any]:
        """Model and preprocessing of the rows; empty if the rows were added without a header."""
        return self._file.header()

    def add(
        self,
        features: Tensor,
        persons: Sequence[str],
        cameras: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        expires_at: datetime | None = None,
        header: dict[str, Any] | None = None,
    ) -> int:
        """Adds rows and returns their number.

        Args:
            features: `[N, D]` floating point, of length 1. The rows of a tracklet are several rows of one person.
            persons: person of each row.
            cameras: camera of each row; `None`: unknown.
            sources: source of each row, for example an image name; `None` stores no source.
            expires_at: time at which the rows expire; `None`: never. A time without a zone is local time.
            header: header of the model (`ReIDModel.card.header`); a gallery accepts rows of one model only.

        Raises:
            FedReIDError: if sizes do not fit, a feature is not finite or not of length 1, or the rows are of another
                model than those in the gallery.
        """
        values = unit_features(features, persons, cameras, sources)
        rows = [
            Row(0, str(person), str(cameras[i]) if cameras else "", str(sources[i]) if sources else "")
            for i, person in enumerate(persons)
        ]
        self._file.add(rows, values, _seconds(expires_at), header)
        return len(rows)

    def add_features(
        self,
        found: Features,
        person: str | None = None,
        camera: str | None = None,
        expires_at: datetime | None = None,
    ) -> int:
        """Adds the result of `ReIDModel.embed_files` or `Features.load`, and returns the number of rows.

        Args:
            found: features with the names of their images; the names become the sources of the rows.
            person, camera: person and camera of all these images; `None` uses their folders, see `build`.
            expires_at: see `add`.

        Raises:
            FedReIDError: under the conditions of `add`.
        """
        persons, cameras = persons_of(found.names)
        if person is not None:
            persons = [person] * len(persons)
        if camera is not None:
            cameras = [camera] * len(cameras)
        return self.add(found.values, persons, cameras, found.names, expires_at, found.header)

    def add_pictures(
        self,
        model: ReIDModel,
        pictures: str | Path | Sequence[str | Path],
        person: str | None = None,
        camera: str | None = None,
        expires_at: datetime | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Embeds images, adds them and returns the number of rows; a warning lists images that cannot be read.

        Args:
            model, pictures, progress: see `build`.
            person, camera, expires_at: see `add_features`.

        Raises:
            FedReIDError: if there is no picture that can be read, or the gallery was made with another model.
        """
        found = model.embed_files(pictures, progress=progress)
        if not len(found):
            raise FedReIDError(f"{pictures}: no picture can be read ({found.damaged[0][1]})")
        if found.damaged:
            named = "; ".join(f"{name}: {reason}" for name, reason in found.damaged)
            warnings.warn(f"left out {counted(len(found.damaged), 'unreadable picture')}: {named}", stacklevel=2)
        return self.add_features(found, person, camera, expires_at)

    def remove(self, person: str | None = None, source: str | None = None) -> int:
        """Deletes all rows of a person or of a source, overwrites them in the file, and returns their number.

        Raises:
            FedReIDError: if neither is given.
        """
        if person is None and source is None:
            raise FedReIDError("remove: give person=NAME or source=NAME")
        return self._file.remove(person, source)

    def purge(self, now: datetime | None = None) -> int:
        """Deletes the rows that have expired and returns their number."""
        return self._file.purge(_seconds(now) or datetime.now(timezone.utc).timestamp())

    def search(
        self,
        queries: Tensor,
        k: int = 10,
        camera: str | None = None,
        group: Group = "row",
        pooling: Pooling = "best",
        rerank: bool = False,
        header: dict[str, Any] | None = None,
    ) -> list[list[Match]]:
        """Returns the best `k` matches of every query, the best first.

        Expired rows are never found, even before they are deleted.

        Args:
            queries: `[Q, D]` floating point, of length 1.
            k: number of matches.
            camera: leave out rows of this camera, as in re-identification tests; `None` searches all cameras.
            group: `row` returns single rows, `person` returns one match per person.
            pooling: with `group="person"`, a person's score is the score of the best row, or the mean over rows.
            rerank: sort by k-reciprocal re-ranking (Zhong et al., CVPR 2017) of queries and gallery.
            header: header of the model of the queries; it must equal that of the gallery.

        Raises:
            FedReIDError: if the queries do not fit the gallery.
        """
        check_choices(k, group, pooling)
        self._refresh()
        queries = self._queries(queries, header)
        allowed = self._held.allowed(camera)
        if not len(self._held) or not bool(allowed.any()):
            answers: list[list[Match]] = [[] for _ in range(len(queries))]
        elif rerank or group == "person":
            best = partial(best_persons, pooling=pooling) if group == "person" else best_rows
            parts = scores_in_parts(queries, self._held.features, allowed, rerank)
            answers = [matches for scores in parts for matches in best(scores, self._held.rows, k)]
        else:
            if self._index is None:
                self._index = build_index(self._index_name, self._held.features)
            found = self._index.search(queries, k, None if bool(allowed.all()) else allowed)
            answers = matches_of(*found, self._held.rows)
        if self._audit is not None:
            write_audit(self._audit, answers, rows=len(self._held), k=k, camera=camera, group=group, rerank=rerank)
        return answers

    def search_pictures(self, model: ReIDModel, pictures: Pictures, **options: Any) -> list[list[Match]]:
        """Embeds pictures and searches for them; options as for `search`."""
        return self.search(model.embed(pictures), header=model.card.header(flip=True), **options)

    def save(self, path: str | Path) -> Path:
        """Writes a copy of the gallery to a file in one atomic step, and returns its path."""
        return self._file.save(Path(os.path.expanduser(path)))

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Gallery:
        """Opens the file of a gallery; later changes are written to this file.

        Raises:
            FedReIDError: if there is no such file, or it is not a gallery.
        """
        if not Path(os.path.expanduser(path)).is_file():
            raise FedReIDError(f"{path}: no such gallery")
        return cls(path, **options)

    def persons(self) -> dict[str, int]:
        """Returns the number of rows of every person, by name."""
        self._refresh()
        counts: dict[str, int] = {}
        for row in self._held.rows:
            counts[row.person] = counts.get(row.person, 0) + 1
        return dict(sorted(counts.items()))

    def cameras(self) -> set[str]:
        """Returns the cameras of the rows; rows without a known camera have an empty name."""
        self._refresh()
        return {row.camera for row in self._held.rows}

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _refresh(self) -> None:
        """Reads the rows again if a process has changed them."""
        state = self._file.state()
        if state != self._seen:
            self._held = HeldRows(*self._file.read())
            self._seen, self._index = state, None

    def _queries(self, queries: Tensor, header: dict[str, Any] | None) -> Tensor:
        queries = unit_features(queries)
        if len(self._held) and queries.shape[1] != self._held.features.shape[1]:
            raise FedReIDError(
                f"queries have {queries.shape[1]} values, the gallery has {self._held.features.shape[1]}; "
                "use the model that made the gallery"
            )
        self._file.check_header(header)
        return queries


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
