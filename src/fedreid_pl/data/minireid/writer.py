"""Draws domains into folders of JPEG files on several processors, and writes the manifest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fedreid_pl.data.minireid.camera import Studio
from fedreid_pl.data.minireid.domains import Domain
from fedreid_pl.data.minireid.schedule import FOLDERS, schedule

QUALITY = 92
"""JPEG quality of the files."""

MANIFEST = "manifest.json"
CHUNK = 128
Job = tuple[int, int, int]
"""Index of a domain, first image, last image (exclusive) of its schedule."""


def write_benchmark(
    root: str | Path,
    domains: Sequence[Domain],
    processes: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Draws `domains` into `root/<domain>/{bounding_box_train,bounding_box_test,query}/*.jpg`.

    The bytes of the files do not depend on `processes`. `root/manifest.json` is written last.

    Args:
        root: folder, created if it is missing; files with the same names are overwritten.
        domains: domains to draw, for example `DOMAINS["mini-viper"]` or a scaled version of it.
        processes: number of processes; default: all available processors, or 1 for fewer than 1000 images.
        progress: called with a short text several times a second.

    Returns:
        The manifest: `version`, `synthetic`, the number of files of each folder and a `sha256` for every domain, and a
        total `sha256`.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if two domains have the same name or different versions.
    """
    root = Path(root)
    if len({domain.name for domain in domains}) != len(domains):
        raise ValueError("two domains have the same name")
    if len({domain.version for domain in domains}) != 1:
        raise ValueError("the domains have different versions")
    for domain in domains:
        for folder in FOLDERS:
            (root / domain.name / folder).mkdir(parents=True, exist_ok=True)
    jobs = [
        (number, start, min(start + CHUNK, domain.images))
        for number, domain in enumerate(domains)
        for start in range(0, domain.images, CHUNK)
    ]
    total, done = sum(domain.images for domain in domains), 0
    if processes is None:
        processes = 1 if total < 1000 else _processors()
    digests: dict[Job, list[str]] = {}
    for job, found in _run(root, domains, jobs, min(processes, len(jobs))):
        digests[job] = found
        done += job[2] - job[1]
        if progress is not None:
            progress(f"drawing MiniReID: {done} of {total} images")
    manifest = _manifest(domains, digests)
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def draw_job(root: Path, domains: Sequence[Domain], job: Job) -> list[str]:
    """Writes the images of one job; returns the SHA-256 of each file in hexadecimal."""
    domain, digests = domains[job[0]], []
    studio = _studio(domain)
    for shot in schedule(domain)[job[1] : job[2]]:
        buffer = io.BytesIO()
        studio.take(shot).save(buffer, "JPEG", quality=QUALITY)
        data = buffer.getvalue()
        (root / domain.name / shot.path).write_bytes(data)
        digests.append(hashlib.sha256(data).hexdigest())
    return digests


def digest_of(files: Iterable[tuple[str, str]]) -> str:
    """Returns the SHA-256 over (relative path, SHA-256 of the file) of all files, sorted by path."""
    digest = hashlib.sha256()
    for path, content in sorted(files):
        digest.update(f"{path}\0{content}\n".encode())
    return digest.hexdigest()


_STUDIOS: list[Studio] = []


def _studio(domain: Domain) -> Studio:
    # jobs are sorted by domain, so one set of cameras and persons at a time is enough
    if not _STUDIOS or _STUDIOS[0].domain != domain:
        _STUDIOS[:] = [Studio(domain)]
    return _STUDIOS[0]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _manifest(domains: Sequence[Domain], digests: dict[Job, list[str]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for number, domain in enumerate(domains):
        paths = [shot.path for shot in schedule(domain)]
        hashes = [text for job in sorted(digests) if job[0] == number for text in digests[job]]
        counts = {folder: sum(path.startswith(folder + "/") for path in paths) for folder in FOLDERS}
        entries[domain.name] = {**counts, "sha256": digest_of(zip(paths, hashes, strict=True))}
    return {
        "name": "MiniReID",
        "version": domains[0].version,
        "synthetic": True,
        "domains": entries,
        "sha256": digest_of((name, entry["sha256"]) for name, entry in entries.items()),
    }


def _run(root: Path, domains: Sequence[Domain], jobs: list[Job], processes: int) -> Iterable[tuple[Job, list[str]]]:
    left = dict.fromkeys(jobs)
    if processes > 1:
        for job, digests in _run_workers(root, domains, jobs, processes):
            del left[job]
            yield job, digests
    for job in left:  # all jobs without workers, or the jobs of workers that failed
        yield job, draw_job(root, domains, job)


def _run_workers(
    root: Path, domains: Sequence[Domain], jobs: list[Job], processes: int
) -> Iterable[tuple[Job, list[str]]]:
    # New interpreters instead of multiprocessing: they do not import the caller's main script, which may lack a
    # `__main__` guard or import torch.
    source = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "fedreid_pl.data.minireid.worker"]
    lines: queue.Queue[bytes | None] = queue.Queue()
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(processes):
            order = pickle.dumps((root.absolute(), list(domains), jobs[number::processes]))
            try:
                worker = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": path},
                )  # fmt: skip
            except OSError:
                break  # the system allows no further process
            workers.append(worker)
            threading.Thread(target=_listen, args=(worker, order, lines), daemon=True).start()
        ended = 0
        while ended < len(workers):
            line = lines.get()
            if line is None:
                ended += 1
                continue
            answer = json.loads(line)
            if "errno" in answer:
                raise OSError(answer["errno"], answer["error"], answer["file"])
            yield tuple(answer["job"]), answer["digests"]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _listen(worker: subprocess.Popen[bytes], order: bytes, lines: queue.Queue[bytes | None]) -> None:
    try:
        assert worker.stdin is not None and worker.stdout is not None
        with worker.stdin as pipe:
            pipe.write(order)
        for line in worker.stdout:
            if line.endswith(b"\n"):  # a killed worker may leave an incomplete line
                lines.put(line)
    except OSError:
        pass  # a broken pipe: the worker died, and this process draws its jobs
    finally:
        lines.put(None)
