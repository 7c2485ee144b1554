"""The front door of reports.

    python -m cifar_jax.report runs/cnn3 --out report.html
    python -m cifar_jax.report runs/cnn3 runs/resnet18 --out comparison.html

One workdir gives a page about the run, several a page that compares them; runs that still go on, or
stopped on their way, are shown as far as they came. The page needs no network. Example images are
those of the run's data set, from the folder that the run had or --data_dir.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit code, 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m cifar_jax.report",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="of the page")
    parser.add_argument("--data_dir", help="of the example images")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FILE",
        help="TOML file of published results; by default that of the checkout, where there is one",
    )
    args = parser.parse_args(argv)
    from cifar_jax.report import examples, page, published, read

    try:
        # Each folder once, whatever it is called.
        folders = {folder.resolve(): folder for folder in args.workdirs}
        runs = [read.read(folder) for folder in folders.values()]
        file = args.published or published.FILE
        known = published.read(file) if args.published or file.exists() else {}
        note = ""
        if len(runs) == 1:
            images, note = examples.load(runs[0], args.data_dir)
            html = page.of_run(runs[0], published.of_run(runs[0], known), images, note)
        else:
            html = page.of_runs(runs, [published.of_run(run, known) for run in runs])
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
