"""Classifies image files with a trained network.

    python -m cifar_jax.predict --workdir runs/cnn3 photo.jpg cat.png

Reads only the run's config and one checkpoint: that of the epoch that the run reports or, if the
run is not complete, of the best or latest epoch so far. Each image is cropped to its central square
and resized to 32x32 pixels; transparent areas become white. Prints the five most probable classes
of each image, or with --json one JSON object for all images. Files that are not images are listed
as errors at the end, and the remaining images are still classified. Reads PNG, JPEG, WebP, AVIF,
GIF, BMP, TIFF and PPM files.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar_jax import image_file
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

TOP = 5
# Images per step. Batches are padded to this size, so that the compiled program can be reused.
BATCH = 16


class Prediction(NamedTuple):
    """A class and its predicted probability, in [0, 1]."""

    name: str
    probability: float


class Answer(NamedTuple):
    """The predictions for some images.

    Attributes:
      predictions: The TOP most probable classes of each image, in descending order.
      note: Which epoch they come from if the run is not complete, otherwise "".
    """

    predictions: list[list[Prediction]]
    note: str = ""


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
            pictures[path] = image_file.load(path)
        except UserError as error:
            failed[path] = str(error)
    try:
        images = list(pictures.values())
        answer = predict(args.workdir, np.stack(images)) if images else Answer([])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if answer.note:
        print(f"note: {answer.note}", file=sys.stderr)
    predicted = dict(zip(pictures, answer.predictions, strict=True))
    print(as_json(predicted, failed) if args.json else table(predicted), end="")
    for error in failed.values():
        print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def predict(workdir: Path, images: np.ndarray) -> Answer:
    """Classifies images.

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
            class_names, parts, state, note = _restore(workdir, mesh)
            break
        except UserError:
            # A run that is still training deletes old checkpoints as it saves new ones.
            if not tries_left or is_at_work(workdir) is False:
                raise
            time.sleep(0.2)
    count = len(images)
    padded = np.concatenate([images, np.zeros((-count % BATCH, *images.shape[1:]), np.uint8)])
    evaluate = make_evaluate(
        parts.eval_step, padded, np.zeros(len(padded), np.int32), batch_size=BATCH, mesh=mesh
    )
    _, logits = evaluate(state)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)[:count]
    best = np.argsort(-probabilities, axis=1)[:, :TOP]
    predictions = [
        [Prediction(class_names[i], float(row[i])) for i in indices]
        for row, indices in zip(probabilities, best, strict=True)
    ]
    return Answer(predictions, note)


def _restore(workdir: Path, mesh: Any) -> tuple[tuple[str, ...], Any, Any, str]:
    """Returns the class names, the network (experiment.Parts), a state, and the note about it.

    The state is that of the reported epoch or, if the run is not complete, of the best or latest
    epoch so far.
    """
    import jax

    from cifar_jax import experiment, run_state
    from cifar_jax.config import completed
    from cifar_jax.engine import replicated
    from cifar_jax.metrics import Metrics
    from cifar_jax.report.read import read_config
    from cifar_jax.run.checkpoint import open_checkpoints

    config = completed(read_config(workdir))
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no checkpoint")
    with open_checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        latest = checkpoints.latest_step
        if latest is None:
            raise UserError(f"{workdir} has no checkpoint")
        meta = checkpoints.read_meta(latest)
        if not run_state.is_valid(meta):
            raise UserError(f"the checkpoint of step {latest} in {workdir} lacks required fields")
        info = run_state.dataset_info(meta)
        if info is None:
            raise UserError(
                f"an older version of cifar_jax wrote the checkpoint in {workdir}: train again"
            )
        parts = experiment.make_parts(config, info)
        target = jax.eval_shape(lambda: run_state.arrays(parts.init(0), Metrics.empty()))
        best = experiment.make_selection(config).best(meta["rows"])
        step = latest if best is None else best["step"]
        saved, _ = checkpoints.restore(step, target, replicated(mesh))
    note = "" if (workdir / "summary.json").exists() else _note(config, meta["rows"], best, step)
    return info.class_names, parts, saved["state"], note


def _note(config: Any, rows: Sequence[dict[str, Any]], best: dict | None, step: int) -> str:
    """Returns which state of a run that is not complete the predictions come from."""
    of_all = f"of {config.num_epochs}"
    if best is not None:
        when = f"epoch {best['epoch']} {of_all}, the best so far"
    elif rows and rows[-1]["step"] == step:
        when = f"epoch {rows[-1]['epoch']} {of_all}"
    else:
        when = f"step {step:,}, in epoch {len(rows) + 1} {of_all}"
    return f"the run is not complete; the predictions are from {when}"


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
