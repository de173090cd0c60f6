"""Decoded images on disk: every dataset is decoded and resized once, whoever trains on which part of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import PIL
import torch
from torch import Tensor

from fedreid_pl.data.cache_folder import made_whole, signature
from fedreid_pl.data.decoding import VERSION, UnreadableImage, decode, in_blocks, open_rgb
from fedreid_pl.data.readers.cuhk03_mat import container, inside_mat
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

FORMAT = "1"  # of the files
GIGABYTE = 10**9

Progress = Callable[[str], None]


class ImageCache:
    """Files `CONTENT.u8` with the images of one dataset at one size: uint8 `[N, height, width, 3]`, no header.

    `CONTENT` is a SHA-256 over the bytes of all files, the size and the decoder. `STATE.json` leads to it from the
    files' paths, sizes and times, so that they are read again only if one of these has changed; where a dataset was
    merely moved or copied, its images are found by their content. Several processes may ask for one dataset at once:
    one builds, the others wait. What a killed process leaves is written over by the next one.

    Args:
        folder: of the cache; it is made at need.
        height, width: in pixels.
    """

    def __init__(self, folder: Path, height: int, width: int) -> None:
        self.folder, self.height, self.width = folder, height, width

    def images(self, table: SampleTable, progress: Progress | None = None, say: Progress | None = None) -> Tensor:
        """All images of a dataset in row order, mapped into memory: uint8 `[N, height, width, 3]`, copy on write.

        Args:
            table: the dataset.
            progress: is called with a short text now and then.
            say: is called with one line that says how large the files will be, before they are made.

        Raises:
            FedReIDError: for the first file, in row order, that cannot be read, or if the cache has no room or
                cannot be written.
        """
        files = table.files()
        size = len(files) * self.height * self.width * 3
        if not size:
            return torch.empty(0, self.height, self.width, 3, dtype=torch.uint8)
        try:
            state = self.folder / f"{self._state(files)}.json"
            path = self._find(state, size)
            if path is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._alone(state, lambda: (progress or (lambda text: None))(f"{table.name}: another process")):
                    path = self._find(state, size) or self._build(table.name, files, state, size, progress, say)
        except OSError as error:
            raise FedReIDError(
                f"data.cache=disk: {error.filename or self.folder}: {error.strerror or error}; "
                "choose another folder with data.cache_dir, or data.cache=none"
            ) from error
        pixels = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        return pixels.view(len(files), self.height, self.width, 3)

    def _state(self, files: list[str]) -> str:
        return signature(*self._format(), *files, files=dict.fromkeys(map(container, files)))

    def _format(self) -> tuple[str, ...]:
        return FORMAT, VERSION, PIL.__version__, str(self.height), str(self.width)

    def _find(self, state: Path, size: int) -> Path | None:
        """The images that a state file leads to, if both are there and whole."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            path = self.folder / f"{json.loads(state.read_text())['content']}.u8"
            if path.stat().st_size == size:
                return path
        return None

    def _build(
        self, name: str, files: list[str], state: Path, size: int, progress: Progress | None, say: Progress | None
    ) -> Path:
        note = progress or (lambda text: None)

        def digests(rows: range) -> list[bytes]:
            return [_digest(files[row]) for row in rows]

        each = in_blocks(len(files), digests, lambda done: note(f"{name}: {done:,} of {len(files):,} files read"))
        content = hashlib.sha256("\0".join(self._format()).encode() + b"".join(each)).hexdigest()
        path = self.folder / f"{content}.u8"
        if not path.exists() or path.stat().st_size != size:
            free = shutil.disk_usage(self.folder).free
            if size > free:
                raise FedReIDError(
                    f"data.cache=disk: the {len(files):,} images of {name} take {size / GIGABYTE:.1f} GB, and "
                    f"{self.folder} has {free / GIGABYTE:.1f} GB left; choose another folder with data.cache_dir, or "
                    "data.cache=none"
                )
            if say is not None:
                say(f"{name}: {len(files):,} images are decoded once into {size / GIGABYTE:.2f} GB in {self.folder}")
            with made_whole(path, f".{state.stem}.part") as temporary:
                self._decode_into(
                    temporary, files, size, lambda done: note(f"{name}: {done:,} of {len(files):,} images")
                )
        with made_whole(state) as temporary:
            temporary.write_text(json.dumps({"dataset": name, "images": len(files), "content": content}) + "\n")
        return path

    def _decode_into(self, path: Path, files: list[str], size: int, progress: Callable[[int], None]) -> None:
        each = self.height * self.width * 3
        with open(path, "wb") as output:
            with suppress(OSError):  # not every file system can; a full disk then shows while writing
                os.posix_fallocate(output.fileno(), 0, size)
            place = output.fileno()

            def fill(rows: range) -> list:
                pixels = b"".join(decode(files[row], self.height, self.width).tobytes() for row in rows)
                _write_at(place, pixels, rows.start * each)
                return []

            in_blocks(len(files), fill, progress)

    @contextmanager
    def _alone(self, state: Path, waiting: Callable[[], None]) -> Iterator[None]:
        """Keeps other processes of this machine from building the same; ends with the process, however that ends."""
        lock = state.with_suffix(".lock")
        with open(lock, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
            lock.unlink(missing_ok=True)  # who still waits for it finds the work done


def _digest(path: str) -> bytes:
    """SHA-256 of a file, or of the pixels of an image that is only a part of one."""
    if inside_mat(path):
        return hashlib.sha256(open_rgb(path).tobytes()).digest()
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).digest()
    except OSError as error:
        raise UnreadableImage(path, error.strerror or str(error)) from error


def _write_at(place: int, data: bytes, offset: int) -> None:
    """`os.pwrite`, which may write a part only, until all is written."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(place, rest, offset)
        rest, offset = rest[done:], offset + done
