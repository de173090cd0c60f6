"""Names of datasets and clients that reveal nothing about the machine with the data.

The name of a client is part of every message, report and log. Therefore the name of a private folder is never used as
the client's name. An entry of `data.datasets` is a folder, or `NAME=FOLDER`:

| entry | name of the client |
|---|---|
| `NAME=FOLDER` | `NAME` |
| a folder with the name of a dataset of the catalogue or of a domain of MiniReID | the folder's name |
| any other folder | `client1`, `client2`, ...: its position in the list |
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
"""Names that tables and logs use for other things."""
PARTS = ("detected", "labeled")
"""Names of subfolders of datasets in the catalogue."""
PUBLIC = "public"


def split_entry(text: str) -> tuple[str | None, str]:
    """Returns the name in an entry of `data.datasets` (`None` if it has no name), and its folder.

    Raises:
        FedReIDError: if the name is not allowed.

    >>> split_entry("station=recordings/2024"), split_entry("mini-viper")
    (('station', 'recordings/2024'), (None, 'mini-viper'))
    """
    name, equals, folder = text.partition("=")
    if not equals or "/" in name:
        return None, text
    if not NAME.fullmatch(name) or name.lower() in RESERVED:
        raise FedReIDError(
            f"data.datasets: {printable(text)}: the name before '=' must have 1 to 64 letters, digits, '_', '-' or "
            f"'.', start with a letter or digit, and not be one of {', '.join(RESERVED)}"
        )
    if not folder:
        raise FedReIDError(f"data.datasets: {text}: give the folder, {name}=FOLDER")
    return name, folder


def public_word(folder: str) -> str | None:
    """Returns the folder's name if it is a public name: a usual spelling of a known dataset, or a MiniReID domain.

    >>> public_word("Market-1501-v15.09.15"), public_word("ward7/cuhk03-np/detected/"), public_word("ward7")
    ('Market-1501-v15.09.15', 'cuhk03-np-detected', None)
    """
    parts = os.path.normpath(folder).strip("/").split("/")
    known = parts[next((index for index, part in enumerate(parts) if _is_known(part)), len(parts)) :]
    return "-".join(known) if known and all(map(_is_known, known)) else None


def dataset_names(entries: Sequence[str]) -> list[str]:
    """Returns the name of every entry of `data.datasets`, in order.

    Raises:
        FedReIDError: if two entries have the same name, or a name is not allowed.

    >>> dataset_names(["mini-viper", "ward7/pictures", "station=recordings"])
    ['mini-viper', 'client2', 'station']
    """
    return _names([split_entry(text) for text in entries])


def folder_names(folders: Sequence[str]) -> list[str]:
    """Returns the names of datasets that were found in `data.root`; `=` in a folder name has no special meaning."""
    return _names([(None, folder) for folder in folders])


def _names(entries: Sequence[tuple[str | None, str]]) -> list[str]:
    names: list[str] = []
    for number, (name, folder) in enumerate(entries, 1):
        names.append(name or public_word(folder) or f"client{number}")
        if names[-1] in names[:-1]:
            raise FedReIDError(
                f"data.datasets: {printable(folder)}: the name {names[-1]} is given twice; two clients may not share "
                "images or a name, so rename one of them with NAME=FOLDER"
            )
    return names


def public_name(folder: str) -> str:
    """Returns the name of the public set in `data.public`.

    >>> public_name("mini-cuhk02"), public_name("crawled/people")
    ('mini-cuhk02', 'public')
    """
    return public_word(folder) or PUBLIC


def shared_config(config: Config) -> dict[str, Any]:
    """Returns the configuration as nested values without paths, for everything that leaves the machine.

    >>> shared_config(Config())["data"]["root"] is None
    True
    """
    values = without_places(config)
    values["data"]["datasets"] = dataset_names(config.data.datasets)
    values["data"]["public"] = public_name(config.data.public) if config.data.public else None
    return values


def portable_entries(entries: Sequence[str]) -> list[str]:
    """Returns entries of `data.datasets` with the same names for another machine; the user fills in FOLDER.

    >>> portable_entries(["mini-viper", "ward7/pictures"])
    ['mini-viper', 'client2=FOLDER']
    """
    named = zip(entries, dataset_names(entries), strict=True)
    return [text if public_word(text) == text.strip("/") else f"{name}=FOLDER" for text, name in named]


def portable_command(config: Config) -> str:
    """Returns the command for the same run on another machine, with words in capitals for files and folders."""
    public = config.data.public
    shown = public if public is None or public_word(public) == public else "PUBLIC_FOLDER"
    return " ".join(["fedreid-pl train", *portable_words(config, portable_entries(config.data.datasets), shown)])


def _is_known(name: str) -> bool:
    listed = (*DOMAINS, MINI_PUBLIC.name, *CATALOGUE, *PARTS)
    return name in listed or (
        bool(NAME.fullmatch(name)) and any(dataset.is_spelled(name) for dataset in CATALOGUE.values())
    )
