"""Draws a contact sheet that shows each operation applied to 16 training images.

    python -m cifar_jax.augment sheet.png --ops "flip|crop(4)"

The first row shows the original images. Below it is one row for each operation or, with --ops,
a single row.
"""

import argparse
import io
import os
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageDraw

from cifar_jax import augment, data
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

# The arguments are chosen to make each effect easy to see.
LINES = (
    "flip",
    "vertical_flip",
    "alternating_flip",
    "crop(4)",
    "crop(4, 'reflect')",
    "crop(4, 'edge')",
    "translate(4)",
    "shift(0.2, 0.2)",
    "shift(0.2, 0.2, fill='constant')",
    "rotation(30)",
    "rotation(30, fill='reflect')",
    "rotation(30, 'nearest', 'constant')",
    "shear(30)",
    "zoom(0.4)",
    "zoom(0.4, fill='wrap')",
    "affine(15, 0.2, 0.2, 0.2, 0.2)",
    "channel_shift(60)",
    "brightness(0.4, 1.6)",
    "contrast(0.2, 1.8)",
    "saturation(0, 2)",
    "sharpness(0, 4)",
    "autocontrast(1.0)",
    "equalize(1.0)",
    "invert(1.0)",
    "posterize(2, 1.0)",
    "solarize(128, 1.0)",
    "cutout(16)",
    "cutout(8, 3, fill=0)",
    "random_erasing(1.0)",
    "random_erasing(1.0, value='random')",
    "randaugment",
    "autoaugment",
    "mixup(1.0)",
    "cutmix(1.0)",
)
NUM_IMAGES = 16
_SCALE, _GAP, _LABEL = 3, 4, 240


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns the exit code: 0 or 1 (error)."""
    args = _parse(argv)
    try:
        if not 0 <= args.seed < 2**32:
            raise UserError(f"--seed must be from 0 to 4294967295, got {args.seed}")
        if args.ops is not None and not args.ops.strip():
            raise UserError('--ops must contain an operation, as in --ops "flip|crop(4)"')
        augment.check(args.ops or "")
        _check_extension(args.out)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if args.out.is_dir() or not os.access(args.out.parent, os.W_OK):
            raise UserError(f"{args.out} cannot be written")
        print("drawing (about 30 s for all operations)", flush=True)
        images = data.load(args.data, data_dir=args.data_dir).train.images[:NUM_IMAGES]
        lines = LINES if args.ops is None else (args.ops,)
        rows = {"original": images} | {line: apply(line, images, args.seed) for line in lines}
        draw(rows).save(args.out)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {len(rows)} rows of {len(images)} images to {args.out}")
    return 0


def _check_extension(path: Path) -> None:
    """Raises UserError if Pillow cannot write the format of a file, before time is spent on it."""
    try:
        kind = Image.registered_extensions()[path.suffix.lower()]
        Image.new("RGB", (1, 1)).save(io.BytesIO(), kind)
    except (KeyError, OSError, ValueError):
        raise UserError(f"{path} needs an image file extension, as in {path}.png") from None


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cifar_jax.augment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT.png", help="image file to write")
    parser.add_argument(
        "--ops",
        metavar="OPS",
        help="operations to draw, as in config.augment.ops or config.augment.mix (default: all)",
    )
    parser.add_argument(
        "--data",
        help="cifar10, cifar100 or synthetic (default: cifar10 with --data_dir, else synthetic)",
    )
    parser.add_argument("--data_dir", help="TFDS directory of the data set")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    args = parser.parse_args(argv)
    args.data = args.data or ("cifar10" if args.data_dir else "synthetic")
    return args


def apply(line: str, images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Applies the operations or the mix of `line` to images [B, H, W, 3]; returns uint8."""
    key = jax.random.key(seed)
    if augment.is_mix(line):
        out = jax.jit(augment.parse_mix(line))(key, images).images
    else:
        index = np.arange(len(images), dtype=np.int32)
        out = jax.jit(augment.parse(line))(key, images, index, np.int32(0))
    return np.asarray(out).round().astype(np.uint8)


def draw(rows: dict[str, np.ndarray]) -> Image.Image:
    """Returns a sheet with one labeled row per entry; `rows` maps labels to [B, H, W, 3] uint8."""
    count, height, width, _ = next(iter(rows.values())).shape
    across, down = width * _SCALE + _GAP, height * _SCALE + _GAP
    sheet = Image.new("RGB", (_LABEL + count * across, _GAP + len(rows) * down), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (label, images) in enumerate(rows.items()):
        top = _GAP + i * down
        pen.text((_GAP, top + down // 2), label, fill="black", anchor="lm", font_size=13)
        for j, image in enumerate(images):
            large = Image.fromarray(image).resize(
                (width * _SCALE, height * _SCALE), Image.Resampling.NEAREST
            )
            sheet.paste(large, (_LABEL + j * across, top))
    return sheet


if __name__ == "__main__":
    entry.run_tool(main)
