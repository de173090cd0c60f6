"""Weights files as people hold them: one rule finds a network's tensors in any of them."""

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
"""Keys under which programs keep the mapping of tensors, the preferred one first."""

PREFERRED = ("encoder_q.", "base_encoder.", "teacher.")
"""Prefixes that are taken where a file holds a network twice: the trained one of MoCo, DINO and SOLIDER."""

CLASSIFIERS = {"classifier", "head"}
"""Parts of a network in which a file may hold more than a trunk has."""

SAFE: tuple[Any, ...] = (
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
)
"""Types besides tensors that a file may hold: numpy's plain numbers, such as a Rank-1 kept beside the weights."""


class Found(NamedTuple):
    """The tensors of a network in a file.

    Args:
        state: by the network's own names.
        prefix: what was stripped from the names in the file.
    """

    state: State
    prefix: str


def read_tensors(path: Path, source: str) -> State:
    """Returns the mapping of tensors that a weights file holds.

    `torch.save` and safetensors are read; nothing in the file is executed. The mapping is the file itself, or lies
    under one of `WRAPPERS`, two levels deep at most; what lies beside it (epochs, optimizers) is left out.

    Args:
        path: the file.
        source: how a message names it, such as `model.weights=FILE`.

    Raises:
        FedReIDError: if it cannot be read, or holds a whole module, a TorchScript archive or no tensors.
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
    except Exception as error:  # damaged bytes make the readers fail in any way
        raise FedReIDError(f"{source}: is not a file of weights, or is damaged") from error


def find_network(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str, name: str) -> Found:
    """Returns the tensors of one network, found under one prefix.

    Args:
        tensors: of a file.
        wanted: the network's own state dict; counters of batches may be missing in the file.
        source: how a message names the file.
        name: how a message names the network.

    Raises:
        FedReIDError: if the file holds no such network, a part of one, a larger one, or several.
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
                f"{source}: '{prefix + key}' is {tuple(tensors[prefix + key].shape)}, "
                f"{name} has {tuple(wanted[key].shape)}; give the weights of this network"
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
            f"{source}: is of another network than {name}: it holds '{more[0]}' "
            f"({len(more)} tensors more); set model.name to the network that the file was made with"
        )
    return Found({key: tensors.get(prefix + key, value) for key, value in wanted.items()}, prefix)


def find_neck(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Found | None:
    """Returns the tensors of a bottleneck or BNNeck in a file, `None` if there is none of this kind.

    Args:
        tensors: of a file.
        wanted: the neck's own state dict, names without a prefix.
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
            continue  # this neck has no bias, and the file's is not zero: other features
        return Found({key: tensors.get(prefix + key, value) for key, value in wanted.items()}, prefix)
    return None


def _neck_prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Prefixes of tensors that lie in a bottleneck, by the names that projects give it."""
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
                f"{source}: is a TorchScript archive, which holds code; save the weights alone, "
                "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
            )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*SAFE, *_numpy_functions()]):
            warnings.simplefilter("ignore")  # torch remarks on odd pickles before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():  # no foreign type: damaged, or no pickle at all
            raise
        raise FedReIDError(
            f"{source}: holds more than tensors and numbers, perhaps a whole module; save its weights alone, "
            "torch.save(model.state_dict(), NEW)"
        ) from error


def _numpy_functions() -> list[Any]:
    """The function by which numpy's numbers are pickled, under its names in versions 1 and 2."""
    scalar = np.float64(0.0).__reduce__()[0]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]


def _mapping(loaded: Any, source: str, depth: int = 2) -> State:
    """The mapping of tensors in what was loaded."""
    found = next(_mappings(loaded, depth), None)
    if found is None:
        raise FedReIDError(f"{source}: holds no mapping of tensors; save the network's state_dict()")
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
        return f"holds no weights of {name}; its first tensors are {some}; set model.name to the file's network"
    lost = next(key for key in needed if best + key not in tensors)
    return (
        f"holds {held} of the {len(needed)} tensors of {name}, '{best}{lost}' is missing; "
        "set model.name to the network that the file was made with"
    )


def _chosen(prefixes: list[str], source: str) -> str:
    if len(prefixes) == 1:
        return prefixes[0]
    for marked in PREFERRED:
        found = [prefix for prefix in prefixes if marked in prefix]
        if len(found) == 1:
            return found[0]
    raise FedReIDError(
        f"{source}: holds this network {len(prefixes)} times, under {' and '.join(repr(p) for p in prefixes)}; "
        "save the one that you want alone"
    )
