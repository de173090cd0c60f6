"""Weights files of various programs: one rule finds the tensors of a network in all of them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError

State = dict[str, Tensor]

WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "weights", "module"),
    *("teacher", "student", "ema", "model_ema", "backbone", "encoder"),
)
"""Keys under which programs save the state dict, in the order of preference."""

PREFERRED = ("encoder_q.", "base_encoder.", "teacher.")
"""Prefixes of the network to load if a file has the network twice (MoCo, DINO and SOLIDER)."""

CLASSIFIERS = {"classifier", "head"}
"""Parts of a network in which a file may have more tensors than the trunk."""

SAFE: tuple[Any, ...] = (
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
)
"""Allowed types in a file besides tensors: numpy numbers, such as a Rank-1 that is saved with the weights."""


class Found(NamedTuple):
    """The tensors of a network in a file.

    Args:
        state: tensors by the network's own names.
        prefix: prefix that was removed from the names in the file.
    """

    state: State
    prefix: str


def read_tensors(path: Path, source: str) -> State:
    """Returns the tensors of a weights file by name.

    The function reads files of `torch.save` and safetensors and executes no code from a file. The state dict is the
    content of the file, or it is stored under one of `WRAPPERS`, at most two levels deep. Other content (epochs,
    optimizers) is ignored.

    Args:
        path: the file.
        source: name of the file in messages, such as `model.weights=FILE`.

    Raises:
        FedReIDError: if the file cannot be read, or contains a whole module, a TorchScript archive or no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return _mapping(_loaded(path, source), source)
    except OSError as error:
        raise FedReIDError(f"{source}: cannot be read ({error.strerror or error})") from error
    except FedReIDError:
        raise
    except Exception as error:  # the readers raise various exceptions for damaged files
        raise FedReIDError(f"{source}: is not a weights file, or is damaged") from error


def find_network(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str, name: str) -> Found:
    """Returns the tensors of one network in a file, which have one common prefix.

    Args:
        tensors: tensors of the file.
        wanted: the state dict of the network; batch counters may be missing in the file.
        source: name of the file in messages.
        name: name of the network in messages.

    Raises:
        FedReIDError: if the file has no such network, only a part of it, a larger network, or the network several
            times.
    """
    needed = [key for key in wanted if not key.endswith("num_batches_tracked")]
    first = needed[0]
    prefixes = {key.removesuffix(first) for key in tensors if key.endswith(first)}
    prefixes = {prefix for prefix in prefixes if prefix in ("",) or prefix.endswith(".")}
    whole = sorted(prefix for prefix in prefixes if all(prefix + key in tensors for key in needed))
    if not whole:
        raise FedReIDError(f"{source}: {_missing(tensors, needed, prefixes, name)}")
    prefix = _chosen(whole, source)
    for key in needed:
        if tensors[prefix + key].shape != wanted[key].shape:
            raise FedReIDError(
                f"{source}: '{prefix + key}' has shape {tuple(tensors[prefix + key].shape)}, but in {name} it has "
                f"shape {tuple(wanted[key].shape)}; give the weights of this network"
            )
    parts = {key.partition(".")[0] for key in wanted} - CLASSIFIERS
    more = [
        key
        for key in tensors
        if key.startswith(prefix)
        and key.removeprefix(prefix) not in wanted
        and key.removeprefix(prefix).partition(".")[0] in parts
    ]
    if more:
        raise FedReIDError(
            f"{source}: is of another network than {name}: it has '{more[0]}' ({len(more)} tensors too many); "
            "set model.name to the network of the file"
        )
    return Found({key: tensors.get(prefix + key, value) for key, value in wanted.items()}, prefix)


