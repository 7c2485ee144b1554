import io
import os
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from cifar_jax import image_file
from cifar_jax.errors import UserError


def picture(mode, size=(48, 64)):
    rng = np.random.default_rng(0)
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(rng.integers(0, 2**16, size).astype(dtype))
    return Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "I;16", "I", "F"])
def test_images_of_every_mode_are_read(tmp_path, mode):
    path = tmp_path / ("picture.tiff" if mode in ("CMYK", "LA", "I", "F") else "picture.png")
    picture(mode).save(path)
    pixels = image_file.load(path)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8 and pixels.std() > 5


def test_transparent_areas_become_white(tmp_path):
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (image_file.load(tmp_path / "a.png") == 255).all()


def test_the_central_square_is_taken_after_orientation(tmp_path):
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 200
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # rotated camera
    image.rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
    assert (image_file.load(tmp_path / "a.png") == 200).all()


def test_large_jpeg_is_read(tmp_path):
    picture("RGB", (3000, 4000)).save(tmp_path / "a.jpg", quality=50)
    assert image_file.load(tmp_path / "a.jpg").shape == (32, 32, 3)


def test_files_that_are_not_images_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("not an image")
    picture("RGB").save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    for name, message in (
        ("a.txt", "is not an image"), ("half.png", "cannot be read"),
        ("empty.png", "is not an image"),
        ("none.png", "does not exist"), (".", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            image_file.load(tmp_path / name)


def png(depth, color, key, pixels, size=None):
    """Returns a PNG without an alpha channel, in which one color is transparent.

    Args:
      depth: Bits per value.
      color: PNG's color type: 0 for gray, 2 for RGB.
      key: The transparent color, a value per channel.
      pixels: Colors of a row, which is repeated.
      size: The width and height in the header, by default those of the pixels.
    """

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    bits = "".join(f"{value:0{depth}b}" for pixel in pixels for value in pixel)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    size = size or len(pixels)
    header = struct.pack(">IIBBBBB", size, size, depth, color, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", struct.pack(f">{len(key)}H", *key))]
    parts += [(b"IDAT", zlib.compress(row * len(pixels))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("depth", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)]
)
def test_the_transparent_color_of_a_png_becomes_white(tmp_path, depth, channels):
    """The opaque half differs from the transparent color only in the last bit of one channel."""
    key = {1: 0, 2: 2, 4: 6, 8: 70, 16: 0x1234}[depth]
    other = (*(channels - 1) * (key,), key + 1)
    path = tmp_path / "a.png"
    path.write_bytes(png(depth, 2 if channels == 3 else 0, channels * (key,),
                         16 * [channels * (key,)] + 16 * [other]))  # fmt: skip
    pixels = image_file.load(path)
    assert (pixels[:, :12] == 255).all()
    expected = [value * 255 // (2**depth - 1) for value in other]
    assert (np.abs(pixels[:, 20:].astype(int) - expected) <= 1).all()


# Exif with an orientation of 6 and, as some cameras write it, a value of a different type than the
# standard's: (tag, type, count, value).
ODD_TAGS = {
    "none": (),
    "signed exposure bias": ((0x9201, 10, 1, struct.pack("<ii", -1, 3)),),
    "negative short": ((0x0103, 8, 1, struct.pack("<hxx", -1)),),
    "negative byte": ((0x0201, 6, 1, struct.pack("<bxxx", -5)),),
    "long for a short": ((0x0100, 4, 1, struct.pack("<I", 2**32 - 1)),),
    "negative long": ((0x0100, 9, 1, struct.pack("<i", -2)),),
}


def exif(tags):
    """Returns an Exif block whose orientation is 6, with further tags."""
    entries, extra = [(0x0112, 3, 1, struct.pack("<Hxx", 6)), *tags], b""
    end = 8 + 2 + 12 * len(entries) + 4
    directory = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        if len(value) > 4:
            value, extra = struct.pack("<I", end + len(extra)), extra + value
        directory += struct.pack("<HHI", tag, kind, count) + value
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + bytes(4) + extra


@pytest.mark.parametrize("tags", ODD_TAGS.values(), ids=ODD_TAGS)
def test_photos_with_odd_exif_values_are_turned_upright(tmp_path, tags):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32] = 200  # the upper half
    Image.fromarray(pixels).rotate(90).save(tmp_path / "a.jpg", exif=exif(tags))
    found = image_file.load(tmp_path / "a.jpg")
    assert (np.abs(found[:14].astype(int) - 200) < 9).all() and (found[18:] < 9).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(tmp_path, orientation):
    from PIL import ImageOps

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    image = Image.fromarray(pixels)
    tags = image.getexif()
    tags[ExifTags.Base.Orientation] = orientation
    image.save(tmp_path / "a.png", exif=tags)
    with Image.open(tmp_path / "a.png") as saved:
        expected = np.asarray(ImageOps.exif_transpose(saved))
    np.testing.assert_array_equal(image_file.load(tmp_path / "a.png"), expected)


def test_only_files_of_known_formats_are_opened(tmp_path):
    for kind in ("eps", "dds", "ico", "pcx", "tga", "sgi"):
        picture("RGB").save(tmp_path / f"a.{kind}")
        with pytest.raises(UserError, match=r"is not an image in PNG, JPEG, .* format"):
            image_file.load(tmp_path / f"a.{kind}")
    for kind in ("jpg", "webp", "avif", "gif", "bmp", "tiff", "ppm", "mpo"):
        if kind != "avif" or "AVIF" in image_file._formats():
            picture("RGB").save(tmp_path / f"a.{kind}")
            assert image_file.load(tmp_path / f"a.{kind}").std() > 5


def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path.__class__("/dev/zero")):
        with pytest.raises(UserError, match="it is not a regular file"):
            image_file.load(path)


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 0, (0,), 8 * [(0,)], size=60_000))
    with pytest.raises(UserError, match="is too large"):
        image_file.load(path)


