"""The cache of decoded images on disk: every dataset is decoded and resized only once."""

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

FORMAT = "1"  # version of the file format
GIGABYTE = 10**9

Progress = Callable[[str], None]


class ImageCache:
    """Files `CONTENT.u8` with the images of a dataset at one size: uint8 `[N, height, width, 3]`, without a header.

    `CONTENT` is a SHA-256 over the bytes of all files, the size and the version of the decoder. `STATE.json` maps
    paths, sizes and times of the files to `CONTENT`, so the files are read again only if one of these has changed. If a
    dataset was moved or copied, its cached images are found by their content. Several processes may request a dataset
    at the same time: one process decodes it, and the others wait. The next process overwrites partial files of a killed
    one.

    Args:
        folder: folder of the cache; it is created if needed.
        height, width: size of the images in pixels.
    """

    def __init__(self, folder: Path, height: int, width: int) -> None:
        self.folder, self.height, self.width = folder, height, width

    def images(self, table: SampleTable, progress: Progress | None = None, say: Progress | None = None) -> Tensor:
        """Returns all images of a dataset in row order as a memory map: uint8 `[N, height, width, 3]`, copy on write.

        Args:
            table: the dataset.
            progress: called with a short text from time to time.
            say: called with one line about the size of the files before they are written.

        Raises:
            FedReIDError: if an image cannot be read (the error names the first one in row order), or if the cache has
                too little space or cannot be written.
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
                with self._alone(
                    state, lambda: (progress or (lambda text: None))(f"{table.name}: waiting for another process")
                ):
                    path = self._find(state, size) or self._build(table.name, files, state, size, progress, say)
        except OSError as error:
            raise FedReIDError(
                f"data.cache=disk: {error.filename or self.folder}: {error.strerror or error}; "
                "choose another folder with data.cache_dir, or set data.cache=none"
            ) from error
        pixels = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        return pixels.view(len(files), self.height, self.width, 3)

    def _state(self, files: list[str]) -> str:
        return signature(*self._format(), *files, files=dict.fromkeys(map(container, files)))

    def _format(self) -> tuple[str, ...]:
        return FORMAT, VERSION, PIL.__version__, str(self.height), str(self.width)

    def _find(self, state: Path, size: int) -> Path | None:
        """Returns the images to which a state file refers, or `None` if one of the files is missing or incomplete."""
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
                    f"data.cache=disk: the {len(files):,} images of {name} need {size / GIGABYTE:.1f} GB, but "
                    f"{self.folder} has only {free / GIGABYTE:.1f} GB free; choose another folder with "
                    "data.cache_dir, or set data.cache=none"
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
            with suppress(OSError):  # some file systems cannot reserve space; writing then fails on a full disk
                os.posix_fallocate(output.fileno(), 0, size)
            place = output.fileno()

            def fill(rows: range) -> list:
                pixels = b"".join(decode(files[row], self.height, self.width).tobytes() for row in rows)
                _write_at(place, pixels, rows.start * each)
                return []

            in_blocks(len(files), fill, progress)

    @contextmanager
    def _alone(self, state: Path, waiting: Callable[[], None]) -> Iterator[None]:
        """Returns a context with a lock against other processes on this machine; a killed process releases it."""
        lock = state.with_suffix(".lock")
        with open(lock, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
            lock.unlink(missing_ok=True)  # processes that still wait will find the finished files


def _digest(path: str) -> bytes:
    """Returns the SHA-256 of a file, or of the pixels of an image within a MATLAB file."""
    if inside_mat(path):
        return hashlib.sha256(open_rgb(path).tobytes()).digest()
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).digest()
    except OSError as error:
        raise UnreadableImage(path, error.strerror or str(error)) from error


def _write_at(place: int, data: bytes, offset: int) -> None:
    """Writes all data at an offset; `os.pwrite` may write only a part, so it is called repeatedly."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(place, rest, offset)
        rest, offset = rest[done:], offset + done
