"""Whether and where a run goes on: what its folder holds, held against what is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedreid_pl.bounded import refuse_links
from fedreid_pl.config import Config, differences, lineage, load_config, may_change
from fedreid_pl.data.minireid.versions import check_resumed_version
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.server.checkpoint import RELEASE, Checkpoints, read_checkpoint
from fedreid_pl.federation.storage import check_format, remove_leftovers, write_bytes
from fedreid_pl.reporting.run_folder import RunLock
from fedreid_pl.reporting.summary_file import read_splits

WRITTEN = ("checkpoints", "clients", "images", "splits", "tensorboard", "wandb")
"""Folders in a run's folder that training writes to."""

Digests = Mapping[str, Mapping[str, Any]]
"""What was read of every dataset, see `data.digest`."""


def prepare_folder(config: Config, folder: Path, digests: Digests | None = None) -> RunLock:
    """Makes the run's folder ready and keeps other processes out of it until the returned lock is dropped.

    `resume=auto` leaves a folder that the same configuration has begun as it is. `resume=never` moves an earlier
    run aside. `resume=PATH`, a checkpoint or a run's folder, takes over that checkpoint and the clients' state.

    Raises:
        FedReIDError: if the folder cannot be written, another process writes it, or it belongs to another
            configuration, or the pictures are others than those that it was begun with (`digests`).
    """
    if config.resume == "never":
        _move_aside(folder)
    refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedReIDError(f"output_dir={folder}: cannot be made ({error.strerror})") from error
    lock = RunLock(folder)
    remove_leftovers(folder)
    if config.resume not in ("auto", "never"):
        _take_over(config, Path(os.path.expanduser(config.resume)), folder, digests)
    _check_own(config, folder, digests)
    return lock


def check_folder(config: Config, folder: Path, digests: Digests | None = None) -> int:
    """Returns the round that `train` would go on from, 0 for a new run, and touches nothing.

    Raises:
        FedReIDError: as `prepare_folder`, but for a folder that another process writes.
    """
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise FedReIDError(f"output_dir={folder}: {place} cannot be written to; choose another output_dir")
    if config.resume == "never":
        return 0
    own = Checkpoints(folder / "checkpoints").rounds()
    if config.resume != "auto":
        source, round = _check_source(config, Path(os.path.expanduser(config.resume)), digests)
        if source.resolve() == folder.resolve() or not own:
            return round
    _check_own(config, folder, digests)
    return own[-1] if own else 0


def _check_own(config: Config, folder: Path, digests: Digests | None) -> None:
    """Holds what the folder has, if anything, against what is asked for."""
    done = Checkpoints(folder / "checkpoints").rounds()
    if done and config.resume != "never" and (folder / "config.yaml").exists():
        _check_same(config, folder, folder)  # before its first round a run has nothing to lose
    _check_same_pictures(config, folder, digests)
    if done and done[-1] > config.rounds:
        raise FedReIDError(
            f"rounds={config.rounds}: {folder} holds {done[-1]} rounds; choose another output_dir or resume=never"
        )


def refuse_foreign(folder: Path) -> None:
    """Refuses a run's folder with links that lead out of it, or with files of a newer format; nothing is written.

    Raises:
        OutsideFolder: naming the link.
        NewerFormat: naming the file and the version that wrote it.
    """
    if not folder.is_dir():
        return
    refuse_links(folder, WRITTEN)
    for place in ("checkpoints", "clients"):
        for path in sorted((folder / place).glob("**/round-*")):
            check_format(path)


def recorded_precision(config: Config, folder: Path) -> str | None:
    """`trainer.precision` of the run that `config` goes on with in `folder`, `None` for a new run.

    Raises:
        FedReIDError: if `resume` names a run that is not there or cannot be read.
    """
    if config.resume == "never":
        return None
    source = folder
    if config.resume != "auto" and not (folder / "config.yaml").exists():
        source = run_folder_of(find_checkpoint(Path(os.path.expanduser(config.resume))))
    file = source / "config.yaml"
    return load_config(file).trainer.precision if file.exists() else None


def run_folder_of(checkpoint: Path) -> Path:
    """The run's folder of `RUN/checkpoints/round-N.ckpt`."""
    return checkpoint.parent.parent