def find_neck(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Found | None:
    """Returns the tensors of a bottleneck or BNNeck in a file, or `None` if the file has no matching neck.

    Args:
        tensors: tensors of the file.
        wanted: the state dict of the neck, names without a prefix.
    """
    needed = [key for key in wanted if not key.endswith("num_batches_tracked")]
    for prefix in _neck_prefixes(tensors):
        names = {key: prefix + key for key in needed}
        if not all(name in tensors and tensors[name].shape == wanted[key].shape for key, name in names.items()):
            continue
        own = {key.removeprefix(prefix) for key in tensors if key.startswith(prefix)}
        if own - set(wanted) - {"bias"}:
            continue
        if "bias" in own - set(wanted) and bool(tensors[prefix + "bias"].abs().max() > 0):
            continue  # this neck has no bias; with a nonzero bias in the file, the features would differ
        return Found({key: tensors.get(prefix + key, value) for key, value in wanted.items()}, prefix)
    return None


def _neck_prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns the prefixes of bottlenecks in a file, by the usual names of bottlenecks."""
    found: dict[str, None] = {}
    for key in tensors:
        parts = key.split(".")
        for place, part in enumerate(parts[:-1]):
            if part in ("bottleneck", "bnneck", "neck", "bn_neck"):
                found |= {".".join(parts[: place + 1]) + ".": None}
                if parts[place + 1].isdecimal():
                    found |= {".".join(parts[: place + 2]) + ".": None}
    return list(found)


def _loaded(path: Path, source: str) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [item.filename.partition("/")[2] for item in archive.infolist()]
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            raise FedReIDError(
                f"{source}: is a TorchScript archive, which contains code; save only the weights: "
                "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
            )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*SAFE, *_numpy_functions()]):
            warnings.simplefilter("ignore")  # torch warns about unusual pickles before it rejects them
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():  # no unsupported type: the file is damaged or is not a pickle
            raise
        raise FedReIDError(
            f"{source}: contains more than tensors and numbers, perhaps a whole module; save only the weights: "
            "torch.save(model.state_dict(), NEW)"
        ) from error


def _numpy_functions() -> list[Any]:
    """Returns the function that unpickles numpy numbers, with its names in numpy 1 and 2."""
    scalar = np.float64(0.0).__reduce__()[0]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]


def _mapping(loaded: Any, source: str, depth: int = 2) -> State:
    """Returns the state dict in the content of a file."""
    found = next(_mappings(loaded, depth), None)
    if found is None:
        raise FedReIDError(f"{source}: contains no state dict; save the network's state_dict()")
    return found


def _mappings(value: Any, depth: int) -> Iterator[State]:
    if not isinstance(value, Mapping):
        return
    tensors = {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, Tensor)}
    if any("." in key for key in tensors):
        yield tensors
    if depth:
        keys = [*(key for key in WRAPPERS if key in value), *(key for key in value if key not in WRAPPERS)]
        for key in keys:
            yield from _mappings(value[key], depth - 1)


def _missing(tensors: Mapping[str, Tensor], needed: list[str], prefixes: set[str], name: str) -> str:
    best = max(
        prefixes, key=lambda prefix: (sum(prefix + key in tensors for key in needed), -len(prefix)), default=None
    )
    held = 0 if best is None else sum(best + key in tensors for key in needed)
    if best is None or 2 * held < len(needed):
        some = ", ".join(list(tensors)[:3])
        return f"contains no weights of {name}; its first tensors are {some}; set model.name to the network of the file"
    lost = next(key for key in needed if best + key not in tensors)
    return (
        f"contains {held} of the {len(needed)} tensors of {name}, '{best}{lost}' is missing; "
        "set model.name to the network of the file"
    )


def _chosen(prefixes: list[str], source: str) -> str:
    if len(prefixes) == 1:
        return prefixes[0]
    for marked in PREFERRED:
        found = [prefix for prefix in prefixes if marked in prefix]
        if len(found) == 1:
            return found[0]
    raise FedReIDError(
        f"{source}: contains this network {len(prefixes)} times, under {' and '.join(repr(p) for p in prefixes)}; "
        "save a file with only one of them"
    )
