"""Trains one run, from its config to its summary."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from cifar_jax import experiment, final_evaluation
from cifar_jax.config import flatten_json
from cifar_jax.data import Dataset
from cifar_jax.errors import UserError
from cifar_jax.loop import Diverged
from cifar_jax.run import metrics_csv, predictions, summary, trackers, workdir
from cifar_jax.run.checkpoint import Checkpoints, open_checkpoints
from cifar_jax.run.shared_checkpoints import SharedCheckpoints
from cifar_jax.run.storage import saved_steps, writing
from cifar_jax.run.writers import Writer
from cifar_jax.runtime import distributed
from cifar_jax.runtime.environment import environment
from cifar_jax.runtime.profile import traced
from cifar_jax.runtime.signals import catch_signals
from cifar_jax.runtime.startup import Startup
from cifar_jax.trainer import Trainer


def train(
    config: ConfigDict,
    folder: str | Path,
    *,
    dataset: Dataset | None = None,
    mesh: jax.sharding.Mesh | None = None,
    deadline: float = math.inf,
    startup: Startup | None = None,
    profile: bool = False,
    all_parameters: bool = False,
    create: Callable[..., experiment.Experiment] | None = None,
    writers: Sequence[Writer] = (),
) -> dict[str, Any]:
    """Trains and evaluates a network, and writes the run's files to a workdir.

    Resumes the run if the workdir holds a checkpoint of it.

    Args:
      config: A config with the fields of cifar_jax/config/base.py.
      folder: The workdir, which is created if necessary.
      dataset: The data set to use instead of the one that the config names.
      mesh: The devices to use; by default, all of all hosts.
      deadline: When to save and stop, a value of time.monotonic().
      startup: A stopwatch started when the command began; by default, one that starts now.
      profile: Whether to write a trace of a few steps to the workdir's folder `profile`.
      all_parameters: Whether to print a row for each array of parameters, even if there are many.
      create: Replaces experiment.create, for example to reuse a compiled program.
      writers: Further receivers of progress and of the rows of new epochs.

    Returns:
      The contents of summary.json.

    Raises:
      UserError: If the config is invalid, pretrained weights or data cannot be loaded, the workdir
        holds another run, or the loss becomes NaN or infinite (Diverged).
      Preempted: After SIGTERM, SIGINT, SIGHUP or the deadline, once the state is saved.
    """
    startup = startup or Startup()
    startup.mark("imports")
    given, folder = folder, Path(folder).resolve()
    config = experiment.checked(config)
    with distributed.only_main_prints(), _holding(folder):
        distributed.check_same("config", lambda: _settings(config) | {"profile": profile})
        complete = distributed.on_main(lambda: workdir.check(config, folder))
        if complete and distributed.on_main(lambda: _is_intact(folder, complete["epochs"])):
            print(f"{config.experiment} is complete:\n{summary.table(complete, given)}")
            return complete
        if not distributed.on_main(lambda: saved_steps(folder / "checkpoints")):
            experiment.check_weights(config)
        made_on = environment()  # before training, during which the checkout may change
        versions = made_on["versions"] | {"git_commit": made_on["git_commit"]}
        distributed.check_same("version", lambda: versions)
        startup.mark("checks")
        dataset = dataset or experiment.load_data(config)
        distributed.check_same("data set", lambda: {"checksum": dataset.checksum})
        startup.mark("data")
        exp = (create or experiment.create)(config, dataset, mesh=mesh)
        tracing, total = exp.engine.trace_seconds, exp.engine.compile_seconds
        startup.mark("network", tracing=tracing, compilation=total - tracing)
        # A signal that arrives while trackers record the end of the run has no effect.
        with catch_signals(deadline) as stop, contextlib.ExitStack() as stack:
            if profile:
                engine = stack.enter_context(traced(exp.engine, folder / "profile"))
                exp = exp._replace(engine=engine)
            with _opened_checkpoints(folder / "checkpoints") as checkpoints:
                trainer = Trainer(
                    config, exp, checkpoints, stop, startup, all_parameters=all_parameters
                )
                run = trainer.run
                if distributed.is_main():  # after everything that may refuse the run
                    if complete is None:  # a complete run keeps its summary
                        # Before the config changes, to which the old summary would seem to belong.
                        (folder / "summary.json").unlink(missing_ok=True)
                    workdir.claim(config, folder)
                names = config.trackers if distributed.is_main() else ""
                tracking = stack.enter_context(trackers.opened(names, folder, run.rows))
                startup.mark("state")
                try:
                    trainer.train(folder, [*tracking, *writers], made_on)
                except Diverged as error:
                    if distributed.is_main():  # for reports
                        (folder / "diverged.txt").write_text(f"{error.what}\n")
                    raise
                result = final_evaluation.evaluate_on_test(config, exp, run, checkpoints, folder)
                *earlier, latest = run.environments or [made_on]
                result |= latest | {"startup_seconds": startup.seconds}
                if earlier:
                    result["earlier_environments"] = earlier
            result = complete or result
            if distributed.is_main():
                # Written last: this file makes the run complete.
                summary.write_json(folder / "summary.json", result)
            for tracker in tracking:
                tracker.finish(result)
        print(summary.table(result, given))
    return result


def _settings(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields that must be the same in all processes of a run."""
    may_differ = ("data.dir", "trackers", "search.")
    return {k: v for k, v in flatten_json(config).items() if not k.startswith(may_differ)}


@contextlib.contextmanager
def _holding(folder: Path) -> Iterator[None]:
    """Locks the workdir, and reports a full disk; only in the process that writes it."""
    if not distributed.is_main():
        yield
        return
    with workdir.locked(folder), writing(folder):
        yield


@contextlib.contextmanager
def _opened_checkpoints(folder: Path) -> Iterator[Checkpoints | SharedCheckpoints]:
    """Opens the checkpoints, on several processes as those of process 0."""
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(open_checkpoints(folder)) if distributed.is_main() else None
        yield own if distributed.num_processes() == 1 else SharedCheckpoints(own)


def _is_intact(folder: Path, num_epochs: int) -> bool:
    """Returns whether a complete run's files can be read; otherwise says that they are rebuilt.

    Without checkpoints, they cannot be rebuilt, and count as intact.
    """
    if not saved_steps(folder / "checkpoints"):
        return True
    path = folder / "metrics.csv"
    try:
        predictions.read(folder / "predictions.npz")
        num_rows = len(metrics_csv.read(path))
        if num_rows != num_epochs:
            raise UserError(f"{path} has {num_rows} of {num_epochs} epochs")
    except UserError as error:
        print(f"{error}: rebuilding it from the checkpoint")
        return False
    return True
