"""Images of all Pillow modes, compared with ImageMagick, OpenCV or a computation by hand."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from fedreid_pl.data import decoding
from fedreid_pl.data.decoding import UnreadableImage, decode, open_rgb
from fedreid_pl.data.readers.picture_files import is_picture, is_text, kind_of, picture_format

HEIGHT, WIDTH = 24, 16
CHANCE = np.random.default_rng(5)
BLOCKS = np.kron(CHANCE.integers(0, 256, (6, 4, 4)), np.ones((4, 4, 1))).astype(np.uint8)
GREY, RGB, RGBA, LA = BLOCKS[..., 0], BLOCKS[..., :3].copy(), BLOCKS.copy(), BLOCKS[..., [0, 3]].copy()
DEEP = np.kron(CHANCE.integers(0, 65_536, (6, 4)), np.ones((4, 4))).astype(np.uint16)


def read(path: Path) -> np.ndarray:
    return np.asarray(open_rgb(str(path))).astype(int)


def save(image: Image.Image | np.ndarray, path: Path, **options) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.broadcast_to(colours.reshape(HEIGHT, WIDTH, -1), (HEIGHT, WIDTH, 3)) * share + 255 * (1 - share)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, int)[..., None], 3, axis=2)


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        open_rgb(str(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return caught.value.reason


# 8 bits


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif", "webp", "ppm", "jp2", "avif", "jpg"])
def test_colours_in_every_format_as_opencv_reads_them(tmp_path, ending):
    lossless = {
        "webp": {"lossless": True},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
        "jpg": {"quality": 100, "subsampling": 0},
    }
    path = save(RGB, tmp_path / f"a.{ending}", **lossless.get(ending, {}))
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert np.abs(read(path) - expected).max() <= 1
    assert np.abs(read(path) - RGB.astype(int)).mean() < 12  # GIF has 256 colours


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif", "webp", "ppm"])
def test_black_and_white(tmp_path, ending):
    bits = Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8)).convert("1")
    path = save(bits, tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(read(path), grey(np.where(GREY > 127, 255, 0)))


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jp2"])
@pytest.mark.parametrize("pixels", [RGBA, LA], ids=["RGBA", "LA"])
def test_alpha_lies_over_white(tmp_path, ending, pixels):
    path = save(pixels, tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert np.abs(read(path) - over_white(pixels[..., :-1], pixels[..., -1])).max() <= 1


def test_a_palette_with_one_and_with_many_transparent_colours(tmp_path):
    palette = Image.fromarray(RGB).quantize(8)
    index, colours = np.asarray(palette), np.array(palette.getpalette()).reshape(-1, 3)
    for ending in ("png", "gif"):
        path = save(palette, tmp_path / f"one.{ending}", transparency=int(index[0, 0]))
        opaque = np.where(index == index[0, 0], 0, 255)
        assert np.abs(read(path) - over_white(colours[index], opaque)).max() <= 1
    shares = np.linspace(0, 255, 8).astype(np.uint8)
    path = save(palette, tmp_path / "many.png", transparency=shares.tobytes())
    assert np.abs(read(path) - over_white(colours[index], shares[index])).max() <= 1
    assert np.array_equal(read(save(palette, tmp_path / "none.bmp")), colours[index])


@pytest.mark.parametrize("pixels", [GREY, RGB, DEEP], ids=["L", "RGB", "I;16"])
def test_one_transparent_colour_of_a_png(tmp_path, pixels):
    colour = tuple(pixels[0, 0].tolist()) if pixels.ndim == 3 else int(pixels[0, 0])
    path = save(pixels, tmp_path / "a.png", transparency=colour)
    through = (pixels == pixels[0, 0]).reshape(HEIGHT, WIDTH, -1).all(2)
    plain = grey(np.rint(pixels / 257 if pixels.dtype == np.uint16 else pixels)) if pixels.ndim == 2 else pixels
    assert through.any() and np.array_equal(read(path), np.where(through[..., None], 255, plain))


def test_cmyk_and_ycbcr(tmp_path):
    inks = Image.fromarray(RGB).convert("CMYK")
    light = 255 - np.asarray(inks).astype(int)
    expected = light[..., :3] * light[..., 3:] / 255
    assert np.abs(read(save(inks, tmp_path / "a.tif")) - expected).max() <= 1
    assert np.abs(read(save(inks, tmp_path / "a.jpg", quality=100)) - expected).mean() < 6
    luma = np.asarray(Image.fromarray(RGB).convert("YCbCr")).astype(float) - [0, 128, 128]
    matrix = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
    path = save(Image.fromarray(RGB).convert("YCbCr"), tmp_path / "y.tif")
    assert np.abs(read(path) - (luma @ matrix.T).clip(0, 255)).max() <= 1


# more than 8 bits


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "a.ppm", "big.tif", "inverted.tif", "packed.tif"])
def test_sixteen_bits_are_scaled(tmp_path, name):
    path = tmp_path / name
    if name == "big.tif":
        save(DEEP.astype(">u2"), path)
    elif name == "inverted.tif":
        path.write_bytes(tiff(65_535 - DEEP, photometric=0))
    else:
        save(DEEP, path, **({"compression": "tiff_lzw"} if name == "packed.tif" else {}))
    assert np.array_equal(read(path), grey(np.rint(DEEP / 257)))


def tiff(values: np.ndarray, photometric: int) -> bytes:
    """Writes a little-endian TIFF of 16 bits in one strip, field by field."""
    fields = {256: WIDTH, 257: HEIGHT, 258: 16, 259: 1, 262: photometric, 273: 8 + 2 + 10 * 12 + 4, 277: 1, 278: HEIGHT}
    fields |= {279: values.size * 2, 339: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + values.astype("<u2").tobytes()


def test_twelve_bits_reach_white(tmp_path):
    """A TIFF of 12 bits stores two pixels in three bytes."""
    values = (DEEP >> 4).reshape(-1, 2).astype(int)
    three = [values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255]
    content = tiff(np.zeros((HEIGHT, WIDTH)), photometric=1)[: 8 + 2 + 10 * 12 + 4]
    content = content.replace(struct.pack("<HHII", 258, 4, 1, 16), struct.pack("<HHII", 258, 4, 1, 12))
    packed = np.stack(three, 1).astype(np.uint8).tobytes()
    content = content.replace(
        struct.pack("<HHII", 279, 4, 1, DEEP.size * 2), struct.pack("<HHII", 279, 4, 1, len(packed))
    )
    (tmp_path / "a.tif").write_bytes(content + packed)
    assert np.array_equal(read(tmp_path / "a.tif"), grey(np.rint((DEEP >> 4).astype(int) * 255 / 4095)))


def test_colours_of_sixteen_bits(tmp_path):
    deep = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], -1)
    for ending in ("png", "tif", "ppm"):
        assert cv2.imwrite(str(tmp_path / f"a.{ending}"), deep[..., ::-1])
        assert np.abs(read(tmp_path / f"a.{ending}") - deep / 257).max() <= 1


def test_integers_of_32_bits(tmp_path):
    path = save(DEEP.astype(np.int32), tmp_path / "a.tif")
    assert np.array_equal(read(path), grey(np.rint(DEEP / 257)))
    assert "outside 16 bits" in refusal(save(DEEP.astype(np.int32) * 9, tmp_path / "wide.tif"))
    assert "from -" in refusal(save(DEEP.astype(np.int32) - 70_000, tmp_path / "negative.tif"))
    assert "stand for 8 or 16 bits" in refusal(save(GREY.astype(np.int32), tmp_path / "small.tif"))


def test_floating_point_is_refused_by_name(tmp_path):
    assert "mode F" in refusal(save(DEEP.astype(np.float32), tmp_path / "a.tif"))
    (tmp_path / "a.pfm").write_bytes(b"Pf\n2 2\n-1.0\n" + bytes(16))
    assert "PFM (floating point) format is not read" in refusal(tmp_path / "a.pfm")


def has_imagemagick() -> bool:
    """Returns whether `convert` is ImageMagick's: other programs and wrappers have the same name."""
    if shutil.which("convert") is None:
        return False
    return b"Version: ImageMagick" in subprocess.run(["convert", "-version"], capture_output=True).stdout


