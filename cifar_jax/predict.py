"""Classifies image files with a trained network.

    python -m cifar_jax.predict --workdir runs/cnn3 photo.jpg cat.png
    python -m cifar_jax.predict --weights model.safetensors photo.jpg

The network is that of a run's workdir, or of a safetensors file that `python -m cifar_jax.export`
wrote. From a workdir, one checkpoint is loaded: that of the epoch that the run reports or, if the
run is not complete, of the best or latest epoch so far.

Each image is cropped to its central square and resized to 32x32 pixels; transparent areas become
white. If the run averages several views of each image (augment.views), so do the predictions.
Prints the five most probable classes of each image, or with --json one JSON object for all
images. Files that are not images are listed as errors at the end, and the remaining images are
still classified. Reads PNG, JPEG, WebP, AVIF, GIF, BMP, TIFF and PPM files.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cifar_jax import image_file
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

if TYPE_CHECKING:
    from cifar_jax.trained.restore import Trained

TOP = 5
# Images per step. Batches are padded to this size, so that the compiled program can be reused.
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
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=Path, help="Workdir of the trained network.")
    source.add_argument(
        "--weights", type=Path, metavar="FILE", help="File of an exported network (.safetensors)."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    args = parser.parse_args(argv)
    pictures, failed = {}, {}
    for path in args.images:
        try:
            pictures[path] = image_file.load(path)
        except UserError as error:
            failed[path] = str(error)
    predicted: dict[Path, list[Prediction]] = {}
    try:
        if pictures:
            network = _load(args.workdir, args.weights)
            predictions = predict(network, np.stack(list(pictures.values())))
            predicted = dict(zip(pictures, predictions, strict=True))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(as_json(predicted, failed) if args.json else table(predicted), end="")
    for error in failed.values():
        print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def _load(workdir: Path | None, weights: Path | None) -> "Trained":
    """Loads a network from a workdir or a file, and prints a note if its run is not complete."""
    from cifar_jax.runtime import compilation_cache
    from cifar_jax.trained.network_file import read
    from cifar_jax.trained.restore import from_workdir

    compilation_cache.use_users_folder()
    # os.path.isdir, unlike Path.is_dir, raises no OSError if the path is too long.
    if weights is not None and os.path.isdir(weights):
        raise UserError(f"--weights {weights} is a folder; for the workdir of a run, use --workdir")
    network = read(weights) if workdir is None else from_workdir(workdir)
    if network.progress:
        text = f"the run is not complete; the predictions are from {network.progress}"
        print(f"note: {text}", file=sys.stderr)
    return network


def predict(network: "Trained", images: np.ndarray) -> list[list[Prediction]]:
    """Returns the TOP most probable classes of each image, in descending order.

    Args:
      network: The trained network.
      images: [N, 32, 32, 3] uint8.
    """
    import jax

    from cifar_jax.evaluate import make_evaluate
    from cifar_jax.trained.restore import one_device

    count = len(images)
    padded = np.concatenate([images, np.zeros((-count % BATCH, *images.shape[1:]), np.uint8)])
    labels = np.zeros(len(padded), np.int32)
    evaluate = make_evaluate(
        network.parts.eval_step, padded, labels, batch_size=BATCH, mesh=one_device()
    )
    _, logits = evaluate(network.state)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)[:count]
    best = np.argsort(-probabilities, axis=1)[:, :TOP]
    return [
        [Prediction(network.info.class_names[i], float(row[i])) for i in indices]
        for row, indices in zip(probabilities, best, strict=True)
    ]


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
    entry.run_tool(main)
