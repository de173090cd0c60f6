"""Augmentation compared with torchvision's functions and with an enumeration of all outcomes."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms import functional as TF

from fedreid_pl.data import augmentation
from fedreid_pl.data.augmentation import TrainAugmentation, color_jitter, crop_and_flip, erase, normalize
from fedreid_pl.functional.batch_part import BatchPart

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def channels_last(images):
    return images.contiguous(memory_format=torch.channels_last)


def all_crops(image, pad):
    """Returns all possible augmented images, mirrored ones last: `[2 * (2 * pad + 1) ** 2, 3, H, W]`."""
    height, width = image.shape[1:]
    padded = TF.pad(image, [pad])
    places = [(top, left) for top in range(2 * pad + 1) for left in range(2 * pad + 1)]
    crops = [TF.crop(padded, top, left, height, width) for top, left in places]
    return torch.stack(crops + [TF.hflip(crop) for crop in crops])


def choices(image, pad, flip, draws, seed=0):
    """Returns the index in `all_crops` of each of many draws."""
    bank = all_crops(image, pad)
    out = crop_and_flip(image.expand(draws, -1, -1, -1), pad, flip, seeded(seed))
    same = (out[:, None] == bank).flatten(2).all(2)  # [draws, crops]
    assert same.sum(1).tolist() == [1] * draws
    return same.int().argmax(1), len(bank)


def chi_square(counts, expected) -> float:
    """Returns the deviation of the chi-square statistic from its mean, in standard deviations."""
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    degrees = len(counts) - 1
    return (statistic - degrees) / math.sqrt(2 * degrees)


# normalisation


def test_normalize_is_torchvision_s():
    images = noise(4, 3, 9, 5)
    expected = TF.normalize(images.float() / 255, MEAN, STD)
    actual = normalize(images)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(normalize(images.float()), expected, rtol=0, atol=2e-6)


# crop and flip


@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_image_is_one_of_the_possible_crops(pad, dtype):
    images = noise(24, 3, 6, 5).to(dtype)
    out = crop_and_flip(images, pad, 0.5, seeded())
    assert (out.shape, out.dtype) == (images.shape, dtype)
    for image, result in zip(images, out, strict=True):
        same = (all_crops(image, pad) == result).flatten(1).all(1)
        assert same.sum() == 1


def test_positions_and_mirrors_are_uniform():
    chosen, kinds = choices(noise(3, 4, 5), pad=2, flip=0.5, draws=20_000)
    assert kinds == 50
    assert abs(chi_square(chosen.bincount(minlength=kinds).float(), 20_000 / kinds)) < 5


def test_mirrors_come_with_their_probability():
    chosen, kinds = choices(noise(3, 4, 5), pad=1, flip=0.2, draws=10_000)
    counts = chosen.bincount(minlength=kinds).float()
    expected = torch.tensor([0.8] * 9 + [0.2] * 9) * 10_000 / 9
    assert abs(chi_square(counts, expected)) < 5


@pytest.mark.parametrize(("flip", "mirrored"), [(0.0, False), (1.0, True)])
def test_flip_never_and_always(flip, mirrored):
    images = noise(200, 3, 4, 5)
    expected = images.flip(3) if mirrored else images
    assert torch.equal(crop_and_flip(images, 0, flip, seeded()), expected)
    chosen, kinds = choices(images[0], pad=1, flip=flip, draws=500)
    assert set((chosen // (kinds // 2)).tolist()) == {int(mirrored)}


def test_same_seed_same_crops():
    images = noise(30, 3, 8, 6)
    first, second = (crop_and_flip(images, 2, 0.5, seeded(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, crop_and_flip(images, 2, 0.5, seeded(6)))


# colour


def with_factors(monkeypatch, strength, *factors):
    """Makes the next draw return these factors of brightness, contrast and saturation, one per image each."""
    uniform = (torch.tensor(factors) - 1 + strength) / (2 * strength)
    monkeypatch.setattr(augmentation.torch, "rand", lambda *shape, generator: uniform.view(shape))


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_one_factor_at_a_time_is_torchvision_s(monkeypatch, kind):
    images = noise(6, 3, 9, 5).float()
    factors = [0.2, 0.6, 0.99, 1.0, 1.4, 1.8]
    drawn = [factors if kind == name else [1.0] * 6 for name in ("brightness", "contrast", "saturation")]
    with_factors(monkeypatch, 0.8, *drawn)
    actual = color_jitter(images, 0.8, seeded())
    adjust = getattr(TF, f"adjust_{kind}")
    expected = torch.stack([adjust(image / 255, factor) for image, factor in zip(images, factors, strict=True)]) * 255
    # torchvision weighs red with 0.2989, ITU-R BT.601 with 0.299: at most 0.8 * 0.0001 * 255
    torch.testing.assert_close(actual, expected, rtol=0, atol=0.03)


def test_all_factors_are_torchvision_s_in_sequence(monkeypatch):
    images = noise(3, 3, 9, 5).float()
    brightness, contrast, saturation = [0.7, 1.5, 1.2], [1.4, 0.5, 0.9], [0.3, 1.7, 1.1]
    with_factors(monkeypatch, 0.8, brightness, contrast, saturation)
    actual = color_jitter(images, 0.8, seeded())
    for image, result, b, c, s in zip(images / 255, actual, brightness, contrast, saturation, strict=True):
        expected = TF.adjust_saturation(TF.adjust_contrast(TF.adjust_brightness(image, b), c), s)
        torch.testing.assert_close(result, expected * 255, rtol=0, atol=0.06)


def test_strength_zero_changes_no_image():
    images = noise(8, 3, 9, 5).float()
    torch.testing.assert_close(color_jitter(images, 0.0, seeded()), images, rtol=0, atol=1e-3)


def test_factors_cover_their_range():
    """The factors are computed from two grays and a colour under the same draws, without clipping."""
    strength, draws = 0.3, 4000
    grays = torch.tensor([80.0, 120.0]).view(1, 1, 1, 2).expand(draws, 3, 4, 2)
    low, high = color_jitter(grays, strength, seeded(1))[:, 0, 0].unbind(1)
    brightness = (low + high) / 200
    contrast = (high - low) / 40 / brightness
    colour = torch.tensor([120.0, 100.0, 80.0]).view(1, 3, 1, 1).expand(draws, 3, 2, 2)
    out = color_jitter(colour, strength, seeded(1))[:, :, 0, 0]
    saturation = (out[:, 0] - out[:, 2]) / 40 / brightness / contrast
    for factors in (brightness, contrast, saturation):
        assert factors.min() > 1 - strength - 1e-4
        assert factors.max() < 1 + strength + 1e-4
        counts = torch.histc(factors, 10, 1 - strength, 1 + strength)
        assert abs(chi_square(counts, draws / 10)) < 5
    assert (torch.corrcoef(torch.stack([brightness, contrast, saturation])) - torch.eye(3)).abs().max() < 0.06


def test_jitter_stays_between_black_and_white():
    out = color_jitter(noise(50, 3, 6, 4).float(), 1.0, seeded())
    assert out.min() == 0
    assert out.max() == 255


# erasing


def rectangles(height, width, draws, seed=0):
    """Returns `(top, left, height, width)` of the erased part of each image; asserts that the rest is unchanged."""
    images = 1 + torch.rand(draws, 3, height, width, generator=seeded(seed))
    out = erase(images, 1.0, seeded(seed + 1))
    boxes = []
    for before, after in zip(images, out, strict=True):
        gone = after == 0
        assert torch.equal(gone[0], gone[1])
        assert torch.equal(gone[0], gone[2])
        rows, columns = gone[0].any(1).nonzero().flatten(), gone[0].any(0).nonzero().flatten()
        top, left, tall, wide = int(rows[0]), int(columns[0]), len(rows), len(columns)
        assert gone[0, top : top + tall, left : left + wide].all()
        assert gone[0].sum() == tall * wide
        assert torch.equal(after[~gone], before[~gone])
        boxes.append((top, left, tall, wide))
    return boxes


@pytest.mark.parametrize(("height", "width"), [(60, 60), (64, 32), (256, 128)])
def test_erased_rectangles_have_allowed_area_and_aspect(height, width):
    """The bounds are those of Zhong et al., up to rounding of each side; each side is shorter than the image's."""
    areas = []
    for _, _, tall, wide in rectangles(height, width, 200):
        assert (tall + 0.5) * (wide + 0.5) >= 0.02 * height * width
        assert (tall - 0.5) * (wide - 0.5) <= 0.4 * height * width
        assert tall < height and wide < width
        assert (tall - 0.5) / (wide + 0.5) <= 3.3
        assert (tall + 0.5) / (wide - 0.5) >= 0.3
        areas.append(tall * wide / (height * width))
    assert min(areas) < 0.04
    assert max(areas) > 0.35