@pytest.mark.skipif(not has_imagemagick(), reason="needs ImageMagick's convert")
def test_all_modes_against_imagemagick(tmp_path):
    pictures = {
        "I16.png": save(DEEP, tmp_path / "I16.png"),
        "I16B.tif": save(DEEP.astype(">u2"), tmp_path / "I16B.tif"),
        "RGBA.png": save(RGBA, tmp_path / "RGBA.png"),
        "LA.tif": save(LA, tmp_path / "LA.tif"),
        "P.gif": save(Image.fromarray(RGB).quantize(8), tmp_path / "P.gif", transparency=2),
        "CMYK.jpg": save(Image.fromarray(RGB).convert("CMYK"), tmp_path / "CMYK.jpg"),
        "YCbCr.tif": save(Image.fromarray(RGB).convert("YCbCr"), tmp_path / "YCbCr.tif"),
        "turned.jpg": save(RGB, tmp_path / "turned.jpg", exif=oriented(6)),
    }
    flat = ["-auto-orient", "-background", "white", "-alpha", "remove", "-colorspace", "sRGB", "-depth", "8", "rgb:-"]
    for name, path in pictures.items():
        shown = subprocess.run(["convert", f"{path}[0]", *flat], capture_output=True, check=True).stdout
        mine = read(path)
        assert np.abs(mine - np.frombuffer(shown, np.uint8).reshape(mine.shape)).max() <= 2, name


