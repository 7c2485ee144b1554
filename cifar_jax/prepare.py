"""Prepares TFDS files of CIFAR without TensorFlow.

Downloads the official binary archive, or reads it (packed or unpacked) from disk, and writes a
standard TFDS directory. Existing files are kept unless --overwrite is given.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from cifar_jax.data import archive, default_data_dir, prepared, resolve
from cifar_jax.errors import UserError, unknown
from cifar_jax.runtime import entry


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns the exit code: 0, or 1 after an error."""
    args = _parse(argv)
    try:
        for name in args.names:
            if name not in archive.ARCHIVES:
                raise unknown("data set", name, archive.ARCHIVES)
        for name in args.names:
            _prepare(name, resolve(args.data_dir), args.source, args.overwrite)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cifar_jax.prepare", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=" or ".join(archive.ARCHIVES))
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=default_data_dir(),
        help="TFDS directory to write to (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        help="official binary .tar.gz, or the unpacked folder (default: download the archive)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser.parse_args(argv)


def _prepare(name: str, data_dir: Path, source: Path | None, overwrite: bool) -> None:
    found = None if overwrite else prepared.find(name, data_dir)
    if found:
        print(f"{name} is already prepared in {found} (--overwrite rebuilds it)")
    else:
        from cifar_jax.data import builders  # imports TFDS, which takes about a second

        start = time.perf_counter()
        found = builders.prepare(name, data_dir, source, overwrite=overwrite)
        size = sum(file.stat().st_size for file in found.iterdir())
        seconds = time.perf_counter() - start
        counts = (
            f"{sum(files.values()):,} {split}"
            for split, files in archive.ARCHIVES[name].splits.items()
        )
        print(
            f"wrote {' and '.join(counts)} images to {found} ({size / 1e6:.0f} MB, {seconds:.0f} s)"
        )
    print(
        f"to use it, pass: --config.data.name={name} --config.data.dir={shlex.quote(str(data_dir))}"
    )


if __name__ == "__main__":
    entry.run_tool(main, stop_message=b"interrupted; incomplete files will not be used\n")
