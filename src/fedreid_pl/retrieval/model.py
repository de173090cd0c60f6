"""A trained model that maps images to features."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fedreid_pl.data.augmentation import MEAN, STD, normalize
from fedreid_pl.data.decoding import UnreadableImage, decode
from fedreid_pl.errors import FedReIDError, counted
from fedreid_pl.models.embedder import Embedder
from fedreid_pl.retrieval.features import Features
from fedreid_pl.retrieval.pictures import Pictures, are_paths, as_arrays, paths_of, read_ahead

Progress = Callable[[int, int], object]
"""Function of the number of finished images and the number of all images."""


@dataclass(frozen=True)
class ModelCard:
    """Origin and input of a model.

    Args:
        experiment, data, seed, round: values of the run that trained the model.
        synthetic: whether all training and test images of the run were drawn by this program.
        backbone: name of the network.
        client: the client whose model this is, `None` for the global model.
        sha256: hash of the weights.
        height, width: size in pixels to which pictures are resized.
        dim: number of values of a feature.
    """

    experiment: str
    data: str
    synthetic: bool
    backbone: str
    seed: int
    round: int
    client: str | None
    sha256: str
    height: int
    width: int
    dim: int

    def header(self, flip: bool) -> dict[str, Any]:
        """Returns model and preprocessing as plain values, for files with features."""
        model = {name: value for name, value in asdict(self).items() if name not in ("height", "width", "dim")}
        return {"model": model, "preprocessing": self.preprocessing(), "flip": flip, "dim": self.dim}

    def preprocessing(self) -> dict[str, Any]:
        """Returns the preprocessing of images as plain values."""
        return {
            "height": self.height,
            "width": self.width,
            "channels": "RGB",
            "resize": "bicubic, without padding",
            "scale": 255,
            "mean": list(MEAN),
            "std": list(STD),
        }


class ReIDModel:
    """A trained backbone that computes features in the same way as the tests of the run.

    Args:
        backbone: maps normalised images `[B, 3, H, W]` to features `[B, D]`.
        card: origin and input of the backbone.
        device: device of the backbone.
        threshold: cosine similarity above which two images count as the same person, calibrated on validation persons;
            `None`: not calibrated.
        calibrated_on: number of persons in the largest gallery of the calibration. In a larger gallery, more absent
            persons are reported as found.
    """

    def __init__(
        self,
        backbone: nn.Module,
        card: ModelCard,
        device: str | torch.device = "cpu",
        threshold: float | None = None,
        calibrated_on: int | None = None,
    ) -> None:
        self.backbone, self.card = backbone, card
        self.threshold, self.calibrated_on = threshold, calibrated_on
        self.to(device)

    def __repr__(self) -> str:
        card = self.card
        return (
            f"ReIDModel({card.experiment}, {card.backbone}, round {card.round}, client {card.client}, "
            f"{card.height}x{card.width} -> {card.dim})"
        )

    def to(self, device: str | torch.device) -> ReIDModel:
        """Moves the model to a device and returns it.

        Raises:
            FedReIDError: if this machine has no such device.
        """
        try:
            self.device = torch.device(device)
            if self.device.type == "meta":
                raise NotImplementedError("a model on this device computes nothing")
            self.backbone = self.backbone.to(self.device).eval()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise FedReIDError(f"device={device}: cannot be used ({reason}); give device=cpu") from error
        return self

    def preprocess(self, pictures: Sequence[np.ndarray] | np.ndarray | Tensor) -> Tensor:
        """Returns the network input of images: `[N, 3, height, width]` float32, resized and normalised.

        Args:
            pictures: arrays `[H, W, 3]` uint8 RGB of any sizes, an array `[N, H, W, 3]`, or a tensor `[N, 3, H, W]`,
                all uint8.

        Raises:
            FedReIDError: for another shape or type.
        """
        pixels = [self._resized(picture) for picture in as_arrays(pictures)]
        if not pixels:
            return torch.empty(0, 3, self.card.height, self.card.width)
        return normalize(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))

    def read(self, files: Sequence[str | Path]) -> Tensor:
        """Returns the network input of image files, see `preprocess`.

        Raises:
            FedReIDError: if a file cannot be read.
        """
        try:
            pixels = [decode(str(file), self.card.height, self.card.width) for file in files]
        except UnreadableImage as error:
            raise FedReIDError(f"{error.path}: {error.reason}; replace or remove the file") from error
        return self.preprocess(np.stack(pixels)) if pixels else self.preprocess([])

    def embed(
        self, pictures: Pictures, flip: bool = True, batch_size: int = 64, progress: Progress | None = None
    ) -> Tensor:
        """Returns the features of pictures, `[N, D]` float32 on the CPU, of length 1.

        The similarity of two pictures is the dot product of their features.

        Args:
            pictures: a path, a folder (every image below it, in the order of `embed_files`) or a list of paths; uint8
                images for `preprocess`; or a float tensor from `preprocess`.
            flip: average the features of an image and of its mirror image, as the tests of the run do. `False` needs
                half the time and gives other features; do not mix the two.
            batch_size: pictures per pass through the network.
            progress: called after every batch.

        A file that cannot be read gets a row of NaN, and one warning names all such files.

        Raises:
            FedReIDError: if there is no such file or folder, or pictures have another shape or type.
        """
        embedder = Embedder(self.backbone, flip)
        _check_batch_size(batch_size)
        if isinstance(pictures, (str, Path)) or are_paths(pictures):
            found, damaged = self._embed_paths(paths_of(pictures), embedder, batch_size, progress)
            if damaged:
                named = "; ".join(f"{path}: {reason}" for path, reason in damaged.values())
                warnings.warn(f"{counted(len(damaged), 'unreadable picture')} with rows of NaN: {named}", stacklevel=2)
            return found
        if isinstance(pictures, Tensor) and pictures.is_floating_point():
            inputs = self._checked(pictures)
        else:
            inputs = self.preprocess(pictures)  # type: ignore[arg-type]
        done = self._passes(embedder, iter(torch.split(inputs, batch_size)), len(inputs), progress)
        return torch.cat([torch.empty(0, self.card.dim), *done])

    def embed_files(
        self,
        pictures: str | Path | Sequence[str | Path],
        flip: bool = True,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> Features:
        """Returns names and features of picture files, and the files that cannot be read with the reason.

        Args:
            pictures: a file, a folder, or a list of files. Names in a folder are relative to it, others are file names.
            flip, batch_size, progress: see `embed`.

        Raises:
            FedReIDError: if there is no such file or folder, or no picture.
        """
        _check_batch_size(batch_size)
        paths = paths_of(pictures)
        root = Path(os.path.expanduser(pictures)) if isinstance(pictures, (str, Path)) else None
        inside = root is not None and root.is_dir()
        names = [path.relative_to(root).as_posix() if inside else path.name for path in paths]  # type: ignore[arg-type]
        embedder = Embedder(self.backbone, flip)
        values, damaged = self._embed_paths(paths, embedder, batch_size, progress)
        rows = [row for row in range(len(paths)) if row not in damaged]
        return Features(
            [names[row] for row in rows],
            values[rows],
            self.card.header(flip),
            [(names[row], reason) for row, (_, reason) in damaged.items()],
        )

    def _embed_paths(
        self, paths: Sequence[Path], embedder: Embedder, batch_size: int, progress: Progress | None
    ) -> tuple[Tensor, dict[int, tuple[Path, str]]]:
        """Returns features `[N, D]` (NaN for unreadable files), and path and reason of unreadable files by row."""
        damaged: dict[int, tuple[Path, str]] = {}

        def read(rows: range) -> Tensor:
            pixels = np.zeros((len(rows), self.card.height, self.card.width, 3), dtype=np.uint8)
            for place, row in enumerate(rows):
                try:
                    pixels[place] = decode(str(paths[row]), self.card.height, self.card.width)
                except UnreadableImage as error:
                    damaged[row] = (paths[row], error.reason)
            return normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))

        ranges = [range(start, min(start + batch_size, len(paths))) for start in range(0, len(paths), batch_size)]
        done = self._passes(embedder, read_ahead(read, ranges), len(paths), progress)
        values = torch.cat([torch.empty(0, self.card.dim), *done])
        values[list(damaged)] = torch.nan
        return values, dict(sorted(damaged.items()))

    @torch.inference_mode()
    def _passes(
        self, embedder: Embedder, batches: Iterator[Tensor], total: int, progress: Progress | None
    ) -> list[Tensor]:
        done, found = 0, []
        for batch in batches:
            found.append(embedder(batch.to(self.device, non_blocking=True)).float().cpu().clone())
            done += len(batch)
            if progress is not None:
                progress(done, total)
        return found

    def _resized(self, picture: np.ndarray) -> np.ndarray:
        size = (self.card.width, self.card.height)
        image = Image.fromarray(picture)
        return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BICUBIC))

    def _checked(self, inputs: Tensor) -> Tensor:
        wanted = (3, self.card.height, self.card.width)
        if inputs.dim() != 4 or tuple(inputs.shape[1:]) != wanted:
            raise FedReIDError(
                f"a float tensor must be normalised pictures [N, {', '.join(map(str, wanted))}], got "
                f"{list(inputs.shape)}; give uint8 pictures, or what model.preprocess returns"
            )
        if not bool(inputs.isfinite().all()):
            raise FedReIDError("a float tensor must be normalised pictures, got NaN or infinite values")
        if len(inputs) and bool(inputs.min() >= 0):
            raise FedReIDError(
                "a float tensor must be normalised pictures, got values without a negative one; give uint8 pictures, "
                "or what model.preprocess returns"
            )
        return inputs.float()


def _check_batch_size(size: int) -> None:
    if type(size) is not int or size < 1:
        raise FedReIDError(f"batch_size={size}: must be a whole number of at least 1")