def test_erased_rectangles_can_be_anywhere():
    height, width = 40, 30
    boxes = rectangles(height, width, 1500)
    assert min(top for top, *_ in boxes) == min(left for _, left, *_ in boxes) == 0
    assert max(top + tall for top, _, tall, _ in boxes) == height
    assert max(left + wide for _, left, _, wide in boxes) == width
    spare = [(top / (height - tall), left / (width - wide)) for top, left, tall, wide in boxes]
    mean = torch.tensor(spare).mean(0)
    assert ((mean - 0.5).abs() < 0.04).all()


def test_erasing_never_always_and_sometimes():
    images = 1 + torch.rand(3000, 3, 8, 8, generator=seeded())
    assert torch.equal(erase(images, 0.0, seeded()), images)
    for probability in (0.25, 1.0):
        share = (erase(images, probability, seeded()) == 0).flatten(1).any(1).float().mean().item()
        assert share == pytest.approx(probability, abs=0.03 * (probability < 1))


def test_erasing_does_not_change_its_input():
    images = torch.ones(4, 3, 8, 8)
    erase(images, 1.0, seeded())
    assert torch.equal(images, torch.ones(4, 3, 8, 8))


# all augmentations


def test_without_any_augmentation_images_are_only_normalised():
    images = noise(5, 3, 9, 5)
    expected = TF.normalize(images.float() / 255, MEAN, STD)
    torch.testing.assert_close(TrainAugmentation(0, 0.0, 0.0, 0.0, seed=3)(images), expected, rtol=0, atol=2e-6)