# orientation


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", list(TURNS))
@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
def test_orientation_is_applied_once(tmp_path, ending, orientation):
    pixels = np.kron(CHANCE.integers(0, 256, (3, 2, 1)), np.ones((8, 8, 1))).astype(np.uint8).repeat(3, 2)
    quality = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(ending, {})
    path = save(pixels, tmp_path / f"a.{ending}", exif=oriented(orientation), **quality)
    assert np.abs(read(path) - TURNS[orientation](pixels).astype(int)).max() <= 2


def test_orientation_comes_before_scaling_and_with_every_mode(tmp_path):
    lying = np.rot90(DEEP).copy()
    path = save(lying, tmp_path / "a.png", exif=oriented(6))
    assert np.array_equal(decode(str(path), HEIGHT, WIDTH), grey(np.rint(DEEP / 257)))
    assert np.array_equal(read(save(lying, tmp_path / "a.tif", exif=oriented(6))), grey(np.rint(DEEP / 257)))


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0", b"garbage"])
def test_a_damaged_orientation_is_ignored(tmp_path, exif):
    path = save(RGB, tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert np.abs(read(path) - RGB).mean() < 5


# profiles


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def test_a_profile_is_converted_to_srgb(tmp_path):
    """A profile with swapped red and blue primaries turns blue into red."""
    content = profile("sRGB")
    swapped = content.replace(b"rXYZ", b"temp").replace(b"bXYZ", b"rXYZ").replace(b"temp", b"bXYZ")
    path = save(RGB, tmp_path / "a.png", icc_profile=swapped)
    assert np.abs(read(path) - RGB[..., ::-1].astype(int)).max() <= 2
    transparent = save(RGBA, tmp_path / "b.png", icc_profile=swapped)
    assert np.abs(read(transparent) - over_white(RGBA[..., 2::-1], RGBA[..., 3])).max() <= 2


def test_profiles_without_effect(tmp_path):
    assert np.array_equal(read(save(RGB, tmp_path / "srgb.png", icc_profile=profile("sRGB"))), RGB)
    assert np.array_equal(read(save(RGB, tmp_path / "damaged.png", icc_profile=b"no profile")), RGB)
    assert np.array_equal(read(save(GREY, tmp_path / "other.png", icc_profile=profile("sRGB"))), grey(GREY))


# formats


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS or PostScript"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "WMF"),
        (b"\x01\x00\x00\x00" + bytes(36) + b" EMF", "EMF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.4", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
    ],
)
def test_other_formats_are_refused_by_name_and_start_no_program(tmp_path, monkeypatch, head, name):
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("a program was started"))
    (tmp_path / "a.jpg").write_bytes(head)
    assert f"{name} format is not read" in refusal(tmp_path / "a.jpg")
    (tmp_path / "a.bin").write_bytes(head)
    assert kind_of(str(tmp_path), "a.bin") == ("other", f"{name} format is not read")


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif", "webp", "ppm", "jp2", "avif", "jpg"])
def test_the_signature_decides_and_the_bound_holds(tmp_path, monkeypatch, ending):
    content = save(RGB, tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / "picture.dat").write_bytes(content)
    assert picture_format(content) is not None
    assert is_picture(str(tmp_path), "picture.dat")
    assert np.array_equal(read(tmp_path / "picture.dat"), read(tmp_path / f"a.{ending}"))
    monkeypatch.setattr(decoding, "MOST_PIXELS", HEIGHT * WIDTH - 1)
    assert f"{WIDTH} x {HEIGHT} pixels are more than" in refusal(tmp_path / "picture.dat")


def test_the_first_frame_of_a_gif(tmp_path):
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint8)) for value in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read(tmp_path / "a.gif") == 40).all()


@pytest.mark.parametrize("text", [b"BM is not always a bitmap, you know", b"P1 and P5 are pairs of cameras", b"GIF"])
def test_text_that_begins_as_a_picture(text):
    assert picture_format(text) is None
    assert is_text(text)


def test_kinds_of_other_files(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "PNG")
    files = {
        **{name: b"\0\1" for name in ("Thumbs.db", ".DS_Store", "._a.jpg", "desktop.ini")},
        "notes": "naïve".encode(),
        "utf16.txt": "a list".encode("utf-16"),
        "latin.txt": "naïve".encode("latin-1"),
        "empty": b"",
        ".hidden.png": stream.getvalue(),
        "noise": bytes(range(256)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    kinds = {name: kind_of(str(tmp_path), name)[0] for name in files}
    assert [name for name, kind in kinds.items() if kind == "system"] == list(files)[:4]
    assert [name for name, kind in kinds.items() if kind == "text"] == ["notes", "utf16.txt", "latin.txt"]
    assert (kinds["empty"], kinds[".hidden.png"], kinds["noise"]) == ("empty", "picture", "other")
