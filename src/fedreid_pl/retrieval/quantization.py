"""Export of an ONNX file with 8-bit numbers, with a measurement of the loss of accuracy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError, counted
from fedreid_pl.federation.storage import write_bytes, write_text
from fedreid_pl.models.embedder import Embedder
from fedreid_pl.retrieval.export import INPUT, Exported, Run, agreement_of, export, on_cpu, onnx_session, quietly
from fedreid_pl.retrieval.model import ReIDModel
from fedreid_pl.retrieval.pictures import paths_of, persons_of

FEWEST = 32  # smallest number of images for the estimation of 8-bit ranges
MOST = 512  # largest number of images for the estimation, and for the measurement


def quantize(model: ReIDModel, out: str | Path, flip: bool, folder: str | Path) -> tuple[Exported, str]:
    """Writes an ONNX file with 8-bit weights and activations, by onnxruntime's static quantisation.

    The ranges of activations are estimated from the images of every second person. The loss of accuracy is measured on
    the other images.

    Args:
        model, out, flip: as for `export`.
        folder: images of persons similar to those of the application, `PERSON/*.jpg`.

    Returns:
        The exported files, and one line about the loss of accuracy: the mean cosine similarity with the features of the
        model, and (if persons have several images) Rank-1 among the other images by the model and by the file.

    Raises:
        FedReIDError: if there are fewer than 32 images, and under the conditions of `export`.
    """
    path, root = Path(os.path.expanduser(out)), Path(os.path.expanduser(folder))
    files = paths_of(root)[: 2 * MOST]
    if len(files) < FEWEST:
        raise FedReIDError(f"pictures={folder}: {counted(len(files), 'picture')}; give at least {FEWEST}")
    inputs = model.read(files)
    persons, _ = persons_of([file.relative_to(root).as_posix() for file in files])
    with tempfile.TemporaryDirectory() as place, on_cpu(model):
        plain, small = Path(place) / "plain.onnx", Path(place) / "int8.onnx"
        export(model, plain, flip, inputs[:2])
        chosen = calibration_rows(persons)
        _quantize(plain, small, inputs[chosen])
        data, sidecar = small.read_bytes(), (plain.with_name("plain.onnx.metadata.json")).read_text(encoding="utf-8")
        embedder = Embedder(model.backbone, flip).eval()
        run, rest = onnx_session(data), inputs[~chosen]
        line = cost_of(
            run, embedder, rest, [person for person, used in zip(persons, chosen.tolist(), strict=True) if not used]
        )
        lowest = agreement_of(run, embedder, rest)
    write_bytes(path, data)
    described = path.with_name(path.name + ".metadata.json")
    write_text(described, sidecar)
    return Exported((path, described), lowest), line


def calibration_rows(persons: Sequence[str]) -> Tensor:
    """Returns which images are used for the estimation of ranges, `[N]` bool: about half of all images.

    These are the images of every second person, or every second image if persons are too few or too unequal.

    >>> calibration_rows(["ann", "ann", "bob", "bob"]).tolist()
    [True, True, False, False]
    """
    names = sorted(set(persons))
    chosen = torch.tensor([names.index(person) % 2 == 0 for person in persons])
    if not 1 / 4 <= float(chosen.float().mean()) <= 3 / 4:
        chosen = torch.arange(len(persons)) % 2 == 0
    return chosen


def _quantize(plain: Path, small: Path, inputs: Tensor) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        """Returns batches of eight images to onnxruntime."""

        def __init__(self) -> None:
            self.batches = iter(inputs.split(8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    prepared = plain.with_name("prepared.onnx")
    with quietly():
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            small,
            Pictures(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


@torch.inference_mode()
def cost_of(run: Run, embedder: Embedder, inputs: Tensor, persons: list[str]) -> str:
    """Returns one line with the similarity of the features of a file and of the model, and Rank-1 of both."""
    theirs, ours = (torch.cat([way(part) for part in inputs.split(32)]) for way in (run, embedder))
    cosine = float((theirs * ours).sum(1).mean())
    before, after = rank1(ours, persons), rank1(theirs, persons)
    if before is None or after is None:
        return (
            f"int8: mean cosine similarity with the model {cosine:.4f}; no person has two pictures, Rank-1 is unknown"
        )
    return (
        f"int8: mean cosine similarity with the model {cosine:.4f}; Rank-1 among {len(persons)} pictures "
        f"{100 * before:.1f} with the model, {100 * after:.1f} with 8 bits"
    )


def rank1(features: Tensor, persons: list[str]) -> float | None:
    """Returns the share of images whose most similar other image shows the same person.

    Only images of persons with at least two images count; `None` if there are none.
    """
    codes = torch.tensor([sorted(set(persons)).index(person) for person in persons])
    scores = (features @ features.T).fill_diagonal_(-torch.inf)
    asked = torch.bincount(codes)[codes] > 1
    if not bool(asked.any()):
        return None
    return float((codes[scores.argmax(1)] == codes)[asked].float().mean())
