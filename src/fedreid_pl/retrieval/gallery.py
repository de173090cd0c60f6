"""A gallery of persons: features with who they show, searched by similarity."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fedreid_pl.errors import FedReIDError
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
    matches_of,
    scores_in_parts,
    unit_features,
)
from fedreid_pl.retrieval.model import Progress, ReIDModel
from fedreid_pl.retrieval.pictures import Pictures, persons_of


class Gallery:
    """Features of persons in one file (SQLite) or in memory, searched exactly or by an approximate index.

    Rows are personal data. A gallery keeps no pictures: only features, and the names that the caller gives. Rows may
    expire, and what is removed is overwritten in the file. Several processes may add, remove and search at the same
    time: every change is a transaction, and a process that is killed leaves the last complete one.

    Args:
        path: the file, made if it is missing; `None`: in memory.
        index: `exact`, `faiss` or `usearch`.
        audit: a file to which every search appends one line of JSON: time, number of queries, filters, and the persons
            that were found; `None`: nothing is written.

    Raises:
        FedReIDError: if the file is no gallery or cannot be opened, or there is no such index.

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
        """Returns a gallery of the pictures of a folder, `PERSON/*.jpg` or `PERSON/CAMERA/*.jpg`, or of single files.

        A picture without a folder is a person of its own, by the name of the file.

        Args:
            model: embeds the pictures; the gallery remembers which model it was.
            pictures: a folder, a file or files.
            path: the gallery's file; `None`: in memory.
            progress: called after every batch.
            options: of `Gallery`.

        Raises:
            FedReIDError: if there is no picture, or the gallery was made with another model.
        """
        gallery = cls(path, **options)
        gallery.add_pictures(model, pictures, progress=progress)
        return gallery

    def __len__(self) -> int:
        self._refresh()
        return len(self._held)

    @property
    def header(self) -> dict[str, Any]:
        """What model and preprocessing the rows were made with; empty if the rows were added as bare features."""
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
            persons: who each row shows.
            cameras: which camera saw it; `None`: unknown.
            sources: where it comes from; `None`: nothing is kept.
            expires_at: when the rows are to be deleted; `None`: never. A time without a zone is local time.
            header: of the model (`ReIDModel.card.header`); a gallery takes rows of one model alone.

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
        """Adds what `ReIDModel.embed_files` or `Features.load` returned, and returns the number of rows.

        Args:
            found: features with the names of their pictures, which become the sources of the rows.
            person, camera: of all these pictures; `None`: by their folders, see `build`.
            expires_at: see `add`.

        Raises:
            FedReIDError: as `add`.
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
        """Embeds pictures, adds them and returns the number of rows; a warning names pictures that cannot be read.

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
            warnings.warn(f"{len(found.damaged)} pictures cannot be read and are left out: {named}", stacklevel=2)
        return self.add_features(found, person, camera, expires_at)

    def remove(self, person: str | None = None, source: str | None = None) -> int:
        """Deletes all rows of a person, or of a source, and returns their number; the file keeps nothing of them.

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

        Rows that have expired are never found, whether they are deleted yet or not.

        Args:
            queries: `[Q, D]` floating point, of length 1.
            k: matches wanted.
            camera: leave out rows of this camera, as the tests of re-identification do; `None`: all cameras.
            group: `row`: every row is an answer of its own. `person`: one answer per person.
            pooling: with `group="person"`, a person's score is that of the best row, or the mean over rows.
            rerank: order by k-reciprocal re-ranking (Zhong et al., CVPR 2017) of queries and gallery together.
            header: of the model that made the queries; it must be the gallery's.

        Raises:
            FedReIDError: if the queries do not fit the gallery.
        """
        self._refresh()
        queries = self._queries(queries, k, header)
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
        """Writes a copy of the gallery to a file, whole or not at all, and returns its path."""
        return self._file.save(Path(os.path.expanduser(path)))

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Gallery:
        """Opens a gallery's file; later changes go into it.

        Raises:
            FedReIDError: if there is no such file, or it is no gallery.
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

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _refresh(self) -> None:
        """Reads the rows again if any process has changed them."""
        state = self._file.state()
        if state != self._seen:
            self._held = HeldRows(*self._file.read())
            self._seen, self._index = state, None

    def _queries(self, queries: Tensor, k: int, header: dict[str, Any] | None) -> Tensor:
        if k < 1:
            raise FedReIDError(f"k={k}: must be at least 1")
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
