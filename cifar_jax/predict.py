"""Classifies image files with a trained network.

    python -m cifar_jax.predict --workdir runs/cnn3 photo.jpg cat.png

Reads only the run's config and the checkpoint of the epoch that the run reports. Each image is
cropped to its central square and resized to 32x32 pixels; transparent areas become white. Prints
the five most probable classes of each image, or with --json one JSON object for all images. Files
that are not images are listed as errors at the end, and the remaining images are still classified.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

SIZE = 32
TOP = 5
# Images per step. Batches are padded to this size, so that the compilation cache has the program.
BATCH = 16


class Prediction(NamedTuple):
    """A class and its predicted probability, in [0, 1]."""

    name: str
    probability: float


def main(argv: Sequence[str] | None = None) -> int:
    """Prints predictions, and returns the exit code: 1 if there was an error."""
    parser = argparse.ArgumentParser(
        prog="python -m cifar_jax.predict",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="Image files.")
    parser.add_argument(
        "--workdir", type=Path, required=True, help="Workdir of the trained network."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    args = parser.parse_args(argv)
    pictures, failed = {}, {}
    for path in args.images:
        try:
            pictures[path] = load(path)
        except UserError as error:
            failed[path] = str(error)
    try:
        images = list(pictures.values())
        predictions = predict(args.workdir, np.stack(images)) if images else []
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    predicted = dict(zip(pictures, predictions, strict=True))
    print(as_json(predicted, failed) if args.json else table(predicted), end="")
    for error in failed.values():
        print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def load(path: Path) -> np.ndarray:
    """Returns an image's central square, [32, 32, 3] uint8.

    The image may have any mode and size. Its EXIF orientation is applied, and transparent areas
    become white.

    Raises:
      UserError: If the file is not an image, or the image is corrupt or oversized.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (8 * SIZE, 8 * SIZE))  # decode a JPEG at reduced resolution
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):  # convert() would clip values above 255
                upright = _to_bytes(upright)
            white = Image.new("RGBA", upright.size, "white")
            flat = Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large: {error}") from error
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError) as error:  # raised by Pillow for corrupt files
        raise UserError(f"{path} cannot be read: {error}") from error
    return np.asarray(ImageOps.fit(flat, (SIZE, SIZE), Image.Resampling.BICUBIC))


def _to_bytes(image: Image.Image) -> Image.Image:
    """Converts 16- or 32-bit pixels to 8 bits.

    White is 65,535 in integer images and the maximum pixel value in float images.
    """
    pixels = np.asarray(image, np.float64)
    white = 65_535 if image.mode.startswith("I") else max(float(pixels.max()), 1e-12)
    return Image.fromarray((255 * (pixels / white).clip(0, 1)).round().astype(np.uint8))


def predict(workdir: Path, images: np.ndarray) -> list[list[Prediction]]:
    """Returns the TOP most probable classes of each image, in descending order.

    Args:
      workdir: The workdir of the trained network.
      images: [N, 32, 32, 3] uint8.

    Raises:
      UserError: If the folder holds no trained network.
    """
    import jax

    from cifar_jax.engine import make_mesh
    from cifar_jax.evaluate import make_evaluate
    from cifar_jax.run.workdir import is_at_work
    from cifar_jax.runtime import compilation_cache

    compilation_cache.use_users_folder()
    mesh = make_mesh(jax.local_devices()[:1])
    for tries_left in (2, 1, 0):
        try:
            class_names, parts, state = _restore(workdir, mesh)
            break
        except UserError:
            # A run that is still training deletes old checkpoints as it saves new ones.
            if not tries_left or not is_at_work(workdir):
                raise
    count = len(images)
    padded = np.concatenate([images, np.zeros((-count % BATCH, SIZE, SIZE, 3), np.uint8)])
    evaluate = make_evaluate(
        parts.eval_step, padded, np.zeros(len(padded), np.int32), batch_size=BATCH, mesh=mesh
    )
    _, logits = evaluate(state)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)[:count]
    best = np.argsort(-probabilities, axis=1)[:, :TOP]
    return [
        [Prediction(class_names[i], float(row[i])) for i in indices]
        for row, indices in zip(probabilities, best, strict=True)
    ]


def _restore(workdir: Path, mesh: Any) -> tuple[tuple[str, ...], Any, Any]:
    """Returns the class names, the network (experiment.Parts) and the reported epoch's state."""
    import jax
    from ml_collections import ConfigDict

    from cifar_jax import experiment, run_state
    from cifar_jax.engine import replicated
    from cifar_jax.metrics import Metrics
    from cifar_jax.report.read import read_config
    from cifar_jax.run.checkpoint import open_checkpoints

    config = ConfigDict(read_config(workdir), convert_dict=True)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no checkpoint")
    with open_checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        latest = checkpoints.latest_step
        if latest is None:
            raise UserError(f"{workdir} has no checkpoint")
        meta = checkpoints.read_meta(latest)
        if not run_state.is_valid(meta):
            raise UserError(f"the checkpoint {latest} in {workdir} lacks fields")
        info = run_state.dataset_info(meta)
        if info is None:
            raise UserError(f"the checkpoint in {workdir} is older than this command: train again")
        parts = experiment.make_parts(config, info)
        target = jax.eval_shape(lambda: run_state.arrays(parts.init(0), Metrics.empty()))
        best = experiment.make_selection(config).best(meta["rows"])
        step = latest if best is None else best["step"]
        saved, _ = checkpoints.restore(step, target, replicated(mesh))
    return info.class_names, parts, saved["state"]


def table(predicted: dict[Path, list[Prediction]]) -> str:
    """Returns the predictions as text."""
    lines = []
    for path, predictions in predicted.items():
        lines.append(f"{path}\n")
        lines += [f"  {100 * p.probability:6.2f}%  {p.name}\n" for p in predictions]
    return "".join(lines)


def as_json(predicted: dict[Path, list[Prediction]], failed: dict[Path, str]) -> str:
    """Returns {path: {"top5": [{"class", "probability"}]} or {"error"}} as JSON."""
    value = {
        str(path): {"top5": [{"class": p.name, "probability": p.probability} for p in predictions]}
        for path, predictions in predicted.items()
    }
    value |= {str(path): {"error": error} for path, error in failed.items()}
    return json.dumps(value, indent=2) + "\n"


if __name__ == "__main__":
    entry.silence_absl()
    sys.exit(main())
