"""Export of a trained model to files for other programs: ONNX, TorchScript, torch.export, safetensors."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import check_output, write_bytes, write_text
from fedreid_pl.functional.randomness import generator
from fedreid_pl.models.embedder import Embedder
from fedreid_pl.retrieval.model import ReIDModel

INPUT, OUTPUT, BATCH = "images", "output0", "batch"
"""Names of input, output and batch dimension in an ONNX file; trackers expect these names."""

AGREEMENT = 0.9999
"""Smallest accepted cosine similarity between features of the file and of the model."""

Run = Callable[[Tensor], Tensor]


class Exported(NamedTuple):
    """The exported files, and their agreement with the model.

    Args:
        files: the file and its side-cars.
        agreement: lowest cosine similarity between features of the file and of the model; `None` for a file with
            weights only.
    """

    files: tuple[Path, ...]
    agreement: float | None


def export(model: ReIDModel, out: str | Path, flip: bool = False, pictures: Tensor | None = None) -> Exported:
    """Writes a model to a file, reads the file back and compares its features with the model's.

    `.safetensors` contains only the weights, which `model.weights=FILE` loads. All other formats map normalised images
    `[N, 3, height, width]` float32 to features `[N, D]` float32 of length 1, for any N.

    Args:
        model: see `fedreid_pl.load`.
        out: the file; its suffix chooses `.onnx` (needs onnx, onnxscript and onnxruntime), `.torchscript`, `.pt2`
            (torch.export) or `.safetensors`.
        flip: the file averages the features of an image and its mirror image, as tests do; this doubles the time.
        pictures: normalised images `[N, 3, height, width]` for the comparison; `None` uses 32 random images.

    Raises:
        FedReIDError: if the suffix is unknown, a library is missing, the file cannot be written, or features differ.
    """
    path = Path(os.path.expanduser(out))
    if path.suffix not in FORMATS:
        raise FedReIDError(f"out={path}: the name must end with {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise FedReIDError(f"out={path}: there is no folder {path.parent}")
    check_output(path, "out")
    with on_cpu(model):
        embedder = Embedder(model.backbone, flip).eval()
        inputs = random_pictures(model) if pictures is None else pictures
        data, sidecars = FORMATS[path.suffix](model, embedder, inputs[:2])
        if path.suffix == ".safetensors":
            write_bytes(path, data)
            return Exported((path,), None)
        agreement = agreement_of(reader(path.suffix, data), embedder, inputs)
    if not agreement > AGREEMENT:
        raise FedReIDError(f"out={path}: features differ from the model's (cosine {agreement:.6f}); nothing is written")
    write_bytes(path, data)
    files = [path]
    for suffix, content in sidecars.items():
        files.append(path.with_name(path.name + suffix))
        write_text(files[-1], content)
    return Exported(tuple(files), agreement)


def random_pictures(model: ReIDModel, count: int = 32) -> Tensor:
    """Returns normalised images of random colours `[count, 3, height, width]`, the same at every call."""
    draws = generator(0, "export")
    coarse = torch.rand(count, 3, 8, 4, generator=draws)
    size = (model.card.height, model.card.width)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear").mul(255).to(torch.uint8)
    return model.preprocess(smooth)


@torch.inference_mode()
def agreement_of(run: Run, embedder: Embedder, inputs: Tensor) -> float:
    """Returns the lowest cosine similarity between the features of `inputs` by a file and by the model."""
    lowest = 1.0
    for part in inputs.split(32):
        same = cosine_similarity(run(part), embedder(part), dim=1)
        lowest = min(lowest, float(same.nan_to_num(-1.0).min()))
    return lowest


def reader(suffix: str, data: bytes) -> Run:
    """Returns a function that maps normalised images to features by the model in the bytes of a file."""
    if suffix == ".onnx":
        return onnx_session(data)
    if suffix == ".torchscript":
        with quietly():
            return torch.jit.load(io.BytesIO(data))
    return torch.export.load(io.BytesIO(data)).module()


def onnx_session(data: bytes) -> Run:
    """Returns a function that maps normalised images to features by onnxruntime."""
    runtime = _library("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def description(model: ReIDModel, flip: bool) -> dict[str, Any]:
    """Returns the content of the side-car of an ONNX file.

    Besides the header of this project it has the keys that trackers read: the network's name, the image size (under two
    names) and the resize method. If the file uses the mirror image, the content also has the model's threshold, because
    the threshold was calibrated with the mirror image.
    """
    card = model.card
    return {
        "model_name": card.backbone,
        "img_size": [card.height, card.width],
        "model_kwargs_schema_version": 1,
        "model_kwargs": {"img_size": [card.height, card.width]},
        "preprocess": "resize",
        "input": {"name": INPUT, "shape": [BATCH, 3, card.height, card.width], "dtype": "float32"},
        "output": {"name": OUTPUT, "shape": [BATCH, card.dim], "dtype": "float32", "normalized": True},
        "fedreid_pl": card.header(flip),
        **({"threshold": model.threshold} if flip and model.threshold is not None else {}),
    }


def _onnx(model: ReIDModel, embedder: Embedder, example: Tensor) -> tuple[bytes, dict[str, str]]:
    onnx = _library("onnx")
    _library("onnxscript")
    with quietly():
        program = torch.onnx.export(
            embedder,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"images": {0: torch.export.Dim(BATCH)}},
            dynamo=True,
            external_data=False,
        )
    proto = program.model_proto  # type: ignore[union-attr]
    about = description(model, embedder.flip)
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in about.items()})
    return proto.SerializeToString(), {".metadata.json": json.dumps(about, indent=2) + "\n"}


def _torchscript(model: ReIDModel, embedder: Embedder, example: Tensor) -> tuple[bytes, dict[str, str]]:
    buffer = io.BytesIO()
    with quietly():
        traced = torch.jit.trace(embedder, example, check_trace=False)
        torch.jit.save(traced, buffer, {"fedreid_pl.json": json.dumps(description(model, embedder.flip))})
    return buffer.getvalue(), {}


def _exported(model: ReIDModel, embedder: Embedder, example: Tensor) -> tuple[bytes, dict[str, str]]:
    buffer = io.BytesIO()
    with quietly():
        program = torch.export.export(embedder, (example,), dynamic_shapes=({0: torch.export.Dim(BATCH)},))
        extra = {"fedreid_pl.json": json.dumps(description(model, embedder.flip))}
        torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue(), {}


def _weights(model: ReIDModel, embedder: Embedder, example: Tensor) -> tuple[bytes, dict[str, str]]:
    from safetensors.torch import save

    state = {name: value.contiguous() for name, value in model.backbone.state_dict().items()}
    return save(state, {"format": "pt", "fedreid_pl": json.dumps(model.card.header(embedder.flip))}), {}


FORMATS = {".onnx": _onnx, ".torchscript": _torchscript, ".pt2": _exported, ".safetensors": _weights}


@contextmanager
def on_cpu(model: ReIDModel):  # type: ignore[no-untyped-def]
    """Returns a context in which a model is on the CPU; at the end the model returns to its device."""
    before = model.device
    model.to("cpu")
    try:
        with torch.no_grad():
            yield
    finally:
        model.to(before)


@contextmanager
def quietly():  # type: ignore[no-untyped-def]
    """Returns a context that suppresses the progress output and deprecation warnings of exporters."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FedReIDError(f"an .onnx file needs {name}: pip install 'fedreid-pl[export]'") from error