def test_the_border_is_black():
    out = TrainAugmentation(4, 0.0, 0.0, 0.0, seed=0)(torch.full((60, 3, 9, 5), 255, dtype=torch.uint8))
    white, black = (torch.tensor([(level - m) / s for m, s in zip(MEAN, STD, strict=True)]) for level in (1, 0))
    for channel in range(3):
        values = out[:, channel].unique()
        torch.testing.assert_close(values, torch.stack([black[channel], white[channel]]), rtol=0, atol=2e-6)


def test_erased_parts_are_the_mean_colour():
    out = TrainAugmentation(0, 0.0, 1.0, 0.0, seed=0)(torch.full((20, 3, 9, 5), 255, dtype=torch.uint8))
    assert (out == 0).flatten(1).any(1).all()


def test_equal_seeds_give_equal_turns_and_batches_differ():
    images = noise(16, 3, 16, 8)
    turns = []
    for seed in (7, 7, 8):
        augment = TrainAugmentation(3, 0.5, 0.5, 0.2, seed)
        turns.append([augment(images), augment(images)])
    assert all(torch.equal(a, b) for a, b in zip(turns[0], turns[1], strict=True))
    assert not torch.equal(turns[0][0], turns[2][0])
    assert not torch.equal(turns[0][0], turns[0][1])


@pytest.mark.parametrize("places", [(0, 3, 6), (1, 2, 4, 5), (6,)])
def test_a_part_of_a_batch_gets_the_draws_of_its_images(places):
    images = noise(7, 3, 16, 8)
    whole, own = (TrainAugmentation(3, 0.5, 0.5, 0.2, seed=5) for _ in range(2))
    for _ in range(2):
        assert torch.equal(own(images[list(places)], BatchPart(places, 7)), whole(images)[list(places)])


def test_the_global_generator_is_neither_read_nor_changed():
    images = noise(16, 3, 16, 8)
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(TrainAugmentation(3, 0.5, 0.5, 0.2, seed=4)(images))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "transform",
    [
        normalize,
        lambda images: crop_and_flip(images, 2, 0.5, seeded()),
        lambda images: crop_and_flip(images, 0, 0.5, seeded()),
        lambda images: color_jitter(images.float(), 0.3, seeded()),
        lambda images: erase(images.float(), 1.0, seeded()),
        TrainAugmentation(2, 0.5, 0.5, 0.2, seed=0),
    ],
    ids=["normalize", "crop", "flip", "jitter", "erase", "all"],
)
def test_channels_last_is_kept(transform):
    out = transform(channels_last(noise(4, 3, 8, 6)))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()


def test_values_do_not_depend_on_the_memory_order():
    images = noise(12, 3, 8, 6)
    first, second = (TrainAugmentation(2, 0.5, 0.5, 0.2, seed=0)(batch) for batch in (images, channels_last(images)))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("height", "width", "pad"), [(9, 6, 2), (6, 9, 0), (4, 3, 7), (5, 5, 5)])
def test_both_implementations_of_cropping_are_equal(dtype, height, width, pad):
    """Compares the CPU's row-by-row crops with the GPU's index, also if a crop may lie fully in the border."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, height, width), generator=draws).to(dtype)
    top, left = torch.randint(0, 2 * pad + 1, (2, 64), generator=draws)
    mirrored = torch.rand(64, generator=draws) < 0.5
    for memory in (torch.contiguous_format, torch.channels_last):
        given = images.contiguous(memory_format=memory)
        copied = augmentation._crop_by_copying(given, pad, top, left, mirrored)
        assert torch.equal(copied, augmentation._crop_by_index(given, pad, top, left, mirrored))
        assert copied.is_contiguous(memory_format=torch.channels_last) and copied.dtype == dtype
