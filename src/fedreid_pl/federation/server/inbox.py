"""Where the tensors of a round's updates wait for the aggregation: in memory if they are small, else on the disk."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.messages import ClientUpdate
from fedreid_pl.federation.raw import Layout, from_raw, to_raw

IN_MEMORY = 2**27
"""Bytes of a round's updates that are kept in memory, 128 MiB; what comes after them goes to the disk."""


class UpdateInbox:
    """Keeps updates so that a round takes the memory of two backbones, however many clients take part in it.

    An update's tensors are written to a file and read back one at a time, whenever a callback asks for one, so that
    an average holds the sum and one tensor. Callbacks see no difference. The file has no name: it is gone with the
    process that made it, however that ends.

    Args:
        folder: on the disk to write to; `None`: everything stays in memory.
        in_memory: bytes of a round's updates that are not worth a file.
    """

    def __init__(self, folder: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self.folder, self.in_memory = folder, in_memory
        self.clear()

    def clear(self) -> None:
        """Forgets the updates of a round; a tensor that somebody still holds stays valid."""
        self._file: IO[bytes] | None = None
        self._held = 0

    def keep(self, update: ClientUpdate) -> ClientUpdate:
        """The update, its tensors on the disk if those before it fill the memory that is allowed.

        Raises:
            FedReIDError: if the disk is full or cannot be written to.
        """
        size = update.nbytes
        if self.folder is None or self._held + size <= self.in_memory:
            self._held += size
            return update
        try:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115 - until `clear`
            return replace(
                update,
                backbone=StoredState(update.backbone, self._file),
                extras=StoredState(update.extras, self._file),
            )
        except OSError as error:
            raise FedReIDError(
                f"{self.folder}: {size / 2**20:.0f} MiB of an update cannot be written ({error.strerror or error}); "
                "what was saved before is intact, make room or choose another output_dir"
            ) from error


class _Place(NamedTuple):
    """Where a tensor is in the file, and how its bytes are read."""

    offset: int
    layout: Layout


class StoredState(Mapping[str, Tensor]):
    """A state dict appended to an open file; every access maps one tensor into memory anew, for as long as it is held.

    Values, dtypes, shapes and the order in memory (channels-last) are those of the state that was written. What is
    read may be changed in place: it is a private copy of the pages that are written to.

    Args:
        state: dense tensors on the CPU.
        file: unbuffered, open for reading and writing.

    >>> with tempfile.TemporaryFile(buffering=0) as file:
    ...     StoredState({"w": torch.tensor([1.0, 2.0])}, file)["w"]
    tensor([1., 2.])
    """

    def __init__(self, state: Mapping[str, Tensor], file: IO[bytes]) -> None:
        self._file = file
        self._places = {name: _append(value.detach(), file) for name, value in state.items()}

    def __getitem__(self, name: str) -> Tensor:
        offset, layout = self._places[name]
        size = math.prod(layout.shape) * layout.dtype.itemsize
        if size == 0:
            return from_raw(layout, torch.empty(0, dtype=torch.uint8))
        pages: Any = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_COPY, offset=offset)
        return from_raw(layout, torch.frombuffer(pages, dtype=torch.uint8))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _append(value: Tensor, file: IO[bytes]) -> _Place:
    layout, flat = to_raw(value)
    offset = -(-file.seek(0, 2) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
    file.seek(offset)
    rest = memoryview(flat.numpy())  # type: ignore[arg-type]
    while len(rest):  # a raw file may take a part only
        rest = rest[file.write(rest) :]
    return _Place(offset, layout)
