"""From the bytes of an image file to an upright RGB picture, or a reason why not.

Whatever people have in their folders ends here: phone photographs lying on their side, 16-bit scans, CMYK
prints, stickers with a transparent ground, animations, a web page saved as `.jpg`. Colour profiles are not
applied: the processors of `transformers` do not apply them either.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from fgdiag.errors import ImageUnreadable

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm", ".heic", ".heif"),
)
"""A file with one of these names is meant to be an image, so a run says why where it is not one."""

MIN_SIDE = 8
"""Pixels. A smaller picture shows nothing fine."""

MAX_PIXELS = 500_000_000
"""Above this a picture would take more than 1.5 GB in memory."""

KEPT_PIXELS = 64_000_000
"""Larger pictures are halved until they are below, which leaves at least 16 million pixels. No VLM looks at
more than about 13 million (Qwen2-VL)."""

# Raster formats only: PIL would hand an EPS file to Ghostscript.
_WANTED = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM")
Image.init()
_FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)


def decode(image: bytes | Path) -> Image.Image:
    """Decode one image file.

    The first frame of an animation is taken, the EXIF orientation is applied, transparency is laid over
    white, 16-bit grey is divided by 256, CMYK is converted. Pictures of more than `KEPT_PIXELS` come back
    halved, or halved again.

    Parameters
    ----------
    image
        The bytes of the file, or where it lies.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, upright, at least `MIN_SIDE` pixels on each side.

    Raises
    ------
    ImageUnreadable
        The message is the reason alone, as a run records it: `truncated: ...`, `an empty file`.
    """
    data = image if isinstance(image, bytes) else read_file(image)
    with _named_failures(data):
        picture = Image.open(BytesIO(data), formats=_FORMATS)
        _check_size(*picture.size)
        factor = _shrink_factor(*picture.size)
        transpose = _UPRIGHT.get(_orientation(picture, data))
        # JPEG alone decodes straight to a half, a quarter or an eighth, and never below the size asked for.
        full_width = picture.width
        picture.draft(None, (picture.width // factor, picture.height // factor))
        factor = factor * picture.width // full_width
        rgb = _to_rgb(picture)
        if factor > 1:
            rgb = rgb.reduce(factor)
        return rgb if transpose is None else rgb.transpose(transpose)


def glance(data: bytes, side: int) -> Image.Image:
    """Decode an image just far enough to see it small; a JPEG is decoded at a fraction of its size.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, upright, squeezed into `side` x `side` pixels.

    Raises
    ------
    ImageUnreadable
        As `decode`.
    """
    with _named_failures(data):
        picture = Image.open(BytesIO(data), formats=_FORMATS)
        _check_size(*picture.size)
        transpose = _UPRIGHT.get(_orientation(picture, data))
        picture.draft(None, (2 * side, 2 * side))
        small = _to_rgb(picture).resize((side, side), Image.Resampling.BOX)
        return small if transpose is None else small.transpose(transpose)


def measure(data: bytes) -> tuple[int, int]:
    """Read width and height in pixels, as displayed after EXIF orientation, from the header; decode nothing.

    Raises
    ------
    ImageUnreadable
        With the reason alone as message. A file cut off after its header passes here and fails in `decode`.
    """
    with _named_failures(data):
        picture = Image.open(BytesIO(data), formats=_FORMATS)
        _check_size(*picture.size)
        width, height = picture.size
        return (height, width) if _orientation(picture, data) in _ON_ITS_SIDE else (width, height)


def read_file(path: Path) -> bytes:
    """Read the bytes of a file; `ImageUnreadable` with the reason where that is not possible."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise ImageUnreadable("a folder, not a file" if path.is_dir() else "not a regular file")
        return path.read_bytes()
    except ImageUnreadable:
        raise
    except FileNotFoundError:
        raise ImageUnreadable("no such file") from None
    except PermissionError:
        raise ImageUnreadable("no permission to read the file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ImageUnreadable(f"cannot be read: {_one_line(error)}") from error


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise ImageUnreadable(f"{width}x{height} pixels: smaller than {MIN_SIDE} pixels on a side")
    if width * height > MAX_PIXELS:
        raise ImageUnreadable(f"{width}x{height} pixels: more than {MAX_PIXELS // 10**6} megapixels")


def _shrink_factor(width: int, height: int) -> int:
    factor = 1
    while width * height > KEPT_PIXELS * factor**2:
        factor *= 2
    return factor


def _orientation(picture: ImageFile.ImageFile, data: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where there is none, it is broken, or PIL applies it itself."""
    if picture.format == "TIFF":  # PIL turns these while loading
        return 1
    hints = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
    if picture.format == "PNG" and not any(hint in data for hint in hints):
        return 1  # PIL would decode the whole picture to look for a chunk that is not there
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a photograph with broken EXIF is still a photograph
        return 1


def _to_rgb(picture: ImageFile.ImageFile) -> Image.Image:
    picture.load()
    if picture.mode.startswith(("I", "F")):
        return _upper_byte(picture).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _upper_byte(picture: ImageFile.ImageFile) -> Image.Image:
    """16-bit grey as 8-bit grey; PIL would clip everything above 255 to white."""
    is_16_bit = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))
    if not is_16_bit:
        raise ImageUnreadable("pixels of 32 bits, whose white is unknown; expected 8 or 16 bits")
    return Image.fromarray((np.asarray(picture) // 256).astype(np.uint8))


@contextmanager
def _named_failures(data: bytes) -> Iterator[None]:
    """Turn whatever PIL raises on these bytes into `ImageUnreadable` with a reason."""
    if not data:
        raise ImageUnreadable("an empty file (0 bytes)")
    try:
        with _pil_settings:
            yield
    except ImageUnreadable:
        raise
    except UnidentifiedImageError:
        raise ImageUnreadable(_what_else(data)) from None
    except Image.DecompressionBombError:
        raise ImageUnreadable(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except MemoryError:
        raise ImageUnreadable("too large for the free memory") from None
    except Exception as error:  # on broken files PIL lets through whatever its parsers meet
        reason = _one_line(error)
        word = "truncated" if _is_cut_off(data) or "truncated" in reason.lower() else "cannot be decoded"
        raise ImageUnreadable(f"{word}: {reason}") from error


def _is_cut_off(data: bytes) -> bool:
    """Whether a WebP file is shorter than it says; its decoder does not name this case."""
    return data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _what_else(data: bytes) -> str:
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image; fetch it with `git lfs pull`"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "HEIC is not read; convert it to JPEG"
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")):
        return "broken or cut off inside its header"
    return f"no image format that is read here (first bytes: {data[:8]!r})"


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


class _PilSettings:
    """PIL as this module needs it, while at least one thread is inside.

    PIL keeps its limits in module globals, and Python its warning filters too; restored by each thread on its
    own, they would be mixed up. So the first thread in changes them and the last one out restores them.
    Inside, PIL does not warn, allows `MAX_PIXELS`, and never takes a truncated file for a whole one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
            self._warnings = warnings.catch_warnings()
            self._warnings.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MAX_PIXELS, False

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self._before
                self._warnings.__exit__(None, None, None)


_pil_settings = _PilSettings()
