"""Where the program keeps what it can make again: the drawn benchmark, indexes of folders, decoded images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_folder() -> Path:
    """`$FEDREID_PL_CACHE`, else `$XDG_CACHE_HOME/fedreid_pl`, else `~/.cache/fedreid_pl`."""
    if os.environ.get("FEDREID_PL_CACHE"):
        return Path(os.path.expanduser(os.environ["FEDREID_PL_CACHE"]))
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.path.expanduser(os.environ["XDG_CACHE_HOME"])) / "fedreid_pl"
    return Path.home() / ".cache" / "fedreid_pl"


def chosen_folder(cache_dir: str | None) -> Path:
    """`data.cache_dir` if it is set, else `cache_folder()`."""
    return Path(os.path.expanduser(cache_dir)) if cache_dir else cache_folder()


KEPT = {
    "digests": "hashes of files (data.overlap)",
    "images": "decoded images (data.cache=disk)",
    "index": "tables of large datasets",
    "readable": "which images cannot be read (data.on_bad_image=skip)",
}
"""Folders of files that a run makes again when they are gone, and what is in them."""


def made_again(folder: Path) -> dict[str, str]:
    """Those of `KEPT` that are in the cache `folder`."""
    return {name: meaning for name, meaning in KEPT.items() if (folder / name).is_dir()}


@contextmanager
def made_whole(path: Path, name: str | None = None) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends; nothing is left if it fails.

    A reader, also after a kill or a power cut, finds the whole file or none.

    Args:
        path: the file to make.
        name: of the temporary one, where only one process at a time can be here; it is written over after a kill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(name or f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def signature(*parts: str, files: Iterable[str]) -> str:
    """A name for the present state of files, without reading them: their paths, sizes, times and inodes.

    Raises:
        OSError: if one of them is missing or may not be looked at.
    """
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape"))
    for path in files:
        state = os.stat(path)
        text = f"\0{path}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
