"""An image file as a person sees it: upright, over white, in 8-bit RGB; an animation by its first frame.

What must not be opened at all (a pipe, a device, a format that runs a program, a few bytes that promise gigabytes) is
refused by name.
"""

import io
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
SIXTEEN_BIT = 65535


class Unreadable(ValueError):
    """Why a file is no picture that can be judged; the message follows the file's name."""


def read(source: Path | bytes) -> "Picture":
    """The picture in a file or in its bytes, as 8-bit RGB; Unreadable says why not."""
    from PIL import Image, UnidentifiedImageError

    file = io.BytesIO(source) if isinstance(source, bytes) else regular(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as picture:
                picture.load()
                return as_seen(picture)
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable(f"is no image of a kind that is read ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise Unreadable("promises more pixels than any image here has (a decompression bomb)") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError) as error:
        raise Unreadable(f"is damaged ({' '.join(str(error).split())[:80] or type(error).__name__})") from error


def regular(path: Path) -> Path:
    """The path of a regular file that is not empty; a pipe is never opened, since that may wait for ever."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unreadable(
            "is not there" if isinstance(error, FileNotFoundError) else f"is not read ({error})"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("is no file but a folder, a pipe or a device")
    if found.st_size == 0:
        raise Unreadable("is empty")
    return path


def as_seen(picture: "Picture") -> "Picture":
    """Upright, over white, in 8-bit RGB."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = Image.fromarray(_eight_bit(picture))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        veil = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", veil.size, "white"), veil)
    return picture.convert("RGB")


def _eight_bit(picture: "Picture") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Of 16-bit gray levels; wider numbers have no scale that a file would tell."""
    levels = np.asarray(picture)
    if levels.dtype.kind == "f" or levels.min() < 0 or levels.max() > SIXTEEN_BIT:
        raise Unreadable("holds numbers beyond 16 bits, whose white is not known: save it with 8 or 16 bits")
    return np.round(levels / 257).astype(np.uint8)
