"""Trains one config from data to summary."""

import contextlib
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from cifar_jax import experiment
from cifar_jax.experiment import Experiment
from cifar_jax.loop import WHAT_TO_DO, Diverged, run_until
from cifar_jax.metrics import Metrics, fetch, from_checkpoint, to_checkpoint
from cifar_jax.optim.callbacks import METRICS, Callbacks
from cifar_jax.run import summary, trackers, workdir
from cifar_jax.run.checkpoint import Checkpoints, open_checkpoints
from cifar_jax.run.clock import Clock
from cifar_jax.run.writers import ConsoleWriter, CsvWriter, TensorBoardWriter
from cifar_jax.runtime.environment import environment
from cifar_jax.runtime.signals import Preempted, catch_signals
from cifar_jax.runtime.startup import Startup
from cifar_jax.step import TrainState, all_finite

Row = dict[str, Any]


@dataclasses.dataclass
class Run:
    """What a run carries along, and finds again in its checkpoint.

    Attributes:
      state: of the engine.
      metrics: of the epoch so far.
      step: steps done.
      rows: of metrics.csv.
      clock: times the calls.
      callbacks: decide between epochs.
    """

    state: TrainState
    metrics: Metrics
    step: int
    rows: list[Row]
    clock: Clock
    callbacks: Callbacks


