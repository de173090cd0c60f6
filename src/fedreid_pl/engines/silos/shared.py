"""Separates the part of a configuration that the coordinator sets from the part that each silo sets itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from fedreid_pl.config import Config, DataConfig, ReportConfig, TrainerConfig, compose, load_config, to_yaml
from fedreid_pl.config.compose import flat
from fedreid_pl.config.schema import EngineConfig, WandbConfig
from fedreid_pl.config.trusted import is_import_path
from fedreid_pl.data.locating import dataset_folders, locate_root
from fedreid_pl.data.scenarios import NO_CAMERAS
from fedreid_pl.errors import FedReIDError, nearest
from fedreid_pl.federation.storage import write_text

OWN_DATA = (
    *("source", "version", "root", "minireid_dir", "layout", "name_pattern", "datasets", "test_ids", "overlap"),
    *("cache", "cache_dir", "workers", "on_bad_image", "split"),
)
"""Keys of `data` that a silo sets itself: the place of its pictures and how its files are read."""
OWN_TRAINER = ("accelerator", "devices", "num_nodes", "strategy", "compile", "benchmark")
"""Keys of `trainer` that a silo sets itself: the devices that it computes on."""
NEVER_SHARED = ("public", "public_overlap", "synthetic")
"""Keys of `data` that only the coordinator uses."""


def check_shareable(config: Config) -> None:
    """Checks that no key of an experiment needs the pictures of several parties in one place.

    Raises:
        FedReIDError: if a key does; the message names the key.
    """
    if config.data.scenario != "by_dataset":
        raise FedReIDError(
            f"data.scenario={config.data.scenario}: with engine=silos every silo is one client; "
            "leave the key out, or use another engine"
        )
    if config.data.clients != "all":
        raise FedReIDError(
            f"data.clients={config.data.clients}: with engine=silos the federation's folder lists the clients; leave "
            "the key out"
        )
    if config.data.leave_out is not None:
        raise FedReIDError(
            f"data.leave_out={config.data.leave_out}: with engine=silos the coordinator has no pictures of this "
            "dataset; train without the key, then fedreid-pl evaluate run=FOLDER data.root=ITS_PICTURES"
        )
    if is_import_path(config.model.name):
        raise FedReIDError(
            f"model.name={config.model.name}: a silo imports no code that a message names; with engine=silos choose a "
            "network that fedreid-pl or timm has"
        )
    if config.trainer.devices > 1 or config.trainer.num_nodes > 1:
        raise FedReIDError(
            f"trainer.devices={config.trainer.devices} trainer.num_nodes={config.trainer.num_nodes}: the coordinator "
            "trains nothing; leave the keys out"
        )


def shared_text(config: Config) -> str:
    """Returns the part of a configuration that silos receive, as YAML: without paths, file names and accounts."""
    data, usual = config.data, DataConfig()
    hidden = {name: getattr(usual, name) for name in (*OWN_DATA, *NEVER_SHARED)}
    trainer = replace(config.trainer, **{name: getattr(TrainerConfig(), name) for name in OWN_TRAINER})
    return to_yaml(
        replace(
            config,
            output_dir=None,
            resume="auto",
            logger="none",
            wandb=WandbConfig(),
            report=ReportConfig(),
            engine=EngineConfig(),
            model=replace(config.model, weights="none"),  # the initial weights travel with the experiment
            data=replace(data, **hidden),
            trainer=trainer,
        )
    )


def experiment_digest(text: str) -> str:
    """Returns the number of an experiment: the SHA-256 of its shared configuration."""
    return hashlib.sha256(text.encode()).hexdigest()


def own_words(words: Sequence[str]) -> list[str]:
    """Returns a silo's command-line words after a check that each sets a key of its data or its devices.

    Raises:
        FedReIDError: if a word sets another key.

    >>> own_words(["data=crops", "data.root=/pictures", "trainer.accelerator=cpu"])
    ['data=crops', 'data.root=/pictures', 'trainer.accelerator=cpu']
    """
    known = ["data", *(f"data.{name}" for name in OWN_DATA), *(f"trainer.{name}" for name in OWN_TRAINER)]
    for word in words:
        name = word.partition("=")[0]
        if name in known:
            continue
        section = name.startswith("callbacks.") or name in ("exp", "engine", "federation")
        if section or name in flat(asdict(Config())):
            raise FedReIDError(f"{word}: the coordinator sets {name}; a silo sets only its data.* and trainer.*")
        raise FedReIDError(f"{word}: no such key of a silo{nearest(name, known)}")
    return list(words)


def own_config(words: Sequence[str], name: str) -> Config:
    """Returns a silo's configuration of its data and devices; its single dataset gets the silo's name.

    Raises:
        FedReIDError: if a word sets another key, `data.root` is not set, or its folder is missing or contains several
            datasets.
    """
    config = compose(own_words(words))
    if config.trainer.devices > 1 or config.trainer.num_nodes > 1:
        raise FedReIDError(f"trainer.devices={config.trainer.devices}: a silo trains in one process; set 1")
    if not config.data.root:  # otherwise a forgotten key would draw synthetic pictures
        raise FedReIDError("data.root: is missing; give the folder of this silo's pictures, data.root=FOLDER")
    config.data.public = None
    root = locate_root(config.data)
    folders = dataset_folders(config.data, root)
    if len(folders) != 1:
        raise FedReIDError(
            f"data.root={root}: contains {len(folders)} datasets ({', '.join(list(folders)[:5])}), but a silo is one "
            f"client; name one of them, data.datasets=[{next(iter(folders))}]"
        )
    (folder,) = folders.values()
    config.data = replace(config.data, root=str(root), source="folder", datasets=[f"{name}={folder.relative_to(root)}"])
    return config


def silo_config(text: str, own: Config, file: Path) -> Config:
    """Returns the configuration of an experiment at a silo: the coordinator's, with the silo's data and devices.

    Args:
        text: return value of `shared_text` at the coordinator; the silo does not trust it and checks it.
        own: return value of `own_config`.
        file: file to save the text in; error messages name this file.

    Raises:
        FedReIDError: if the text is not a configuration of this version.
    """
    write_text(file, text)
    config = load_config(file)
    check_shareable(config)
    config.data = replace(config.data, **{name: getattr(own.data, name) for name in OWN_DATA}, public=None)
    config.trainer = replace(config.trainer, **{name: getattr(own.trainer, name) for name in OWN_TRAINER})
    config.output_dir, config.logger, config.resume = None, "none", "auto"
    config.model.weights = "none"
    return config


def client_name(silo: str, names: Mapping[str, object]) -> str:
    """Returns the name of a silo's single client: the silo's name, with a suffix if the dataset has no cameras.

    Raises:
        FedReIDError: if the client has another name.
    """
    found = list(names)
    if found not in ([silo], [silo + NO_CAMERAS]):
        raise FedReIDError(
            f"{silo}: its data define the clients {', '.join(found) or 'none'}, expected one with the silo's name"
        )
    return found[0]
