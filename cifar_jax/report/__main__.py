"""Writes an HTML report of one or more runs.

    python -m cifar_jax.report runs/cnn3 --out report.html
    python -m cifar_jax.report runs/cnn3 runs/resnet18 --out comparison.html

One workdir gives a page about the run; several give a page that compares the runs. Runs that are
still training or were interrupted are shown up to their latest epoch. The page works offline.
Example images are read from the run's data set, in --data_dir or the folder that the run used.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page, and returns the exit code: 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m cifar_jax.report",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "workdirs", nargs="+", type=Path, metavar="WORKDIR", help="Folders of runs."
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="HTML file to write.")
    parser.add_argument("--data_dir", help="Folder of the data set, which example images need.")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FILE",
        help="TOML file of published results; default: the checkout's benchmarks/published.toml.",
    )
    args = parser.parse_args(argv)
    from cifar_jax.report import comparison, examples, page, published, read, run_page

    try:
        # List each folder once, even if it is given under several paths.
        folders = {folder.resolve(): folder for folder in args.workdirs}
        runs = [read.read(folder) for folder in folders.values()]
        file = args.published or published.FILE
        known = published.read(file) if args.published or file.exists() else {}
        note = ""
        if len(runs) == 1:
            images, note = examples.load(runs[0], args.data_dir)
            html = run_page.of_run(runs[0], published.of_run(runs[0], known), images, note)
        else:
            html = comparison.of_runs(runs, [published.of_run(run, known) for run in runs])
        page.write(html, args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if note:
        print(note, file=sys.stderr)
    print(f"{args.out}: {len(html) / 1e6:.1f} MB; open it in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
