"""What datasets and clients are called: by names that say nothing about the machine they lie on.

A client's name travels in every message and stands in reports and logs, so the name of a folder is never taken for
it. An entry of `data.datasets` is a folder, or `NAME=FOLDER`:

| entry | name of the client |
|---|---|
| `NAME=FOLDER` | `NAME` |
| a folder called like a dataset of the catalogue, or like a domain of MiniReID | the folder's name |
| any other folder | `client1`, `client2`, ...: its place in the list |
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from fedreid_pl.config import Config, portable_words, without_places
from fedreid_pl.data.catalogue import CATALOGUE
from fedreid_pl.data.minireid.domains import DOMAINS
from fedreid_pl.data.minireid.domains import PUBLIC as MINI_PUBLIC
from fedreid_pl.errors import FedReIDError, printable

NAME = re.compile(r"\w[\w.-]{0,63}")
RESERVED = ("mean", "server", "total", "process", "gpu", "global", "merged")
"""Names that tables and logs use for something else."""
PARTS = ("detected", "labeled")
"""Folders inside a dataset that the catalogue knows."""
PUBLIC = "public"


def split_entry(text: str) -> tuple[str | None, str]:
    """The name that an entry of `data.datasets` gives, `None` without one, and its folder.

    Raises:
        FedReIDError: if the name cannot be one.

    >>> split_entry("station=recordings/2024"), split_entry("mini-viper")
    (('station', 'recordings/2024'), (None, 'mini-viper'))
    """
    name, equals, folder = text.partition("=")
    if not equals or "/" in name:
        return None, text
    if not NAME.fullmatch(name) or name.lower() in RESERVED:
        raise FedReIDError(
            f"data.datasets: {printable(text)}: the name before '=' has to be 1 to 64 letters, digits, '_', '-' or "
            f"'.', start with a letter or digit, and be none of {', '.join(RESERVED)}"
        )
    if not folder:
        raise FedReIDError(f"data.datasets: {text}: give the folder, {name}=FOLDER")
    return name, folder


def public_word(folder: str) -> str | None:
    """The folder's name if everybody knows it: a dataset of the catalogue as it is usually spelled, or MiniReID's.

    >>> public_word("Market-1501-v15.09.15"), public_word("ward7/cuhk03-np/detected/"), public_word("ward7")
    ('Market-1501-v15.09.15', 'cuhk03-np-detected', None)
    """
    parts = os.path.normpath(folder).strip("/").split("/")
    known = parts[next((index for index, part in enumerate(parts) if _is_known(part)), len(parts)) :]
    return "-".join(known) if known and all(map(_is_known, known)) else None


def dataset_names(entries: Sequence[str]) -> list[str]:
    """The name of every entry of `data.datasets`, in order.

    Raises:
        FedReIDError: if two entries have one name, or a name cannot be one.

    >>> dataset_names(["mini-viper", "ward7/pictures", "station=recordings"])
    ['mini-viper', 'client2', 'station']
    """
    return _names([split_entry(text) for text in entries])


def folder_names(folders: Sequence[str]) -> list[str]:
    """The names of datasets that were found and not listed: as `dataset_names`, but `=` in a folder means nothing."""
    return _names([(None, folder) for folder in folders])


def _names(entries: Sequence[tuple[str | None, str]]) -> list[str]:
    names: list[str] = []
    for number, (name, folder) in enumerate(entries, 1):
        names.append(name or public_word(folder) or f"client{number}")
        if names[-1] in names[:-1]:
            raise FedReIDError(
                f"data.datasets: {printable(folder)}: the name {names[-1]} stands twice; two clients may not share "
                "images or a name, name one of them with NAME=FOLDER"
            )
    return names


def public_name(folder: str) -> str:
    """The name of the public set in `data.public`.

    >>> public_name("mini-cuhk02"), public_name("crawled/people")
    ('mini-cuhk02', 'public')
    """
    return public_word(folder) or PUBLIC


def shared_config(config: Config) -> dict[str, Any]:
    """The configuration for whatever leaves the machine: nested values without paths, folders by their names.

    >>> shared_config(Config())["data"]["root"] is None
    True
    """
    values = without_places(config)
    values["data"]["datasets"] = dataset_names(config.data.datasets)
    values["data"]["public"] = public_name(config.data.public) if config.data.public else None
    return values


def portable_entries(entries: Sequence[str]) -> list[str]:
    """Entries of `data.datasets` that give the same names on another machine, where FOLDER is to be filled in.

    >>> portable_entries(["mini-viper", "ward7/pictures"])
    ['mini-viper', 'client2=FOLDER']
    """
    named = zip(entries, dataset_names(entries), strict=True)
    return [text if public_word(text) == text.strip("/") else f"{name}=FOLDER" for text, name in named]


def portable_command(config: Config) -> str:
    """The command that computes the same on another machine, with words in capitals for its files and folders."""
    public = config.data.public
    shown = public if public is None or public_word(public) == public else "PUBLIC_FOLDER"
    return " ".join(["fedreid-pl train", *portable_words(config, portable_entries(config.data.datasets), shown)])


def _is_known(name: str) -> bool:
    listed = (*DOMAINS, MINI_PUBLIC.name, *CATALOGUE, *PARTS)
    return name in listed or (
        bool(NAME.fullmatch(name)) and any(dataset.is_spelled(name) for dataset in CATALOGUE.values())
    )
