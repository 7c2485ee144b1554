"""Prepares TFDS files of CIFAR without TensorFlow.

Downloads the official binary archive, or reads it (or the folder that it unpacks to) from disk,
and writes a standard TFDS directory. Whatever is there already is kept.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from cifar_jax.data import archive, prepared
from cifar_jax.errors import UserError, unknown


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 after an error."""
    args = _parse(argv)
    try:
        for name in args.names:
            if name not in archive.ARCHIVES:
                raise unknown("data set", name, archive.ARCHIVES)
        for name in args.names:
            _prepare(name, args.data_dir.expanduser(), args.source, args.overwrite)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing half written is taken for prepared", file=sys.stderr)
        return 130
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cifar_jax.prepare", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=" or ".join(archive.ARCHIVES))
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=prepared.default_data_dir(),
        help="TFDS directory to write to (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        help="official binary .tar.gz, or a folder with its files (default: download it)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there already")
    return parser.parse_args(argv)


def _prepare(name: str, data_dir: Path, source: Path | None, overwrite: bool) -> None:
    found = None if overwrite else prepared.find(name, data_dir)
    if found:
        print(f"{name} is already prepared in {found} (--overwrite makes it anew)")
    else:
        from cifar_jax.data import builders  # imports TFDS, which takes a second

        start = time.perf_counter()
        found = builders.prepare(name, data_dir, source, overwrite=overwrite)
        size = sum(file.stat().st_size for file in found.iterdir())
        seconds = time.perf_counter() - start
        counts = (
            f"{sum(files.values()):,} {split}"
            for split, files in archive.ARCHIVES[name].splits.items()
        )
        print(f"{' and '.join(counts)} images in {found} ({size / 1e6:.0f} MB, {seconds:.0f} s)")
    print(f"use it with: --config.data.name={name} --config.data.dir={shlex.quote(str(data_dir))}")


if __name__ == "__main__":
    sys.exit(main())
