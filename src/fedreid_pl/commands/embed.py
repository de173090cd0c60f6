"""Implements `fedreid-pl embed`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedreid_pl.commands.words import complain, number, take, yes_or_no
from fedreid_pl.errors import FedReIDError, counted, nearest

EMBED = ("out", "checkpoint", "client", "device", "flip", "batch_size", "model.name")


def embed(words: list[str]) -> int:
    """Computes the features of all pictures in a folder and saves them to a file."""
    options, (run, folder) = model_words(words, "embed RUN FOLDER", EMBED, 2)
    if "out" not in options:
        raise FedReIDError("embed: give the file to write, out=features.safetensors (or .npz, .parquet)")
    out = Path(os.path.expanduser(options["out"]))
    flip = yes_or_no("flip", options.get("flip", "true"))
    from fedreid_pl.federation.storage import check_output
    from fedreid_pl.reporting.status import Status
    from fedreid_pl.retrieval.features import SUFFIXES

    if out.suffix not in SUFFIXES:
        raise FedReIDError(f"out={out}: the name must end with {', '.join(SUFFIXES)}")
    check_output(out, "out")
    batch = number("batch_size", options.get("batch_size", "64"))
    model, status = load_model(run, options), Status()
    found = model.embed_files(folder, flip, batch, lambda done, all: status(f"embedding pictures: {done} of {all}"))
    status.done()
    name_damaged(found.damaged)
    if not len(found):
        raise FedReIDError(f"{folder}: no picture can be read, so no file was written")
    found.save(out)
    print(f"{counted(len(found), 'picture')}, {model.card.dim} values each: {out}")
    return 0


def model_words(
    words: Sequence[str], usage: str, keys: Sequence[str], wanted: int
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Returns the options among the words, and the other words; a path may contain an equals sign.

    Raises:
        FedReIDError: for an unknown option, or if the number of other words is not `wanted`.
    """
    options, rest = take(words, *keys)
    for word in rest:
        key, sign, _ = word.partition("=")
        if sign and not Path(os.path.expanduser(word)).exists():
            raise FedReIDError(f"{word}: no such option{nearest(key, list(keys))}")
    if len(rest) != wanted:
        raise FedReIDError(f"got {len(rest)} words, expected {wanted}; usage: fedreid-pl {usage}")
    return options, tuple(rest)


def load_model(run: str, options: dict[str, str]):  # type: ignore[no-untyped-def]
    """Loads the model of the run folder `run` with the options `checkpoint`, `client` and `device`."""
    from fedreid_pl.retrieval.loading import load

    which, client, device = options.get("checkpoint", "last"), options.get("client"), options.get("device", "cpu")
    return load(run, which, client, device, options.get("model.name"))


def name_damaged(damaged: Sequence[tuple[str, str]]) -> None:
    """Prints a warning for every picture that cannot be read."""
    for name, reason in damaged:
        complain(f"warning: {name}: {reason}; this picture is skipped")
