"""Prepares TFDS files of CIFAR without TensorFlow.

Downloads the official binary archive, or reads it (packed or unpacked) from disk, and writes a
standard TFDS directory. Existing files are kept unless --overwrite is given.
"""

import argparse
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from cifar_jax.errors import UserError, unknown
from cifar_jax.runtime import entry
from cifar_jax.runtime.signals import handled


class _Stopped(BaseException):
    """Raised on a signal. It is not an Exception, so that only clean-up code catches it."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.exit_code = 128 + signum


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns the exit code: 0, 1 (error) or 128 + signal (interrupted)."""
    try:
        with _stopping_on_signals():
            _run(argv)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except _Stopped as e:
        print("interrupted; incomplete files have been removed", file=sys.stderr)
        return e.exit_code
    return 0


def _run(argv: list[str] | None) -> None:
    # Imported here because numpy takes a fraction of a second, in which a signal may arrive.
    from cifar_jax import data
    from cifar_jax.data import archive

    args = _parse(argv)
    for name in args.names:
        if name not in archive.ARCHIVES:
            raise unknown("data set", name, archive.ARCHIVES)
    data_dir = data.resolve(args.data_dir)
    for name in args.names:
        _prepare(name, data_dir, args.source, args.overwrite)


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Raises _Stopped on the first SIGTERM, SIGINT or SIGHUP, so that incomplete files are removed.

    A second signal ends the process immediately.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        for s in signals:
            signal.signal(s, signal.SIG_DFL)
        if signum == signal.SIGHUP:  # often sent twice, by the kernel and by the shell
            signal.signal(signum, signal.SIG_IGN)
        raise _Stopped(signum)

    signals = handled()
    previous = {s: signal.signal(s, stop) for s in signals}
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cifar_jax.prepare", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="cifar10 or cifar100")
    parser.add_argument(
        "--data_dir",
        type=Path,
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
    from cifar_jax.data import archive, prepared

    with prepared.searching(data_dir):
        directory = None if overwrite else prepared.find(name, data_dir)
    if directory:
        print(f"{name} is already prepared in {directory} (--overwrite rebuilds it)")
    else:
        from cifar_jax.data import builders  # imports TFDS, which takes about a second

        start = time.perf_counter()
        directory = builders.prepare(name, data_dir, source, overwrite=overwrite)
        size = sum(file.stat().st_size for file in directory.iterdir())
        seconds = time.perf_counter() - start
        counts = (
            f"{sum(files.values()):,} {split}"
            for split, files in archive.ARCHIVES[name].splits.items()
        )
        print(
            f"wrote {' and '.join(counts)} images to {directory} "
            f"({size / 1e6:.0f} MB, {seconds:.0f} s)"
        )
    print(
        f"to use it, pass: --config.data.name={name} --config.data.dir={shlex.quote(str(data_dir))}"
    )


if __name__ == "__main__":
    entry.run_tool(main, stop_message=b"interrupted; incomplete files will not be used\n")
