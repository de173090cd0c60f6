"""Decides whether and from which round a run resumes, and checks the run folder against the configuration."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedreid_pl.bounded import refuse_links
from fedreid_pl.config import Config, differences, lineage, load_config, may_change
from fedreid_pl.config.values import whole_number
from fedreid_pl.data.minireid.versions import check_resumed_version
from fedreid_pl.errors import FedReIDError, counted, printable
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.server.checkpoint import RELEASE, Checkpoints, read_checkpoint
from fedreid_pl.federation.storage import check_format, remove_leftovers, write_bytes
from fedreid_pl.reporting.run_folder import RunLock
from fedreid_pl.reporting.summary_file import read_splits, read_summary

WRITTEN = ("checkpoints", "clients", "images", "splits", "tensorboard", "wandb")
"""Subfolders of a run folder that training writes to."""

Digests = Mapping[str, Mapping[str, Any]]
"""Digests of every dataset, see `data.digest`."""


def prepare_folder(config: Config, folder: Path, digests: Digests | None = None) -> RunLock:
    """Prepares the run folder and returns a lock that keeps other processes out of the folder until it is deleted.

    `resume=auto` uses a folder with the same configuration as it is. `resume=never` renames the folder of an earlier
    run. `resume=PATH` copies the checkpoint and the clients' state from PATH, a checkpoint or a run folder.

    Raises:
        FedReIDError: if the folder cannot be written, another process writes to it, it belongs to another
            configuration, or the pictures (`digests`) differ from the pictures of the run.
    """
    if config.resume == "never":
        _move_aside(folder)
    refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedReIDError(f"output_dir={folder}: cannot be created ({error.strerror})") from error
    lock = RunLock(folder)
    remove_leftovers(folder)
    if config.resume not in ("auto", "never"):
        _take_over(config, Path(os.path.expanduser(config.resume)), folder, digests)
    _check_own(config, folder, digests)
    return lock


def check_folder(config: Config, folder: Path, digests: Digests | None = None) -> int:
    """Returns the round from which `train` would resume, 0 for a new run. Writes no files.

    Raises:
        FedReIDError: as in `prepare_folder`, except that the function does not check for other processes.
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
    """Checks the run in the folder, if any, against the configuration and the pictures."""
    done = Checkpoints(folder / "checkpoints").rounds()
    if done and config.resume != "never" and (folder / "config.yaml").exists():
        _check_same(config, folder, folder)  # a run without a finished round may be overwritten
    _check_same_pictures(config, folder, digests)
    if done and done[-1] > config.rounds:
        raise FedReIDError(
            f"rounds={config.rounds}: {folder} already has {counted(done[-1], 'round')}; set another output_dir "
            "or resume=never"
        )


def refuse_foreign(folder: Path) -> None:
    """Checks that a run folder contains no links to other places and no files of a newer format. Writes no files.

    Raises:
        OutsideFolder: for a link out of the folder; the message names the link.
        NewerFormat: for a newer file; the message names the file and the version that wrote it.
    """
    if not folder.is_dir():
        return
    refuse_links(folder, WRITTEN)
    for place in ("checkpoints", "clients"):
        for path in sorted((folder / place).glob("**/round-*")):
            check_format(path)


def recorded_precision(config: Config, folder: Path) -> str | None:
    """Returns the saved `trainer.precision` of the run that `config` resumes in `folder`, `None` for a new run.

    Raises:
        FedReIDError: if the run of `resume` does not exist or cannot be read.
    """
    if config.resume == "never":
        return None
    source = folder
    if config.resume != "auto" and not (folder / "config.yaml").exists():
        source = run_folder_of(_checkpoint_of(Path(os.path.expanduser(config.resume))))
    file = source / "config.yaml"
    return load_config(file).trainer.precision if file.exists() else None


def run_folder_of(checkpoint: Path) -> Path:
    """Returns the run folder RUN of a checkpoint `RUN/checkpoints/round-N.ckpt`."""
    return checkpoint.parent.parent


def find_checkpoint(path: Path, key: str = "") -> Path:
    """Returns the newest checkpoint of the run folder `path`, or `path` itself if it is a file.

    Args:
        key: key of the path, such as `resume=`; the beginning of the message.

    Raises:
        FedReIDError: if the folder contains no checkpoint.
    """
    if path.is_file():
        return path
    checkpoints = Checkpoints(path / "checkpoints")
    if not checkpoints.rounds():
        what = "contains no checkpoint" if path.is_dir() else "no such file or folder"
        raise FedReIDError(f"{key}{path}: {what}; give a run folder or a file checkpoints/round-N.ckpt")
    return checkpoints.path(checkpoints.rounds()[-1])


