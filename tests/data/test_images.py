"""Decoding compared with the written pixels, and the image sources compared with each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedreid_pl.data import decoding, images
from fedreid_pl.data.images import ImagePool, ImageSource, decode
from fedreid_pl.data.samples import TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

HEIGHT, WIDTH = 12, 6


def noise(seed=0, height=HEIGHT, width=WIDTH, channels=3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> str:
    Image.fromarray(pixels.squeeze()).save(path, **options)
    return str(path)


def table(root: Path, count=5, **size) -> SampleTable:
    paths = tuple(f"{number}.png" for number in range(count))
    for number, path in enumerate(paths):
        save(root / path, noise(number, **size))
    zeros = np.zeros(count, np.int64)
    return SampleTable("set", root, paths, zeros, zeros, np.full(count, TRAIN, np.uint8))


def refused(path, *parts: str) -> None:
    with pytest.raises(FedReIDError) as caught:
        decode(str(path), HEIGHT, WIDTH)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    assert all(part in text for part in parts)


# decode


@pytest.mark.parametrize("extension", ["png", "bmp"])
def test_images_of_the_right_size_are_decoded_exactly(tmp_path, extension):
    pixels = noise()
    decoded = decode(save(tmp_path / f"image.{extension}", pixels), HEIGHT, WIDTH)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, pixels)


def test_resize_is_bicubic(tmp_path):
    pixels = noise(height=30, width=17)
    expected = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    decoded = decode(save(tmp_path / "image.png", pixels), HEIGHT, WIDTH)
    assert np.array_equal(decoded, np.array(expected))
    bilinear = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    assert not np.array_equal(decoded, np.array(bilinear))


def test_resize_keeps_sides_and_colours_in_place(tmp_path):
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[:20, :10, 0] = 255  # red above left, green below right
    pixels[20:, 10:, 1] = 255
    decoded = decode(save(tmp_path / "image.png", pixels), 16, 8)
    assert decoded.shape == (16, 8, 3)
    assert decoded[2, 1].tolist() == [255, 0, 0]
    assert decoded[13, 6].tolist() == [0, 255, 0]
    assert decoded[2, 6].tolist() == decoded[13, 1].tolist() == [0, 0, 0]


def test_jpeg_bytes_in_a_png(tmp_path):
    save(tmp_path / "real.jpg", noise())
    (tmp_path / "fake.png").write_bytes((tmp_path / "real.jpg").read_bytes())
    pair = [decode(str(tmp_path / name), HEIGHT, WIDTH) for name in ("real.jpg", "fake.png")]
    assert np.array_equal(*pair)
    assert np.abs(pair[0].astype(int) - noise()).mean() < 80  # lossy, but the same image


def test_grayscale_has_three_equal_channels(tmp_path):
    pixels = noise(channels=1)
    decoded = decode(save(tmp_path / "gray.png", pixels), HEIGHT, WIDTH)
    assert np.array_equal(decoded, np.repeat(pixels, 3, axis=2))


def test_transparent_pixels_lie_over_white(tmp_path):
    pixels = noise(channels=4)
    share = pixels[:, :, 3:] / 255
    expected = pixels[:, :, :3] * share + 255 * (1 - share)
    decoded = decode(save(tmp_path / "rgba.png", pixels), HEIGHT, WIDTH)
    assert np.abs(decoded - expected).max() <= 1


def test_palette_is_looked_up_before_resizing(tmp_path):
    index = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
    index[:, WIDTH:] = 2
    image = Image.fromarray(index).convert("P")
    image.putpalette([10, 20, 30, 255, 255, 255, 40, 50, 60])
    image.putdata(index.flatten().tolist())
    image.save(tmp_path / "palette.png")
    decoded = decode(str(tmp_path / "palette.png"), HEIGHT, WIDTH)
    assert decoded[5, 0].tolist() == [10, 20, 30]
    assert decoded[5, WIDTH - 1].tolist() == [40, 50, 60]


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "nowhere.jpg", "No such file or directory")
    (tmp_path / "folder.jpg").mkdir()
    refused(tmp_path / "folder.jpg", "Is a directory")


@pytest.mark.parametrize("format", ["jpg", "png", "bmp"])
def test_truncated_files(tmp_path, format):
    raw = Path(save(tmp_path / f"whole.{format}", noise(height=64, width=32))).read_bytes()
    for share in (0.0, 0.02, 0.5, 0.9):
        path = tmp_path / f"part.{format}"
        path.write_bytes(raw[: int(len(raw) * share)])
        refused(path, "not a readable image", "replace or remove the file")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("format", ["jpg", "png", "bmp"])
def test_damaged_bytes_are_read_or_refused(tmp_path, monkeypatch, format):
    """Any error of the decoder is raised as the project's error."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # damaged files can declare any size
    raw = Path(save(tmp_path / f"whole.{format}", noise())).read_bytes()
    rng = np.random.default_rng(0)
    path, count = tmp_path / f"damaged.{format}", 0
    for _ in range(150):
        data = np.frombuffer(raw, np.uint8).copy()
        data[rng.integers(0, min(len(data), 80), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(data.tobytes())
        try:
            assert decode(str(path), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)
        except FedReIDError as error:
            assert str(path) in str(error)
            count += 1
    assert count > 10


def test_text_is_not_an_image(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404 Not Found</html>")
    refused(tmp_path / "page.jpg", "not a readable image")


def test_an_image_with_too_many_pixels(tmp_path, monkeypatch):
    save(tmp_path / "bomb.png", noise())
    monkeypatch.setattr(decoding, "MOST_PIXELS", HEIGHT * WIDTH - 1)
    refused(tmp_path / "bomb.png", f"{WIDTH} x {HEIGHT} pixels are more than {HEIGHT * WIDTH - 1}")
    monkeypatch.setattr(decoding, "MOST_PIXELS", HEIGHT * WIDTH)
    assert decode(str(tmp_path / "bomb.png"), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)


# sources


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (HEIGHT + 5, WIDTH + 7)])
def test_a_source_reads_the_requested_rows(tmp_path, memory, size):
    files = table(tmp_path, height=size[0], width=size[1]).files()
    source = ImageSource(files, HEIGHT, WIDTH, memory)
    rows = (3, 0, 3)
    batch = source.read(rows)
    assert (batch.dtype, tuple(batch.shape)) == (torch.uint8, (3, 3, HEIGHT, WIDTH))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for image, row in zip(batch, rows, strict=True):
        expected = Image.open(files[row]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        for x in range(WIDTH):
            for y in range(HEIGHT):
                assert tuple(image[:, y, x].tolist()) == expected.getpixel((x, y))


def test_only_memory_mode_works_after_the_files_are_deleted(tmp_path):
    files = table(tmp_path).files()
    kept, lazy = (ImageSource(files, HEIGHT, WIDTH, memory) for memory in (True, False))
    first = kept.read([4, 2])
    assert torch.equal(first, lazy.read([4, 2]))
    for file in files:
        Path(file).unlink()
    assert torch.equal(kept.read([4, 2]), first)
    with pytest.raises(FedReIDError, match=r"2\.png"):
        lazy.read([2, 4])


def test_batches_are_copies(tmp_path):
    source = ImageSource(table(tmp_path).files(), HEIGHT, WIDTH, memory=True)
    before = source.read([1]).clone()
    source.read([1]).zero_()
    assert torch.equal(source.read([1]), before)


def test_load_decodes_each_file_once_and_only_in_memory_mode(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(images, "decode", lambda path, *size: opened.append(path) or decode(path, *size))
    files = table(tmp_path).files()
    ImageSource(files, HEIGHT, WIDTH, memory=False).load()
    assert opened == []
    source = ImageSource(files, HEIGHT, WIDTH, memory=True)
    for _ in range(2):
        source.load()
        source.read([0, 1])
    assert sorted(opened) == sorted(files)


def test_many_files_stay_in_order(tmp_path):
    """Uses more files than one block of the decoding threads."""
    save(tmp_path / "a.png", np.full((2, 2, 3), 7, np.uint8))
    save(tmp_path / "b.png", np.full((2, 2, 3), 9, np.uint8))
    pattern = np.random.default_rng(0).integers(0, 2, 700).tolist()
    source = ImageSource([str(tmp_path / "ab"[bit]) + ".png" for bit in pattern], 2, 2, memory=True)
    assert source.read(range(700))[:, 0, 0, 0].tolist() == [7 + 2 * bit for bit in pattern]


def test_the_error_names_the_first_damaged_file(tmp_path):
    files = table(tmp_path).files()
    for row in (1, 3):
        Path(files[row]).write_bytes(b"")
    with pytest.raises(FedReIDError) as caught:
        ImageSource(files, HEIGHT, WIDTH, memory=True).load()
    assert str(caught.value).startswith(files[1])


# the pool


def test_equal_files_share_a_source(tmp_path):
    whole = table(tmp_path)
    pool = ImagePool(HEIGHT, WIDTH, "none")
    assert pool.source(whole) is pool.source(whole.take(range(5)))
    assert pool.source(whole) is not pool.source(whole.take([1, 0, 2, 3, 4]))
    assert torch.equal(pool.source(whole.take([3, 1])).read([1]), pool.source(whole).read([1]))


def test_equal_names_below_another_root_are_different_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = table(tmp_path / "a"), table(tmp_path / "b")
    save(tmp_path / "b" / "1.png", noise(99))
    pool = ImagePool(HEIGHT, WIDTH, "memory")
    for part, seed in ((first, 1), (second, 99)):
        assert torch.equal(pool.source(part).read([1])[0], torch.from_numpy(noise(seed)).permute(2, 0, 1))


@pytest.mark.parametrize(("cache", "kept"), [("memory", True), ("none", False), ("auto", True)])
def test_cache_modes(tmp_path, monkeypatch, cache, kept):
    monkeypatch.setattr(images, "_free_memory", lambda: 1e9 if cache == "auto" else 0.0)
    pool = ImagePool(HEIGHT, WIDTH, cache)
    whole = table(tmp_path)
    assert pool.source(whole).memory is kept
    pool.source(whole.take([0, 1]))
    assert pool.load() == (7 if kept else 0)


def test_auto_keeps_what_fits_a_quarter_of_the_free_memory(tmp_path, monkeypatch):
    size = HEIGHT * WIDTH * 3
    monkeypatch.setattr(images, "_free_memory", lambda: 4.0 * 6 * size)  # room for six images
    pool = ImagePool(HEIGHT, WIDTH, "auto")
    whole = table(tmp_path, 8)
    wanted = [range(4), range(7), range(2), range(2), range(1, 2)]
    assert [pool.source(whole.take(rows)).memory for rows in wanted] == [True, False, True, True, False]
    assert pool.load() == 6
    assert torch.equal(pool.source(whole.take(range(7))).read([6]), pool.source(whole.take([6])).read([0]))


def test_free_memory_is_measured():
    assert 1e6 < images._free_memory() < 1e15
