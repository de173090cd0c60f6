"""Features with the names of their images, and the files that store them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import write_bytes

SUFFIXES = (".safetensors", ".npz", ".parquet")
FORMAT = 1


@dataclass(frozen=True)
class Features:
    """Features of images.

    Args:
        names: names of the images, relative to the embedded folder.
        values: `[N, D]` float32, of length 1.
        header: model, preprocessing and flip of the features, as plain values.
        damaged: name and reason of every image that could not be read.
    """

    names: list[str]
    values: Tensor
    header: dict[str, Any]
    damaged: Sequence[tuple[str, str]] = field(default=())

    def __post_init__(self) -> None:
        if self.values.dim() != 2 or len(self.names) != len(self.values):
            raise ValueError(f"{len(self.names)} names for features {list(self.values.shape)}")

    def __len__(self) -> int:
        return len(self.names)

    def save(self, path: str | Path) -> Path:
        """Writes names, features and header to a file in one atomic step, and returns its path.

        The suffix chooses the format: `.safetensors` (tensor `features`; names and header as JSON in the metadata),
        `.npz` (arrays `features`, `names`, `header`), or `.parquet` (columns `name`, `feature`; needs pyarrow).

        Raises:
            FedReIDError: for another suffix, or a file that cannot be written.
        """
        path = Path(os.path.expanduser(path))
        writers = {".safetensors": _safetensors, ".npz": _npz, ".parquet": _parquet}
        if path.suffix not in writers:
            raise FedReIDError(f"out={path}: the name must end with {', '.join(SUFFIXES)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FedReIDError(f"out={path}: cannot be written ({error.strerror})") from error
        write_bytes(path, writers[path.suffix](self))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Features:
        """Reads a file that `save` wrote.

        Raises:
            FedReIDError: if the file cannot be read or has other content.
        """
        path = Path(os.path.expanduser(path))
        readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".parquet": _read_parquet}
        if path.suffix not in readers:
            raise FedReIDError(f"{path}: the name of a file of features ends with {', '.join(SUFFIXES)}")
        try:
            names, values, header = readers[path.suffix](path)
            return cls([str(name) for name in names], values.float(), dict(header))
        except OSError as error:
            raise FedReIDError(f"{path}: cannot be read ({error.strerror or error})") from error
        except FedReIDError:
            raise
        except Exception as error:  # the readers raise various exceptions for damaged files
            raise FedReIDError(f"{path}: is not a file of features that fedreid-pl embed wrote") from error


def _header(features: Features) -> dict[str, Any]:
    return {"format": FORMAT, **features.header}


def _safetensors(features: Features) -> bytes:
    from safetensors.torch import save

    metadata = {"names": json.dumps(features.names), "header": json.dumps(_header(features))}
    return save({"features": features.values.contiguous()}, metadata)


def _read_safetensors(path: Path) -> tuple[Sequence[str], Tensor, dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        return json.loads(metadata["names"]), file.get_tensor("features"), json.loads(metadata["header"])


def _npz(features: Features) -> bytes:
    import io

    buffer = io.BytesIO()
    header = np.array(json.dumps(_header(features)))
    np.savez(buffer, features=features.values.numpy(), names=np.array(features.names, dtype=np.str_), header=header)
    return buffer.getvalue()


def _read_npz(path: Path) -> tuple[Sequence[str], Tensor, dict[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        return file["names"].tolist(), torch.from_numpy(file["features"]), json.loads(str(file["header"]))


def _parquet(features: Features) -> bytes:
    arrow, parquet = _pyarrow()
    dim = features.values.shape[1]
    column = arrow.FixedSizeListArray.from_arrays(arrow.array(features.values.numpy().reshape(-1)), dim)
    metadata = {"fedreid_pl": json.dumps(_header(features))}
    table = arrow.table({"name": features.names, "feature": column}).replace_schema_metadata(metadata)
    buffer = arrow.BufferOutputStream()
    parquet.write_table(table, buffer)
    return buffer.getvalue().to_pybytes()


def _read_parquet(path: Path) -> tuple[Sequence[str], Tensor, dict[str, Any]]:
    _, parquet = _pyarrow()
    table = parquet.read_table(path)
    header = json.loads(table.schema.metadata[b"fedreid_pl"])
    names, column = table["name"].to_pylist(), table["feature"].combine_chunks()
    values = np.asarray(column.flatten(), dtype=np.float32).reshape(len(names), -1)
    return names, torch.from_numpy(values.copy()), header


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise FedReIDError("a .parquet file needs pyarrow: pip install 'fedreid-pl[parquet]'") from error
    return pyarrow, pyarrow.parquet
