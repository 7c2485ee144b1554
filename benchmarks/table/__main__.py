"""Writes the tables of README.md and docs/ from the logs in benchmarks/results/.

    python -m benchmarks.table

A test fails if the tables differ from the logs.
"""

from benchmarks import harness
from benchmarks.harness import ROOT
from benchmarks.table import accuracy, gpu_program, headline, scaling, speed, speedrun
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

# The tables of each file, by the name in their markers.
FILES = {
    "README.md": {"headline": headline.headline, "accuracy": accuracy.overview},
    "docs/results.md": {
        "complete": accuracy.complete,
        "shortened": accuracy.shortened,
        "not_run": accuracy.not_run,
        "throughput": speed.throughput,
        "versus_torch": speed.versus_torch,
        "epoch": speed.epoch,
        "augmentation": speed.augmentation,
    },
    "docs/performance.md": {
        "cuda_graphs": speed.cuda_graphs,
        "gpu_program": gpu_program.gpu_program,
    },
    "docs/speedruns.md": {
        "speedruns": speedrun.complete,
        "speedrun_programs": speedrun.programs,
        "speedrun_trials": speedrun.trials,
    },
    "docs/scaling.md": {
        "scaling_networks": scaling.networks,
        "scaling_all_reduces": scaling.all_reduces,
        "scaling_weak": scaling.weak,
        "scaling_strong": scaling.strong,
        "scaling_limits": scaling.limits,
    },
}


def main(argv: list[str] | None = None) -> int:
    """Rewrites every file of FILES and returns the exit code."""
    harness.make_parser("table", __doc__).parse_args(argv and argv[1:])
    for name in FILES:
        path = ROOT / name
        try:
            before = path.read_text()
            after = rewritten(before, name)
            if after != before:
                path.write_text(after)
        except (UserError, OSError) as error:
            return harness.reject(error)
        print(f"{path}: {'unchanged' if after == before else 'rewritten'}")
    return 0


def rewritten(text: str, name: str) -> str:
    """Returns the content of a file with all of its tables rebuilt.

    Args:
      text: The file's current content.
      name: A key of FILES.

    Raises:
      UserError: If a table's markers are missing.
    """
    to_root = "../" * name.count("/")
    for table, make in FILES[name].items():
        begin, end = f"<!-- table:{table} -->\n", f"<!-- end:{table} -->"
        if begin not in text or end not in text:
            raise UserError(f"{name} lacks {begin.strip()} or {end}")
        head, _, rest = text.partition(begin)
        built = make().replace("](", f"]({to_root}")  # links are relative to the root
        text = f"{head}{begin}{built}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    entry.run_tool(main)
