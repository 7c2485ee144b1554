"""Compares TPE with random sampling at an equal budget, on the embedded synthetic images.

    python -m benchmarks.search_samplers [--seeds N] [--trials N] [--epochs N] [--limit N]

For each seed and sampler, searches over learning rate, warm-up, schedule, batch size and
augmentation of a small network, without pruning. The first ten trials of TPE are random; they are
the same as the first ten of random sampling with the same seed. Prints means over the seeds: of the
best validation accuracy after half of the trials and after all of them, and of the test accuracy of
the best trial. One line of JSON per search is appended to the file --out. The package optuna is
needed; `make reference` installs it.
"""

import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Record
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry

SAMPLERS = ("tpe", "random")
# Fields that change the program have only a few values, so that few programs are compiled.
SPACE = """
    optim.learning_rate in log(1e-5, 1.0)
    optim.warmup_epochs in uniform(0.0, 2.0)
    optim.schedule in {"constant", "cosine"}
    batch_size in {32, 128}
    augment.ops in {"", "flip|crop(4)"}
"""


def main(argv: list[str]) -> int:
    """Runs the searches, prints a table and returns the exit code."""
    parser = harness.make_parser("search_samplers", __doc__, out=True)
    for name, default, text in (
        ("seeds", 5, "number of searches per sampler"),
        ("trials", 30, "trials per search"),
        ("epochs", 5, "epochs per trial, at least 3"),
        ("limit", 2000, "images of each split"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    args = parser.parse_args(argv[1:])
    try:
        harness.require_packages("optuna")
        harness.check_between("--seeds", args.seeds, 1, 1000)
        harness.check_between("--trials", args.trials, 2, 10_000)
        harness.check_between("--epochs", args.epochs, 3, 1000)
        harness.check_between("--limit", args.limit, 200, harness.MAX_BATCH_SIZE)
        records = []
        with harness.open_output(args.out) as output:
            for seed, sampler in itertools.product(range(args.seeds), SAMPLERS):
                records.append(measure(sampler, seed, args.trials, args.epochs, args.limit))
                harness.append(output, records[-1])
                harness.warn_if_busy(records[-1])
    except (UserError, OSError) as error:
        return harness.reject(error)
    print(table(records))
    return 0


def measure(sampler: str, seed: int, num_trials: int, num_epochs: int, limit: int) -> Record:
    """Runs one search in a temporary folder and returns its record.

    Args:
      sampler: One of SAMPLERS.
      seed: The seed of the sampler and of all trials.
      num_trials: The number of trials.
      num_epochs: The number of epochs of each.
      limit: The number of images of each split.
    """
    # These import jax, so they must come after entry.run.
    from benchmarks.idle import background_load, processor_seconds
    from cifar_jax.config import choose_model, load
    from cifar_jax.run import config_json
    from cifar_jax.runtime.environment import environment
    from cifar_jax.study import queue, result, worker
    from cifar_jax.study.progress import Progress

    config = load(harness.ROOT / "configs" / "quickstart.py")
    choose_model(config, "cnn_small")
    config.update(seed=seed, num_epochs=num_epochs)
    config.data.limit = limit
    config.search.update(space=SPACE, num_trials=num_trials, sampler=sampler, pruner="none")
    before = processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        search = worker.open_search(config, Path(folder) / "search", None)
        with Progress(config.selected_by) as progress:
            worker.work(search, progress)
        trials = search.trials
        best = result.best_of(trials)
        if best is None:
            raise UserError(f"no trial of sampler {sampler}, seed {seed} is complete")
        path = queue.folder_of(search.workdir, best.number) / "summary.json"
        summary = config_json.read_object(path)
    # A trial that diverged or failed counts as an accuracy of 0.
    values = [t.value if t.state.name == "COMPLETE" else 0.0 for t in trials]
    return {
        "sampler": sampler,
        "seed": seed,
        "epochs": num_epochs,
        "limit": limit,
        "space": [*map(str.strip, SPACE.strip().splitlines())],
        "states": [t.state.name for t in trials],
        "best_so_far": list(itertools.accumulate(values, max)),
        "best_values": search.values(best),
        "test_accuracy": summary["test_accuracy"],
        **harness.background(background_load(before, processor_seconds())),
        **environment(),
    }


def table(records: Sequence[Record]) -> str:
    """Formats the means over the seeds as a table."""
    row = "{:<8} {:>6} {:>10} {:>10} {:>10} {:>10}".format
    lines = [row("sampler", "seeds", "half way", "at the end", "deviation", "test")]
    for sampler in SAMPLERS:
        chosen = [r for r in records if r["sampler"] == sampler]
        ends = [r["best_so_far"][-1] for r in chosen]
        halves = [r["best_so_far"][(len(r["best_so_far"]) - 1) // 2] for r in chosen]
        deviation = statistics.stdev(ends) if len(ends) > 1 else 0.0
        means = statistics.mean(halves), statistics.mean(ends), deviation
        tests = statistics.mean(r["test_accuracy"] for r in chosen)
        lines.append(row(sampler, len(chosen), *(f"{v:.2%}" for v in (*means, tests))))
    return "\n".join(lines)


if __name__ == "__main__":
    entry.run(main, stop_message=b"stopped; complete searches have been recorded\n")