def test_pixels_that_are_not_finite_are_read(tmp_path):
    pixels = np.full((32, 32), 0.5, np.float32)
    pixels[:, :8], pixels[:, 8:16], pixels[:, 24:] = np.nan, np.inf, 1.0
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    row = image_file.load(tmp_path / "a.tiff")[0, ::8, 0]
    np.testing.assert_array_equal(row, [0, 255, 128, 255])


def mutated(data, rng):
    """Returns a file with a few changed, inserted, deleted or repeated bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data))
        kind = rng.randrange(5)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            data[at : at + rng.randrange(9)] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 3:
            data[at : at + 4] = rng.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"))
        else:
            del data[at + 1 : at + (len(data) if rng.random() < 0.1 else rng.randrange(1, 40))]
    return bytes(data)


def fuzz(kind, count, folder, seed=0):
    """Reads mutated pictures of one format: each gives pixels or a UserError."""
    rng, path = random.Random(f"{kind} {seed}"), folder / f"a.{kind}"
    sources = []
    for mode in {"gif": ("P", "L"), "jpg": ("RGB", "CMYK")}.get(kind, ("RGB", "RGBA")):
        if (kind, mode) == ("bmp", "RGBA"):
            mode = "P"
        file = io.BytesIO()
        # Pillow leaves the tags unchanged only in formats that store them as one block.
        tags = () if kind in ("tiff", "avif") else ODD_TAGS["negative byte"]
        options = {} if kind in ("gif", "bmp") else {"exif": exif(tags)}
        picture(mode, (9, 12)).save(file, "JPEG" if kind == "jpg" else kind.upper(), **options)
        sources.append(file.getvalue())
    for _ in range(count):
        path.write_bytes(mutated(rng.choice(sources), rng))
        try:
            pixels = image_file.load(path)
        except UserError as error:
            assert len(str(error)) < 400 and "\n" not in str(error)
        else:
            assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "tiff", "bmp", "avif"])
def test_mutated_files_give_pixels_or_an_error(tmp_path, kind):
    if kind.upper() in Image.SAVE or kind == "jpg":
        fuzz(kind, 100, tmp_path)
