"""Reads image files of any size as 32x32 RGB pixels.

Reads the usual formats of photographs and drawings, which are listed in FORMATS. Pillow's other
formats are disabled: some of them start programs, such as Ghostscript for EPS, and few files use
them.
"""

import contextlib
import logging
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_jax.errors import UserError

SIZE = 32
# Pillow's names. JPEG includes the multi-picture files of phones (MPO), PPM also PBM and PGM.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")

# Without a handler, Pillow's log messages about corrupt files would be printed.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_ORIENTATION = 0x0112  # the EXIF tag
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load(path: Path) -> np.ndarray:
    """Returns an image's central square, [32, 32, 3] uint8.

    The image may have any mode and size. Its EXIF orientation is applied if it can be read, and
    transparent areas become white. Of an animation, only the first frame is read.

    Raises:
      UserError: If the file is not a regular file or is in none of the FORMATS, or the image is
        corrupt or oversized.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # a ValueError for a path with a null character
        raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    if not stat.S_ISREG(kind):  # reading a pipe or a device might never end
        what = "a folder" if stat.S_ISDIR(kind) else "not a regular file"
        raise UserError(f"{path} cannot be read: it is {what}")
    with warnings.catch_warnings():
        # Pillow warns about metadata, and about large images that it still reads.
        warnings.simplefilter("ignore")
        flat = _decode(path)
    return np.asarray(ImageOps.fit(flat, (SIZE, SIZE), Image.Resampling.BICUBIC))


def _decode(path: Path) -> Image.Image:
    """Returns the upright image in mode RGB."""
    try:
        with Image.open(path, formats=_formats()) as image:
            image.draft("RGB", (8 * SIZE, 8 * SIZE))  # decode a JPEG at reduced resolution
            mask = _transparency(path, image)
            image.load()
            flat = _on_white(image, mask)
            turn = _TO_UPRIGHT.get(_orientation(image))
            return flat if turn is None else flat.transpose(turn)
    except UnidentifiedImageError:
        names = f"{', '.join(_formats()[:-1])} or {_formats()[-1]}"
        raise UserError(f"{path} is not an image in {names} format") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large: {error}") from error
    except MemoryError:
        raise UserError(f"{path} is too large to fit in memory") from None
    except Exception as error:  # for corrupt files, Pillow's decoders raise errors of any type
        raise UserError(f"{path} cannot be read: {_reason(error)}") from error


def _formats() -> tuple[str, ...]:
    """Returns the members of FORMATS that the installed Pillow supports."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    """Returns an error's first line, or its type if it has none."""
    text = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return text or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 (upright) if it cannot be read.

    ImageOps.exif_transpose also writes the tags back, which fails if a camera has stored a value
    with a nonstandard type.
    """
    with contextlib.suppress(Exception):  # Pillow raises errors of any type for corrupt tags
        value = image.getexif().get(_ORIENTATION, 1)
        value = value[0] if isinstance(value, tuple) else value
        return int(value)
    return 1


def _transparency(path: Path, image: Image.Image) -> np.ndarray | None:
    """Returns which pixels of a PNG are transparent, [H, W] bool, if Pillow would misread them.

    A PNG without an alpha channel may declare one color to be transparent. Pillow compares it with
    the pixels after they were converted to 8 bits, but does not convert the color. Returns None for
    files that Pillow reads correctly. The image must not be loaded yet.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or not image.tile or not isinstance(key, int | tuple):
        return None
    raw_mode = image.tile[0].args
    if raw_mode in ("L;2", "L;4"):
        gray = np.asarray(image)
        return gray == key * (255 // (2 ** int(raw_mode[-1]) - 1))
    if raw_mode == "I;16B":
        return np.asarray(image) == key
    if raw_mode == "RGB;16B":
        # Pillow keeps only the high byte of each value. Decoding the file again, as if it were
        # little-endian, gives the low bytes.
        with Image.open(path, formats=["PNG"]) as other:
            other.tile = [tile._replace(args="RGB;16L") for tile in other.tile]
            low = np.asarray(other, np.uint16)
        return ((np.asarray(image, np.uint16) << 8 | low) == key).all(axis=-1)
    return None


def _on_white(image: Image.Image, mask: np.ndarray | None) -> Image.Image:
    """Returns a loaded image in mode RGB, with white in its transparent areas.

    Args:
      image: The image.
      mask: [H, W] bool, the transparent pixels, or None for those that the image declares.
    """
    if mask is not None:
        image.info.pop("transparency")
    if image.mode.startswith(("I", "F")):  # convert() would clip values above 255
        image = _to_bytes(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    flat = image.convert("RGB")
    if mask is not None:
        flat.paste("white", mask=Image.fromarray(mask))
    return flat


def _to_bytes(image: Image.Image) -> Image.Image:
    """Converts 16- or 32-bit pixels to 8 bits.

    White is 65,535 in integer images and the maximum finite pixel value in float images. NaN
    becomes black.
    """
    pixels = np.asarray(image, np.float64)
    if image.mode.startswith("I"):
        white = 65_535
    else:
        pixels = np.nan_to_num(pixels, nan=0.0, posinf=np.inf, neginf=0.0)
        white = max(float(pixels[np.isfinite(pixels)].max(initial=0.0)), 1e-12)
    return Image.fromarray((255 * (pixels / white).clip(0, 1)).round().astype(np.uint8))
