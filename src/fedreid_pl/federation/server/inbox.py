"""Stores the tensors of a round's updates until aggregation: small updates in memory, others on disk."""

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
"""Bytes of a round's updates that stay in memory, 128 MiB; further updates are written to disk."""


class UpdateInbox:
    """Stores updates so that a round needs the memory of two backbones, independent of the number of clients.

    The tensors of an update are written to a file and read one at a time when a callback accesses them. An average thus
    holds the sum and one tensor in memory. Callbacks see no difference. The file has no name, so the system deletes it
    when the process ends, even after a kill.

    Args:
        folder: folder of the file; `None` keeps all updates in memory.
        in_memory: bytes of a round's updates that stay in memory.
    """

    def __init__(self, folder: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self.folder, self.in_memory = folder, in_memory
        self.clear()

    def clear(self) -> None:
        """Removes the updates of a round; tensors that other code still uses stay valid."""
        self._file: IO[bytes] | None = None
        self._held = 0

    def keep(self, update: ClientUpdate) -> ClientUpdate:
        """Returns the update; its tensors are on disk if the earlier updates have filled the allowed memory.

        Raises:
            FedReIDError: if the disk is full or the folder is not writable.
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
                "files that were saved earlier are intact. Free disk space or choose another output_dir"
            ) from error


class _Place(NamedTuple):
    """Offset of a tensor in the file, and the layout of its bytes."""

    offset: int
    layout: Layout


class StoredState(Mapping[str, Tensor]):
    """A state dict in an open file; every access maps one tensor into memory, where it stays as long as it is used.

    Values, dtypes, shapes and the order in memory (channels-last) equal those of the written state. A tensor may be
    changed in place; the change is private and does not reach the file.

    Args:
        state: dense tensors on the CPU.
        file: unbuffered file, open for reading and writing.

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
    while len(rest):  # an unbuffered write may write only a part
        rest = rest[file.write(rest) :]
    return _Place(offset, layout)