def find_checkpoint(path: Path) -> Path:
    """The newest checkpoint of a run's folder, or `path` itself if it is a file.

    Raises:
        FedReIDError: if there is none.
    """
    if path.is_file():
        return path
    checkpoints = Checkpoints(path / "checkpoints")
    if not checkpoints.rounds():
        raise FedReIDError(f"{path}: no checkpoint there; give a run's folder or a file checkpoints/round-N.ckpt")
    return checkpoints.path(checkpoints.rounds()[-1])


def _take_over(config: Config, path: Path, folder: Path, digests: Digests | None) -> None:
    source, round = _check_source(config, path, digests)
    checkpoint = find_checkpoint(path)
    target = Checkpoints(folder / "checkpoints")
    if source.resolve() != folder.resolve():
        if target.rounds():  # the same command again, after a kill: go on from what it has done
            return
        try:
            shutil.copytree(source / "clients", folder / "clients", dirs_exist_ok=True)
            target.folder.mkdir(parents=True, exist_ok=True)
            if (checkpoint.parent / RELEASE).exists():
                write_bytes(target.folder / RELEASE, (checkpoint.parent / RELEASE).read_bytes())
            write_bytes(target.folder / checkpoint.name, checkpoint.read_bytes())  # last: it makes the folder a run
        except (OSError, shutil.Error) as error:
            reason = getattr(error, "strerror", None) or "copying failed"
            raise FedReIDError(f"resume={path}: cannot be taken over into {folder} ({reason})") from error
    target.forget(round)
    ClientStore(folder / "clients").forget(round)


def _check_source(config: Config, path: Path, digests: Digests | None) -> tuple[Path, int]:
    """The folder and the round of a run that another one begins from."""
    checkpoint = find_checkpoint(path)
    source = run_folder_of(checkpoint)
    refuse_foreign(source)
    _check_same(config, source, checkpoint)
    _check_same_pictures(config, source, digests)
    round = read_checkpoint(checkpoint, lineage(config))["round"]
    if round > config.rounds:
        raise FedReIDError(f"resume={checkpoint}: is of round {round}, rounds={config.rounds}")
    return source, round


def _check_same(config: Config, folder: Path, named: Path) -> None:
    before = load_config(folder / "config.yaml")
    check_resumed_version(str(named), before.data, config.data)
    if before.defaults != config.defaults:
        raise FedReIDError(
            f"{named}: was made with the defaults number {before.defaults}, this fedreid_pl has number "
            f"{config.defaults}; finish the run with the version that began it, choose another output_dir, or "
            "resume=never to begin anew"
        )
    if before.rounds != config.rounds and config.optim.schedule == "cosine" and config.optim.scope == "run":
        raise FedReIDError(
            f"{named}: was made with rounds={before.rounds}, over which optim.schedule=cosine spreads its rates; "
            "keep that number, choose another output_dir, or resume=never to begin anew"
        )
    # data.synthetic is found from the pictures, which are compared next
    changed = [key for key in differences(before, config) if key != "data.synthetic" and not may_change(key)]
    if changed:
        raise FedReIDError(
            f"{named}: was made with another configuration ({', '.join(changed[:3])} differ); "
            "choose another output_dir, or resume=never to begin anew"
        )


def _check_same_pictures(config: Config, folder: Path, digests: Digests | None) -> None:
    before = read_splits(folder)
    if digests is None or not before or not Checkpoints(folder / "checkpoints").rounds():
        return  # nothing is known, or nothing has been learnt from them
    for name in (*digests, *before):
        if digests.get(name, {}).get("sha256") != before.get(name, {}).get("sha256"):
            place = f"data.root={config.data.root}" if config.data.root else f"data={config.data.name}"
            raise FedReIDError(
                f"{place}: the pictures of {name} are not those that the run in {folder} began with; "
                "put them back, choose another output_dir, or resume=never to begin anew"
            )


def _move_aside(folder: Path) -> None:
    if not (folder / "config.yaml").exists():
        return
    lock = RunLock(folder)  # not from under a process that writes it
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    try:
        folder.rename(target)
    except OSError as error:
        raise FedReIDError(f"output_dir={folder}: cannot be moved aside ({error.strerror})") from error
    finally:
        del lock
