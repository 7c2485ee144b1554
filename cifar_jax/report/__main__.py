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
from typing import Any

from cifar_jax import config
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

# A checkout has published results, and the config files that define a full run. An installed
# package has neither, so its reports omit published results.
_CHECKOUT = Path(__file__).resolve().parents[2]
_PUBLISHED = _CHECKOUT / "benchmarks" / "published.toml"


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
    parser.add_argument("--data_dir", help="Folder of the data set, for example images.")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FILE",
        default=_PUBLISHED if _PUBLISHED.is_file() else None,
        help="TOML file of published results; default: the checkout's benchmarks/published.toml.",
    )
    args = parser.parse_args(argv)
    from cifar_jax.report import comparison, examples, page, published, read, run_page

    try:
        page.check_out(args.out)
        # List each folder once, even if it is given under several paths.
        folders = {folder.resolve(): folder for folder in args.workdirs}
        runs = [read.read(folder) for folder in folders.values()]
        known = published.read(args.published) if args.published else {}
        written = [_written(run.config["experiment"]) for run in runs]
        results = [published.of_run(run, known, w) for run, w in zip(runs, written, strict=True)]
        note = ""
        if len(runs) == 1:
            images, note = examples.load(runs[0], args.data_dir)
            html = run_page.of_run(runs[0], results[0], images, note)
        else:
            html = comparison.of_runs(runs, results, written)
        page.write(html, args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in (note, *(note for run in runs for note in run.notes)):
        if line:
            print(f"note: {line}", file=sys.stderr)
    print(f"{args.out}: {len(html) / 1e6:.1f} MB; open it in a browser")
    return 0


def _written(experiment: str) -> dict[str, Any]:
    """Returns the settings of an experiment's config file, or {} if there is no such file."""
    # The name comes from a workdir: as a path, it could lead out of configs/.
    for path in (_CHECKOUT / "configs").rglob("*.py"):
        if config.experiment_name(path) == experiment:
            return config.flatten_json(config.load_complete(path))
    return {}


if __name__ == "__main__":
    entry.run_tool(main)
