"""Training augmentation of whole batches, with random choices per image, on the device of the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.functional.batch_part import BatchPart

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
ATTEMPTS = 10
"""Number of rectangles that are drawn for an image; the first one that fits is erased."""


def normalize(images: Tensor) -> Tensor:
    """Returns uint8 images `[B, 3, H, W]` as float32, normalised by ImageNet's mean and deviation."""
    scale = torch.tensor([1 / (255 * std) for std in STD], device=images.device)
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)], device=images.device)
    if images.is_contiguous(memory_format=torch.channels_last):
        # one vector operation per row of pixels, which is faster than operations on three numbers
        width = images.shape[3]
        rows = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32, copy=True)  # [B, H, 3 W]
        torch.addcmul(shift.repeat(width), rows, scale.repeat(width), out=rows)  # in place: allocation would dominate
        return rows.unflatten(2, (width, 3)).permute(0, 3, 1, 2)
    return torch.addcmul(shift.view(1, 3, 1, 1), images.float(), scale.view(1, 3, 1, 1))


def crop_and_flip(
    images: Tensor, pad: int, flip: float, generator: torch.Generator, part: BatchPart | None = None
) -> Tensor:
    """Pads images with black, crops them to the original size at a random position and mirrors them at random.

    This is the augmentation of the paper (pad 10, random crop, horizontal flip). Every image has its own random crop
    and flip.

    Args:
        images: `[B, 3, H, W]` uint8 or float.
        pad: border in pixels.
        flip: probability of mirroring.
        generator: CPU generator of the random numbers, for images on any device.
        part: positions of these images in the whole batch; they get the random numbers that they have in the whole
            batch. `None`: the images are the whole batch.
    """
    batch, own = _whole(images, part)
    top, left = torch.randint(0, 2 * pad + 1, (2, batch), generator=generator)[:, own]
    mirrored = torch.rand(batch, generator=generator)[own] < flip
    crop = _crop_by_copying if images.device.type == "cpu" else _crop_by_index
    return crop(images, pad, top, left, mirrored)


def _crop_by_index(images: Tensor, pad: int, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """Crops the whole batch by one indexing operation, which is fast on a GPU."""
    batch, _, height, width = images.shape
    rows = top[:, None] + torch.arange(height)  # [B, H]
    columns = torch.arange(width).expand(batch, width)
    columns = left[:, None] + torch.where(mirrored[:, None], columns.flip(1), columns)  # [B, W]
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    chosen = padded[
        torch.arange(batch, device=images.device)[:, None, None],
        rows.to(images.device, non_blocking=True)[:, :, None],
        columns.to(images.device, non_blocking=True)[:, None, :],
    ]
    return chosen.permute(0, 3, 1, 2)


def _crop_by_copying(images: Tensor, pad: int, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """Crops image by image by copying contiguous rows of pixels, which is many times faster on a CPU."""
    batch, channels, height, width = images.shape
    source = images.permute(0, 2, 3, 1)
    result = source.new_zeros(batch, height, width, channels)
    shifts = zip((top - pad).tolist(), (left - pad).tolist(), strict=True)
    for image, crop, (down, right), mirror in zip(source, result, shifts, mirrored.tolist(), strict=True):
        above, below = _seen(down, height)
        before, behind = _seen(right, width)
        seen = image[above:below, before:behind]
        if mirror:
            crop[above - down : below - down, width - behind + right : width - before + right] = seen.flip(1)
        else:
            crop[above - down : below - down, before - right : behind - right] = seen
    return result.permute(0, 3, 1, 2)


def _seen(shift: int, size: int) -> tuple[int, int]:
    """Returns the range of a side that is still visible after a shift: first position, and one past the last."""
    first = min(max(shift, 0), size)
    return first, max(first, min(size, size + shift))


def _whole(images: Tensor, part: BatchPart | None) -> tuple[int, slice | list[int]]:
    """Returns the number of images in the whole batch, and the positions of these images in it."""
    return (len(images), slice(None)) if part is None else (part.total, list(part.places))


def color_jitter(images: Tensor, strength: float, generator: torch.Generator, part: BatchPart | None = None) -> Tensor:
    """Changes brightness, contrast and saturation by random factors from `1 - strength` to `1 + strength`.

    Args:
        images: `[B, 3, H, W]` float in 0..255.
        strength: largest relative change; 0 changes nothing.
        generator: CPU generator of the random numbers.
        part: as for `crop_and_flip`.
    """
    batch, own = _whole(images, part)
    factors = 1 + strength * (2 * torch.rand(3, batch, 1, 1, 1, generator=generator)[:, own] - 1)
    brightness, contrast, saturation = factors.to(images.device)
    images = (images * brightness).clamp(0, 255)
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    gray = (images * luma).sum(1, keepdim=True)
    mean = gray.mean(dim=(2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 255)
    gray = (images * luma).sum(1, keepdim=True)
    return (gray + saturation * (images - gray)).clamp(0, 255)


def erase(images: Tensor, probability: float, generator: torch.Generator, part: BatchPart | None = None) -> Tensor:
    """Sets a random rectangle of 2 to 40 % of the area to zero (random erasing, Zhong et al., AAAI 2020).

    The aspect ratio is drawn from 0.3 to 3.3. The images are normalised, so zero is the mean colour. As in
    torchvision's `RandomErasing`, a rectangle that is not smaller than the image is drawn again, at most ten times.

    Args:
        images: `[B, 3, H, W]` float.
        probability: probability of erasing, per image.
        generator: CPU generator of the random numbers.
        part: as for `crop_and_flip`.
    """
    height, width = images.shape[2:]
    batch, own = _whole(images, part)
    hit = torch.rand(batch, generator=generator)[own] < probability
    area = height * width * (0.02 + 0.38 * torch.rand(ATTEMPTS, batch, generator=generator)[:, own])
    low, high = torch.log(torch.tensor([0.3, 3.3]))
    ratio = torch.exp(low + (high - low) * torch.rand(ATTEMPTS, batch, generator=generator)[:, own])
    tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (tall < height) & (wide < width)
    hit &= fits.any(0)
    first = fits.int().argmax(0, keepdim=True)
    tall, wide = tall.gather(0, first)[0], wide.gather(0, first)[0]
    top = (torch.rand(batch, generator=generator)[own] * (height - tall + 1)).floor()
    left = (torch.rand(batch, generator=generator)[own] * (width - wide + 1)).floor()
    rows, columns = torch.arange(height), torch.arange(width)
    inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])  # [B, H]
    inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])  # [B, W]
    erased = hit[:, None, None] & inside_rows[:, :, None] & inside_columns[:, None, :]
    return images.clone().masked_fill_(erased[:, None].to(images.device), 0.0)  # clone keeps the memory order


class TrainAugmentation:
    """The training augmentation of a turn: uint8 `[B, 3, H, W]` -> normalised float32, random for every image.

    Args:
        pad, flip, erasing, jitter: as in the `data` section of the configuration.
        seed: seed of the turn; two objects with the same seed draw the same random numbers.
    """

    def __init__(self, pad: int, flip: float, erasing: float, jitter: float, seed: int) -> None:
        self.pad, self.flip, self.erasing, self.jitter = pad, flip, erasing, jitter
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor, part: BatchPart | None = None) -> Tensor:
        """Returns augmented images; with a `part`, they get the random numbers that they have in the whole batch."""
        images = crop_and_flip(images, self.pad, self.flip, self.generator, part)
        if self.jitter:
            images = color_jitter(images.float(), self.jitter, self.generator, part)
        images = normalize(images)
        return erase(images, self.erasing, self.generator, part) if self.erasing else images
