"""Exports a trained network to a file that other programs read.

    python -m cifar_jax.export --workdir runs/cnn3 --format safetensors
    python -m cifar_jax.export --workdir runs/cnn3 --format stablehlo

The network is that of the epoch that the run reports; the run has to be complete. safetensors is a
file of named arrays, without code, whose metadata describe the network, its classes, how pixels are
normalized and how many views of an image are averaged. `python -m cifar_jax.predict --weights FILE`
reads it. stablehlo is a program from images to logits, which holds the parameters and runs with JAX
but without this package; FILE.json next to it has the classes. docs/export.md has examples of
programs that read the two.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

FORMATS = ("safetensors", "stablehlo")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file, and returns the exit code: 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m cifar_jax.export",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workdir", type=Path, required=True, help="Workdir of the trained network."
    )
    parser.add_argument("--format", choices=FORMATS, required=True, help="Format of the file.")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="File to write; default: WORKDIR/model.FORMAT."
    )
    args = parser.parse_args(argv)
    out = args.out or args.workdir / f"model.{args.format}"
    try:
        if args.out or os.path.isdir(args.workdir):
            _check_out(out, args.format)
        print(_export(args.workdir, args.format, out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check_out(path: Path, suffix: str) -> None:
    """Raises UserError if a file cannot be written, before time is spent on loading the network."""
    if path.suffix != f".{suffix}" or path.is_dir():  # so as not to overwrite a file of a run
        raise UserError(f"--out must end in .{suffix} and not be a folder, got {path}")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: {folder} is read-only")


def _export(workdir: Path, file_format: str, out: Path) -> str:
    """Writes the file, and returns a line that describes it."""
    # Imported here because they import jax, which takes a second; invalid arguments fail sooner.
    from cifar_jax.trained import network_file, stablehlo
    from cifar_jax.trained.restore import from_workdir

    network = from_workdir(workdir)
    if network.progress:
        raise UserError(
            f"the run in {workdir} is not complete ({network.progress}): train it to its end first"
        )
    write = network_file.write if file_format == "safetensors" else stablehlo.write
    try:
        write(network, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
    size = out.stat().st_size / 1e6
    return (
        f"{out}: {size:.1f} MB; {network.config.model.name} of epoch {network.epoch}, "
        f"{network.info.num_classes} classes"
    )


if __name__ == "__main__":
    entry.run_tool(main)