def named_checkpoint(folder: Path, checkpoint: str | int | os.PathLike) -> Path:
    """Returns the file of a checkpoint that the user names.

    Args:
        folder: folder of the run.
        checkpoint: `"last"`, `"best"` (the best round according to the run), the number of a saved round, or the path
            of a checkpoint file.

    Raises:
        FedReIDError: if there is no such checkpoint.
    """
    if checkpoint == "last":
        return find_checkpoint(folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    if checkpoint == "best":
        best = (read_summary(folder) or {}).get("best_round")
        if type(best) is not int:
            raise FedReIDError(f"checkpoint=best: {folder} has no best round; give checkpoint=last")
        checkpoint = best
    number = whole_number(checkpoint) if isinstance(checkpoint, str) else checkpoint
    if type(number) is int:
        if number not in checkpoints.rounds():
            held = ", ".join(map(str, checkpoints.rounds())) or "none"
            raise FedReIDError(f"checkpoint={checkpoint}: {folder} has no such checkpoint; saved rounds: {held}")
        return checkpoints.path(number)
    file = Path(os.path.expanduser(checkpoint)) if isinstance(checkpoint, str | os.PathLike) else None
    if file is None or not os.path.isfile(file):  # Path.is_file raises for a name that is too long
        shown = printable(str(checkpoint), 300)
        raise FedReIDError(f"checkpoint={shown}: give last, best, the number of a round, or a checkpoint's path")
    return file


def _checkpoint_of(path: Path) -> Path:
    """Returns the checkpoint that `resume=PATH` names, which is in a run folder."""
    checkpoint = find_checkpoint(path, "resume=")
    if not (run_folder_of(checkpoint) / "config.yaml").is_file():
        raise FedReIDError(
            f"resume={path}: is not in a run folder; give a run folder or a file RUN/checkpoints/round-N.ckpt"
        )
    return checkpoint


def _take_over(config: Config, path: Path, folder: Path, digests: Digests | None) -> None:
    source, round = _check_source(config, path, digests)
    checkpoint = _checkpoint_of(path)
    target = Checkpoints(folder / "checkpoints")
    if source.resolve() != folder.resolve():
        if target.rounds():  # the command was repeated after an interruption: resume its own rounds
            return
        try:
            shutil.copytree(source / "clients", folder / "clients", dirs_exist_ok=True)
            target.folder.mkdir(parents=True, exist_ok=True)
            if (checkpoint.parent / RELEASE).exists():
                write_bytes(target.folder / RELEASE, (checkpoint.parent / RELEASE).read_bytes())
            write_bytes(
                target.folder / checkpoint.name, checkpoint.read_bytes()
            )  # last, because this file makes the folder a run
        except (OSError, shutil.Error) as error:
            reason = getattr(error, "strerror", None) or "copying failed"
            raise FedReIDError(f"resume={path}: cannot be copied to {folder} ({reason})") from error
    target.forget(round)
    ClientStore(folder / "clients").forget(round)


def _check_source(config: Config, path: Path, digests: Digests | None) -> tuple[Path, int]:
    """Returns the folder and the round of the run that `resume=PATH` names, after checking both."""
    checkpoint = _checkpoint_of(path)
    source = run_folder_of(checkpoint)
    refuse_foreign(source)
    _check_same(config, source, checkpoint)
    _check_same_pictures(config, source, digests)
    round = read_checkpoint(checkpoint, lineage(config))["round"]
    if round > config.rounds:
        raise FedReIDError(
            f"resume={checkpoint}: this checkpoint is of round {round}, but rounds={config.rounds}; set more rounds or "
            "give an earlier checkpoint"
        )
    return source, round


def _check_same(config: Config, folder: Path, named: Path) -> None:
    before = load_config(folder / "config.yaml")
    check_resumed_version(str(named), before.data, config.data)
    if before.defaults != config.defaults:
        raise FedReIDError(
            f"{named}: was made with defaults={before.defaults}, but this version of fedreid_pl uses "
            f"defaults={config.defaults}; finish the run with the version that started it, choose another output_dir, "
            "or set resume=never to start again"
        )
    if before.rounds != config.rounds and config.optim.schedule == "cosine" and config.optim.scope == "run":
        raise FedReIDError(
            f"{named}: was made with rounds={before.rounds}, which optim.schedule=cosine depends on; keep this number, "
            "choose another output_dir, or set resume=never to start again"
        )
    # data.synthetic is found from the pictures, which are compared next
    changed = [key for key in differences(before, config) if key != "data.synthetic" and not may_change(key)]
    if changed:
        raise FedReIDError(
            f"{named}: was made with another configuration ({', '.join(changed[:3])} differ); "
            "choose another output_dir, or set resume=never to start again"
        )


def _check_same_pictures(config: Config, folder: Path, digests: Digests | None) -> None:
    before = read_splits(folder)
    if digests is None or not before or not Checkpoints(folder / "checkpoints").rounds():
        return  # the digests are unknown, or the run has no finished round
    for name in (*digests, *before):
        if digests.get(name, {}).get("sha256") != before.get(name, {}).get("sha256"):
            place = f"data.root={config.data.root}" if config.data.root else f"data={config.data.name}"
            raise FedReIDError(
                f"{place}: the pictures of {name} have changed since the run in {folder} started; "
                "restore them, choose another output_dir, or set resume=never to start again"
            )


def _move_aside(folder: Path) -> None:
    if not (folder / "config.yaml").exists():
        return
    lock = RunLock(folder)  # fails while another process writes to the folder
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    try:
        folder.rename(target)
    except OSError as error:
        raise FedReIDError(f"output_dir={folder}: cannot be renamed ({error.strerror})") from error
    finally:
        del lock