def train(
    config: ConfigDict,
    folder: str | Path,
    deadline: float = math.inf,
    startup: Startup | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and writes everything into a workdir; resumes what lies there.

    Args:
      config: with the fields of cifar_jax/config/base.py.
      folder: the workdir; made if need be.
      deadline: by time.monotonic(), when to save and leave.
      startup: a stopwatch that runs since the command was given; since this call without one.

    Returns:
      The content of summary.json.

    Raises:
      UserError: for a wrong config, missing data, the workdir of another run, or (Diverged) a
        loss that is no longer finite.
      Preempted: after SIGTERM, SIGINT or the deadline, once the state is saved.
    """
    startup = startup or Startup()
    startup.over("imports")
    folder = Path(folder).resolve()
    experiment.check(config)
    config = experiment.resolved(config)
    with workdir.locked(folder):
        complete = workdir.check(config, folder)
        if complete is not None:
            print(f"{config.experiment} is complete:\n{summary.table(complete, folder)}")
            return complete
        made_on = environment()  # now: the checkout may move on while the run goes on
        startup.over("checks")
        dataset = experiment.load_data(config)
        startup.over("data")
        exp = experiment.create(config, dataset)
        tracing = exp.engine.trace_seconds
        compilation = exp.engine.compile_seconds - tracing
        startup.over("network", tracing=tracing, compilation=compilation)
        workdir.claim(config, folder)
        # A signal that comes while trackers are told the end changes nothing any more.
        with catch_signals(deadline) as stop, contextlib.ExitStack() as stack:
            with open_checkpoints(folder / "checkpoints") as checkpoints:
                run = _start(config, exp, checkpoints)
                tracking = stack.enter_context(trackers.opened(config.trackers, folder, run.rows))
                startup.over("state")
                _train(config, exp, checkpoints, run, folder, stop, tracking, startup)
                reported, state = _reported(config, exp, checkpoints, run)
                result = _evaluate(config, exp, run, folder, reported, state) | made_on
                result["startup_seconds"] = startup.seconds
            # Behind the checkpoints: by this file the run is complete.
            summary.write_json(folder / "summary.json", result)
            for tracker in tracking:
                tracker.finish(result)
    print(summary.table(result, folder))
    return result


def _start(config: ConfigDict, exp: Experiment, checkpoints: Checkpoints) -> Run:
    """Returns the run at step 0, or where its latest checkpoint left it."""
    engine = exp.engine
    callbacks = experiment.make_callbacks(config)
    run = Run(engine.init(), engine.no_metrics(), 0, [], Clock(config.steps_per_call), callbacks)
    params = engine.snapshot(run.state).params
    print(parameter_overview.get_parameter_overview(params, include_stats=False))
    step = checkpoints.latest_step
    if step is None:
        return run
    saved, meta = checkpoints.restore(step, _tree(exp, run), engine.replicated)
    callbacks.recall(meta["callbacks"])
    rows, is_picked = meta["rows"], config.selected_on in ("val", "test")
    for row in rows:
        # The last epoch of a shorter run was evaluated out of turn. Where epochs are picked that
        # stays: its checkpoint may be the one that was kept.
        if not (is_picked or callbacks.has_stopped or _is_evaluated(config, row["epoch"])):
            row.update({name: None for name in row if name.startswith(f"{exp.curve}_")})
    print(f"resumed at step {step:,} of {config.num_epochs * engine.steps_per_epoch:,}")
    clock = Clock(config.steps_per_call, meta["seconds"], meta["step_times"])
    state, metrics = engine.place(saved["state"]), engine.place(from_checkpoint(saved["metrics"]))
    return Run(state, metrics, step, rows, clock, callbacks)


def _tree(exp: Experiment, run: Run) -> dict[str, Any]:
    """Returns the arrays of a checkpoint, on the devices."""
    metrics = to_checkpoint(exp.engine.snapshot(run.metrics))
    return {"state": exp.engine.snapshot(run.state), "metrics": metrics}


def _train(config, exp, checkpoints, run, folder, stop, tracking, startup) -> None:
    """Trains to the last epoch; raises Preempted where `stop` asks for it."""
    engine = exp.engine
    total_steps = config.num_epochs * engine.steps_per_epoch
    is_finite = jax.jit(all_finite)
    saved_step, saved_at = run.step, time.monotonic()
    own = [
        CsvWriter(folder / "metrics.csv", run.rows),
        TensorBoardWriter(folder / "tensorboard", run.rows),
        ConsoleWriter(config.num_epochs, engine.steps_per_epoch),
    ]
    writers = [*own, *tracking]

    def is_late(step: int) -> bool:
        minutes = (time.monotonic() - saved_at) / 60
        return step > saved_step and minutes > config.checkpoint.every_minutes

    def progress(step: int, values: dict[str, float]) -> None:
        startup.finish("first_call")
        epoch, step_in_epoch = divmod(step - 1, engine.steps_per_epoch)
        rate = config.batch_size * (step_in_epoch + 1) / run.clock.seconds
        for writer in writers:
            writer.progress(epoch + 1, step_in_epoch + 1, values, rate)

    try:
        while run.step < total_steps and not run.callbacks.has_stopped:
            epoch = run.step // engine.steps_per_epoch + 1
            run.state, run.metrics, values, run.step = run_until(
                engine,
                run.state,
                run.metrics,
                engine.plan(run.state, epoch - 1),
                run.step,
                epoch * engine.steps_per_epoch,
                run.clock,
                should_stop=lambda step: stop.signum is not None or is_late(step),
                progress=progress,
            )
            signum = stop.signum  # once: what follows has to agree on it
            is_due, score, is_evaluated = is_late(run.step), None, False
            if run.step == epoch * engine.steps_per_epoch:
                row = _row(config, exp, epoch, values, run)
                _decide(config, exp, run, row)
                is_evaluated = row[f"{exp.curve}_loss"] is not None
                score = _score(config, exp, row)
                scores = [_score(config, exp, r) for r in run.rows]
                best = max((s for s in scores if s is not None), default=-math.inf)
                is_due |= epoch % config.checkpoint.every_epochs == 0 or run.step == total_steps
                is_due |= config.selected_on != "last" and score is not None and score > best
                is_due |= run.callbacks.has_stopped
                run.rows.append(row)
                for writer in writers:
                    writer.epoch(row)
                run.metrics, run.clock.seconds = engine.no_metrics(), 0.0
            if is_due or signum is not None:
                tree = _tree(exp, run)
                if not is_evaluated and signum is None:
                    _evaluated(exp, tree["state"], f"step {run.step}")
                if not is_finite(tree["state"]):
                    raise Diverged(f"a parameter became infinite by step {run.step}. {WHAT_TO_DO}")
                meta = {
                    "rows": [*run.rows],
                    "seconds": run.clock.seconds,
                    "step_times": [*run.clock.step_times],
                    "callbacks": run.callbacks.memory(),
                    # For predictions: the data set need not be there then.
                    "classes": [*exp.dataset.class_names],
                    "mean": exp.dataset.mean.tolist(),
                    "std": exp.dataset.std.tolist(),
                }
                checkpoints.save(run.step, tree, meta, score)
                saved_step, saved_at = run.step, time.monotonic()
            if signum is not None:
                raise Preempted(
                    signum,
                    f"stopped as asked; saved at step {run.step:,} of {total_steps:,}. "
                    "The same command resumes",
                )
    finally:
        for writer in own:
            writer.close()


def _row(config: ConfigDict, exp: Experiment, epoch: int, values: dict, run: Run) -> Row:
    """Evaluates where it is due and returns the row of an epoch that is over."""
    scale = np.ravel(run.state.lr_scale)[0]  # one of the replicas' inside pmap
    curve = {f"{exp.curve}_{name}": None for name in values}
    if _is_evaluated(config, epoch):
        curve = _curve(exp, run, f"epoch {epoch}")
    return {
        "epoch": epoch,
        "step": run.step,
        "learning_rate": float(exp.schedule(run.step - 1) * scale),
        **{f"train_{name}": value for name, value in values.items()},
        **curve,
        "seconds": run.clock.seconds,
        "images_per_second": len(exp.dataset.train.labels) / run.clock.seconds,
        "events": "",
    }


def _curve(exp: Experiment, run: Run, when: str) -> Row:
    """Evaluates, and returns what the row of an epoch has of it."""
    found = _evaluated(exp, exp.engine.snapshot(run.state), when)
    return {f"{exp.curve}_{name}": value for name, value in found.items()}


def _decide(config: ConfigDict, exp: Experiment, run: Run, row: Row) -> None:
    """Asks the callbacks, notes what they decide in the row, and sets the rate.

    An epoch that turns out to be the last is evaluated, whether or not that was due.
    """
    values = {f"train_{name}": row[f"train_{name}"] for name in METRICS}
    # The last epoch may be evaluated out of turn: a longer run would not see that.
    is_in_turn = row["epoch"] % config.eval_every_epochs == 0
    values |= {name: row[f"{exp.curve}_{name}"] if is_in_turn else None for name in METRICS}
    decision = run.callbacks.after_epoch(values, row["learning_rate"])
    row["events"] = "; ".join(decision.events)
    if decision.rate_factor != 1.0:
        factor = np.float32(decision.rate_factor)
        run.state = run.state.replace(lr_scale=run.state.lr_scale * factor)
    if decision.stops and row[f"{exp.curve}_loss"] is None:
        row.update(_curve(exp, run, f"epoch {row['epoch']}"))


def _score(config: ConfigDict, exp: Experiment, row: Row) -> float | None:
    """Returns how good an epoch is, more for better; None where it was not evaluated."""
    split = "train" if config.selected_on == "train" else exp.curve
    value = row[f"{split}_{config.selected_by}"]
    return -value if value is not None and config.selected_by == "loss" else value


def _is_evaluated(config: ConfigDict, epoch: int) -> bool:
    return epoch % config.eval_every_epochs == 0 or epoch == config.num_epochs


def _evaluated(exp: Experiment, state: TrainState, when: str) -> dict[str, float]:
    """Returns a snapshot's metrics on the split of the curves.

    Raises:
      Diverged: where the loss is not finite. The training loss is that before the last update;
        a checkpoint must not outlive it that no longer works.
    """
    found = fetch(exp.evaluate[exp.curve](state)[0])
    if not math.isfinite(found["loss"]):
        raise Diverged(f"the {exp.curve} loss became {found['loss']} by {when}. {WHAT_TO_DO}")
    return found


def _reported(config, exp, checkpoints, run) -> tuple[Row, TrainState]:
    """Returns the row of the epoch that the run reports, and the state at its end."""
    state = exp.engine.snapshot(run.state)
    if config.selected_on == "last":
        return run.rows[-1], state
    evaluated = [row for row in run.rows if _score(config, exp, row) is not None]
    best = max(evaluated, key=lambda row: _score(config, exp, row))
    if best["step"] != run.step:
        print(f"restored epoch {best['epoch']}, the best by {config.selected_by}")
        saved, _ = checkpoints.restore(best["step"], _tree(exp, run), exp.engine.replicated)
        state = saved["state"]
    return best, state


def _evaluate(config, exp, run, folder, reported, state) -> dict[str, Any]:
    """Scores the reported state on the test set, writes predictions.npz, returns the summary."""
    metrics, logits = exp.evaluate["test"](state)
    test = fetch(metrics)
    dataset = exp.dataset
    summary.write_predictions(
        folder / "predictions.npz", np.asarray(logits), dataset.test.labels, dataset.class_names
    )
    train_seconds = sum(row["seconds"] for row in run.rows)
    images = len(dataset.train.labels) * len(run.rows)
    step_times = run.clock.step_times or [1e3 * train_seconds / run.step]
    return {
        "experiment": config.experiment,
        "model": config.model.name,
        "num_params": sum(x.size for x in jax.tree.leaves(state.params)),
        "dataset": config.data.name,
        "label": config.data.label,
        "seed": config.seed,
        "epochs": len(run.rows),
        "steps": run.step,
        "batch_size": config.batch_size,
        "dtype": config.dtype,
        "parallel": config.parallel,
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "top5_accuracy": test["top5_accuracy"],
        "train_accuracy": reported["train_accuracy"],
        "val_accuracy": reported.get("val_accuracy"),
        "best_epoch": reported["epoch"],
        "selected_on": config.selected_on,
        "selected_by": config.selected_by,
        "stopped_early": run.callbacks.has_stopped and len(run.rows) < config.num_epochs,
        "step_time_ms": {
            "median": float(np.median(step_times)),
            "p95": float(np.percentile(step_times, 95)),
        },
        "images_per_second": images / train_seconds,
        "compile_seconds": exp.engine.compile_seconds,
        "train_seconds": train_seconds,
        "peak_memory_bytes": exp.engine.program_bytes,
    }
