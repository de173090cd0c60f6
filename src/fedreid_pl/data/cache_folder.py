"""The cache folder with files that can be recreated: the drawn benchmark, indexes of folders, decoded images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_folder() -> Path:
    """Returns `$FEDREID_PL_CACHE`, else `$XDG_CACHE_HOME/fedreid_pl`, else `~/.cache/fedreid_pl`."""
    if os.environ.get("FEDREID_PL_CACHE"):
        return Path(os.path.expanduser(os.environ["FEDREID_PL_CACHE"]))
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.path.expanduser(os.environ["XDG_CACHE_HOME"])) / "fedreid_pl"
    return Path.home() / ".cache" / "fedreid_pl"


def chosen_folder(cache_dir: str | None) -> Path:
    """Returns `data.cache_dir` if it is set, else `cache_folder()`."""
    return Path(os.path.expanduser(cache_dir)) if cache_dir else cache_folder()


KEPT = {
    "digests": "hashes of files (data.overlap)",
    "images": "decoded images (data.cache=disk)",
    "index": "tables of large datasets",
    "readable": "list of unreadable images (data.on_bad_image=skip)",
}
"""Subfolders of the cache whose files a run recreates if they are deleted, with a description of the files."""


def made_again(folder: Path) -> dict[str, str]:
    """Returns the entries of `KEPT` whose subfolders exist in the cache `folder`."""
    return {name: meaning for name, meaning in KEPT.items() if (folder / name).is_dir()}


@contextmanager
def made_whole(path: Path, name: str | None = None) -> Iterator[Path]:
    """Returns a context with a temporary path that replaces `path` at its end, or is deleted if the block fails.

    A reader finds either the complete file or no file, even after a killed process or a power failure.

    Args:
        path: the file to write.
        name: name of the temporary file. Give a fixed name only if a lock allows one process at a time; the next
            process then overwrites the file of a killed one.
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
    """Returns a hash of the paths, sizes, times and inodes of files; the files are not read.

    Args:
        parts: further texts that enter the hash.
        files: paths of the files.

    Raises:
        OSError: if a file is missing or access is denied.
    """
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape"))
    for path in files:
        state = os.stat(path)
        text = f"\0{path}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
