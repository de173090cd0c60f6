"""The folder of the benchmark: it is drawn once, checked quickly at every use, and verified on request."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedreid_pl.data.cache_folder import cache_folder
from fedreid_pl.data.minireid.domains import Domain, domains_of
from fedreid_pl.data.minireid.schedule import FOLDERS
from fedreid_pl.data.minireid.streams import VERSION, VERSIONS
from fedreid_pl.data.minireid.writer import MANIFEST, digest_of, write_benchmark
from fedreid_pl.errors import FedReIDError


def ensure_minireid(
    root: str | Path | None = None,
    processes: int | None = None,
    progress: Callable[[str], None] | None = None,
    domains: Sequence[Domain] | None = None,
    version: int = VERSION,
) -> Path:
    """Returns the folder of MiniReID; the first call draws the images, later calls only check the folder.

    The complete folder appears under its name in one step. Several processes may call the function at the same time,
    and a process may be killed at any time. Temporary folders of dead processes are removed.

    Args:
        root: folder of the benchmark; default `cache_folder() / "minireid-v<version>"`.
        processes: number of drawing processes; default: all available processors.
        progress: called with a short text from time to time.
        domains: domains to draw; default: all nine and the public one. Other domains need a separate `root`.
        version: version of the benchmark; ignored if `domains` are given.

    Raises:
        FedReIDError: if the folder exists but is incomplete or of another version, or if it cannot be written.
    """
    if version not in VERSIONS:
        raise FedReIDError(
            f"data.version={version}: no such version of MiniReID; there are {', '.join(map(str, VERSIONS))}"
        )
    if domains is None:
        domains = tuple(domains_of(version).values())
    version = domains[0].version
    root = _place(root, version)
    temporary = root.parent / f".{root.name}.{platform.node()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        if _present(root):
            check_complete(root, [domain.name for domain in domains], version)
            return root
        root.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(root)
        write_benchmark(temporary, domains, processes, progress)
        try:
            os.rename(temporary, root)
        except OSError:
            if not _present(root):
                raise
            # another process was faster and has drawn the same images
            check_complete(root, [domain.name for domain in domains], version)
    except OSError as error:
        raise FedReIDError(
            f"cannot write MiniReID to {root}: {error.strerror or error}; set FEDREID_PL_CACHE or data.minireid_dir "
            "to a writable folder with 150 MB of free space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def name_of(version: int) -> str:
    """Returns the option that selects a version on the command line.

    >>> name_of(1), name_of(VERSION)
    ('data=minireid_v1', 'data=minireid')
    """
    return "data=minireid" if version == VERSION else f"data=minireid_v{version}"


def is_drawn(root: str | Path | None = None, version: int = VERSION) -> bool:
    """Returns whether the folder of the benchmark exists and is not empty, so that `ensure_minireid` draws nothing."""
    return _present(_place(root, version))


def check_complete(root: str | Path, names: Sequence[str] = (), version: int | None = None) -> None:
    """Compares the version, the domains and the number of files per folder with the manifest.

    Args:
        root: folder of the benchmark.
        names: domains that must exist; others are allowed.
        version: expected version; `None` accepts any.

    Raises:
        FedReIDError: if a folder is damaged or of another version; the message names it.
    """
    root = Path(root)
    manifest = _read_manifest(root)
    found = manifest["version"]
    if version not in (None, found):
        raise FedReIDError(
            f"{root} contains version {found} of MiniReID, not version {version}; versions are never mixed: "
            f"read the folder with {name_of(found)}, or choose another folder"
        )
    for name in names:
        if name not in manifest["domains"]:
            raise _damaged(root, f"it has no domain {name}")
    for name, entry in manifest["domains"].items():
        for folder in FOLDERS:
            place = root / name / folder
            found = len(os.listdir(place)) if place.is_dir() else 0
            if found != entry[folder]:
                raise _damaged(root, f"{name}/{folder} has {found} files instead of {entry[folder]}")


def verify(root: str | Path) -> None:
    """Reads every file and compares it with the checksums of the manifest.

    Raises:
        FedReIDError: if a domain differs; the message names the first one.
    """
    root = Path(root)
    check_complete(root)
    for name, entry in _read_manifest(root)["domains"].items():
        files = [
            (f"{folder}/{file}", hashlib.sha256((root / name / folder / file).read_bytes()).hexdigest())
            for folder in FOLDERS
            for file in os.listdir(root / name / folder)
        ]
        if digest_of(files) != entry["sha256"]:
            raise _damaged(root, f"the files of {name} differ from the manifest")


def _place(root: str | Path | None, version: int) -> Path:
    return cache_folder() / f"minireid-v{version}" if root is None else Path(os.path.expanduser(root))


def _present(root: Path) -> bool:
    # an empty folder counts as absent: os.rename replaces it
    return root.exists() and (not root.is_dir() or any(root.iterdir()))


def _read_manifest(root: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        version = manifest["version"]
        [[entry[folder] for folder in FOLDERS] + [entry["sha256"]] for entry in manifest["domains"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(root, f"{MANIFEST} is missing or unreadable") from error
    if version not in VERSIONS:
        raise _damaged(root, f"it is version {version}, this program draws versions {', '.join(map(str, VERSIONS))}")
    return manifest


def _damaged(root: Path, what: str) -> FedReIDError:
    return FedReIDError(
        f"{root} is not a complete MiniReID: {what}; move the folder elsewhere to draw it again, or "
        "choose another data.minireid_dir"
    )


def _remove_stale(root: Path) -> None:
    """Removes temporary folders of dead processes on this machine."""
    start = f".{root.name}.{platform.node()}."
    for path in root.parent.glob(f".{root.name}.*.tmp"):
        owner = path.name.removeprefix(start).split(".")[0]
        if path.name.startswith(start) and owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name != "posix":  # on other systems, signal 0 is not harmless
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
