"""Plans the training runs of a command line, and logs those that are complete."""

import argparse
import fnmatch
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from benchmarks.harness import ROOT
from benchmarks.published import PUBLISHED
from benchmarks.results import load_config
from cifar_jax import config
from cifar_jax.errors import UserError, unknown
from cifar_jax.run.storage import saved_steps
from cifar_jax.run.summary import write_json
from cifar_jax.run.workdir import what_counts

# The environment variable with the number of runs that share a device; see jobs.py.
SHARING = "CIFAR_JAX_RUNS_ON_DEVICE"


class PlannedRun(NamedTuple):
    """One training run.

    Attributes:
      experiment: The id of the experiment.
      name: The name of its workdir and its log, from the seed, --epochs and --limit.
      settings: The config.
      workdir: The directory that it trains in.
      log: The directory that its log is copied to.
    """

    experiment: str
    name: str
    settings: ConfigDict
    workdir: Path
    log: Path

    @property
    def title(self) -> str:
        """The experiment and the seed, which identify a run of one command."""
        return f"{self.experiment}, seed {self.settings.seed}"


def choose(patterns: list[str]) -> list[str]:
    """Returns the experiments selected by patterns, in the order of the patterns.

    A pattern selects the published experiments that match it, or else the config of that name.

    Raises:
      UserError: If a pattern matches nothing.
    """
    chosen = []
    for pattern in patterns or ["*"]:
        matching = [e for e in sorted(PUBLISHED) if fnmatch.fnmatchcase(e, pattern)]
        if not matching and os.path.isfile(ROOT / "configs" / f"{pattern}.py"):
            matching = [pattern]
        if not matching:
            raise unknown("experiment", pattern, PUBLISHED)
        chosen += matching
    return list(dict.fromkeys(chosen))


def plan(experiments: list[str], args: argparse.Namespace) -> list[PlannedRun]:
    """Returns the runs of experiments in order: all with the first seed, then all with the second.

    Args:
      experiments: The ids of the experiments.
      args: The command's options.
    """
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    return [_make_run(experiment, seed, args) for seed in seeds for experiment in experiments]


def _make_run(experiment: str, seed: int, args: argparse.Namespace) -> PlannedRun:
    settings = load_config(experiment)
    settings.seed, settings.data.dir, settings.data.limit = seed, args.data_dir, args.limit
    # Save checkpoints by time: an epoch may take less time than saving one.
    settings.checkpoint.every_epochs = settings.num_epochs
    settings.checkpoint.every_minutes = 2.0
    name = f"seed{seed}"
    if args.epochs is not None and args.epochs != settings.num_epochs:
        settings.num_epochs = args.epochs
        name += f"_{args.epochs}epochs"
    if args.limit:
        name += f"_{args.limit}images"
    folder = Path(experiment) / name
    return PlannedRun(experiment, name, settings, args.runs / folder, args.out / folder)


def without_weights(runs: list[PlannedRun]) -> dict[str, str]:
    """Returns the runs that cannot start because their pretrained weights cannot be downloaded.

    Weights that are chosen by name are downloaded unless they are on this machine. A run that has a
    checkpoint or is complete needs none.

    Returns:
      {title of a run: why its weights cannot be downloaded}.
    """
    reasons: dict[tuple[str, str], str] = {}
    skipped = {}
    for run in runs:
        source = run.settings.transfer.weights, run.settings.model.name
        if not source[0] or saved_steps(run.workdir / "checkpoints"):
            continue
        if (run.log / "summary.json").exists() or (run.workdir / "summary.json").exists():
            continue
        if source not in reasons:
            reasons[source] = _why_unavailable(*source)
        if reasons[source]:
            skipped[run.title] = reasons[source]
    return skipped


def _why_unavailable(weights: str, model_name: str) -> str:
    """Returns why pretrained weights cannot be downloaded, or "" if that is not the problem."""
    from cifar_jax import transfer  # imported here because it takes a second

    try:
        transfer.find(weights, model_name)
    except transfer.Unavailable as error:
        return str(error)
    except UserError:  # the run reports it
        pass
    return ""


def is_done(run: PlannedRun) -> bool:
    """Returns whether a run is complete; copies its log if only the workdir is.

    Raises:
      UserError: If the log has different settings, for example because the config has changed.
    """
    if (run.log / "summary.json").exists():
        differing = _differing(run.log, run.settings)
        if differing:
            raise UserError(
                f"{run.log} holds a log with different settings: {'; '.join(differing)}. Remove it "
                "to run the experiment again"
            )
    elif _is_complete(run.workdir, run.settings):
        copy_log(run)
    else:
        return False
    print(f"already complete: {run.log}", flush=True)
    return True


def _is_complete(workdir: Path, settings: ConfigDict) -> bool:
    """Returns whether a workdir holds the complete run of a config."""
    # A workdir with different settings is left to train(), which resumes it or reports them.
    return (workdir / "summary.json").exists() and not _differing(workdir, settings)


def _differing(folder: Path, settings: ConfigDict) -> list[str]:
    """Returns the settings in which a log or workdir differs from a config, as messages."""
    written = config.flatten_json(settings)
    logged = written | config.flatten(json.loads((folder / "config.json").read_text()))
    return [
        f"{name} is {logged[name]!r} in the log and {value!r} now"
        for name, value in what_counts(written).items()
        if value != logged[name] and not (name == "dtype" and value == "auto")
    ]


def copy_log(run: PlannedRun) -> None:
    """Copies the log of a completed run; summary.json is copied last because it marks the end."""
    run.log.mkdir(parents=True, exist_ok=True)
    settings = json.loads((run.workdir / "config.json").read_text())
    settings["data"]["dir"] = ""  # the path is private to this machine
    write_json(run.log / "config.json", settings)
    shutil.copy(run.workdir / "metrics.csv", run.log / "metrics.csv")
    summary = json.loads((run.workdir / "summary.json").read_text())
    sharing = int(os.environ.get(SHARING, 1))
    if sharing > 1:  # the run's times are longer than by itself
        summary["runs_on_device"] = sharing
    write_json(run.log / "summary.json", summary)
