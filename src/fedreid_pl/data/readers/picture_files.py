"""Detection of image files by their signature (the first bytes of the file) instead of their extension."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Literal

READ = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
"""Supported formats, by Pillow's names. Of several frames or pages, only the first is read."""

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif"),
    *(".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"),
    *(".j2c", ".jpc", ".jpx", ".jpf", ".avif"),
)
"""Extensions of these formats. A file with one of them counts as an image before its bytes are read."""

HEAD = 512  # number of bytes at the beginning of a file that identify its format

_SIGNATURES: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        # The size of the second header follows at byte 14. A text that begins with "BM" has other bytes there.
        ("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00"),
        ("GIF", rb"GIF8[79]a"),
        ("TIFF", rb"II[*+]\x00|MM\x00[*+]"),
        ("WEBP", rb"RIFF.{4}WEBP"),
        ("PPM", rb"P[1-6]\s+(?:#[^\n]*\n\s*)*[0-9]{1,10}\s+(?:#[^\n]*\n\s*)*[0-9]{1,10}\s"),
        ("JPEG2000", rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
        ("AVIF", rb".{4}ftyp(?:avif|avis|(?:mif1|msf1|miaf).{4}(?:.{4})*?avi[fs])"),
    )
)

_OTHERS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("EPS or PostScript", rb"%!PS|\xc5\xd0\xd3\xc6"),
        ("WMF", rb"\xd7\xcd\xc6\x9a|[\x01\x02]\x00\x09\x00\x00[\x01\x03]"),
        ("EMF", rb"\x01\x00\x00\x00.{36} EMF"),
        ("PDF", rb"%PDF"),
        ("SVG", rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]"),
        ("XPM", rb"/\* XPM \*/"),
        ("Photoshop", rb"8BPS"),
        ("HEIC", rb".{4}ftyp(?:hei[cxms]|hev[cmxs]|mif1|msf1)"),
        ("JPEG XL", rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n"),
        ("JPEG XR", rb"II\xbc"),
        ("icon", rb"\x00\x00[\x01\x02]\x00.\x00"),
        ("DDS", rb"DDS "),
        ("SGI", rb"\x01\xda[\x00\x01][\x01\x02]"),
        ("Sun raster", rb"\x59\xa6\x6a\x95"),
        ("PCX", rb"\x0a[\x00-\x05]\x01[\x01\x02\x04\x08]"),
        ("FITS", rb"SIMPLE  ="),
        ("QOI", rb"qoif"),
        ("OpenEXR", rb"\x76\x2f\x31\x01"),
        ("Radiance HDR", rb"#\?(?:RADIANCE|RGBE)"),
        ("PFM (floating point)", rb"P[Ff]\s"),
        ("PAM", rb"P7\s"),
        ("GIMP", rb"gimp xcf"),
        ("video", rb".{4}ftyp|RIFF.{4}AVI |\x1a\x45\xdf\xa3|\x00\x00\x01[\xb3\xba]|FLV\x01"),
        ("ZIP", rb"PK\x03\x04|PK\x05\x06"),
        ("RAR", rb"Rar!\x1a\x07"),
        ("7z", rb"7z\xbc\xaf\x27\x1c"),
        ("gzip", rb"\x1f\x8b"),
        ("xz", rb"\xfd7zXZ\x00"),
        ("bzip2", rb"BZh[1-9]"),
        ("tar", rb".{257}ustar"),
        ("MATLAB", rb"MATLAB [57]\."),
        ("HDF5", rb"\x89HDF\r\n\x1a\n"),
        ("NumPy", rb"\x93NUMPY"),
    )
)

_TEXT_ENDINGS = (
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html"),
    *(".htm", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".m", ".py"),
    *(".sh", ".tex", ".bib"),
)
_SYSTEM = re.compile(r"\._.*|\.DS_Store|\.localized|\.directory|(?:eh)?thumbs\.db|desktop\.ini|Icon\r", re.IGNORECASE)
_SYSTEM_FOLDERS = re.compile(
    r"__MACOSX|@eaDir|\.git|\.svn|\.ipynb_checkpoints|\.Trash.*|\.Spotlight-V100|\.fseventsd|lost\+found|"
    r"\$RECYCLE\.BIN|System Volume Information",
    re.IGNORECASE,
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")

Kind = Literal["picture", "system", "text", "empty", "other"]


def picture_format(head: bytes) -> str | None:
    """Returns the format in `READ` of a file with the given first bytes, or `None`.

    >>> picture_format(b"GIF89a..."), picture_format(b"%!PS-Adobe-3.0 EPSF-3.0")
    ('GIF', None)
    """
    return next((name for name, signature in _SIGNATURES if signature.match(head)), None)


def other_format(head: bytes) -> str | None:
    """Returns the name of a known but unsupported format, or `None`.

    >>> other_format(b"%!PS-Adobe-3.0 EPSF-3.0"), other_format(b"hello")
    ('EPS or PostScript', None)
    """
    return next((name for name, signature in _OTHERS if signature.match(head)), None)


def read_head(path: str) -> bytes:
    """Returns the first bytes of a regular file.

    Raises:
        OSError: if the file is missing, cannot be read, or is a pipe, a socket or a device.
    """
    place = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # without O_NONBLOCK, opening a pipe waits for a writer
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return os.read(place, HEAD)
    finally:
        os.close(place)


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder is hidden, or was created by an operating system."""
    return name.startswith(".") or _SYSTEM.fullmatch(name) is not None


def is_system_folder(name: str) -> bool:
    """Returns whether a folder with this name belongs to an operating system or a tool, such as `__MACOSX`."""
    return _SYSTEM_FOLDERS.fullmatch(name) is not None


def is_picture(folder: str, name: str) -> bool:
    """Returns whether a reader accepts the file `folder/name` as an image.

    A hidden file is not accepted. A file with one of the `ENDINGS` is accepted; if it is not an image, decoding raises
    an error. For other files the signature decides.
    """
    if is_hidden(name):
        return False
    if name.lower().endswith(ENDINGS):
        return True
    try:
        return picture_format(read_head(os.path.join(folder, name))) is not None
    except OSError:
        return False


def kind_of(folder: str, name: str) -> tuple[Kind, str]:
    """Returns the kind of an unread file, and for `picture` and `other` its format or a reason.

    `system`, `text` and `empty` files are skipped on purpose.
    """
    if _SYSTEM.fullmatch(name):
        return "system", ""
    try:
        head = read_head(os.path.join(folder, name))
    except OSError as error:
        return "other", f"cannot be read ({error.strerror})"
    if found := picture_format(head):
        return "picture", f"hidden {found} picture" if is_hidden(name) else f"{found} picture"
    if name.lower().endswith(ENDINGS) and not is_hidden(name):
        return "picture", f"{other_format(head) or 'unknown'} format under a picture's name"
    if not head:
        return "empty", ""
    if found := other_format(head):
        return "other", f"{found} format is not read"
    return ("text", "") if is_text(head, name) else ("other", "unknown format")


def is_text(head: bytes, name: str = "") -> bool:
    """Returns whether the first bytes of a file are text.

    Text is UTF-8, UTF-16 with a byte order mark, or another encoding if the file has the extension of a text file.

    >>> is_text("naïve".encode()), is_text("naïve".encode("utf-16")), is_text(bytes(9))
    (True, True, False)
    """
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return b"\x00" in head or len(head) < 4
    if _CONTROL.search(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = len(head) == HEAD and error.start > HEAD - 4  # the last character is cut off
        return cut or name.lower().endswith(_TEXT_ENDINGS)
    return True
