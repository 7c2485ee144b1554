"""Trains one config from data to summary."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from cifar_jax import checkpoint, experiment, summary, workdir
from cifar_jax.loop import Clock, run_until
from cifar_jax.metrics import fetch
from cifar_jax.preemption import Preempted, catch_signals
from cifar_jax.writers import ConsoleWriter, CsvWriter, TensorBoardWriter


def train(config: ConfigDict, folder: str | Path) -> dict[str, Any]:
    """Trains, evaluates and writes everything into a workdir; resumes what lies there.

    Args:
      config: as configs/base.py has it.
      folder: the workdir; made if need be.

    Returns:
      The content of summary.json.

    Raises:
      UserError: for a wrong config, missing data, the workdir of another run, or (Diverged) a
        loss that is no longer finite.
      Preempted: after SIGTERM or SIGINT, once the state is saved.
    """
    folder = Path(folder).resolve()
    experiment.check(config)
    complete = workdir.claim(config, folder)
    if complete is not None:
        print(f"{config.experiment} is complete:\n{summary.table(complete, folder)}")
        return complete

    # ----------------------------------------------------------------- data, network, engine
    environment = summary.environment()  # now: the checkout may move on while the run goes on
    exp = experiment.create(config)
    engine, curve = exp.engine, exp.curve
    total_steps = config.num_epochs * engine.steps_per_epoch
    state, metrics = engine.init(), engine.no_metrics()
    params = engine.snapshot(state).params
    num_params = sum(x.size for x in jax.tree.leaves(params))
    print(parameter_overview.get_parameter_overview(params, include_stats=False))

    with (
        checkpoint.open_checkpoints(folder / "checkpoints") as checkpoints,
        catch_signals() as stop,
    ):
        # -------------------------------------------------------------------------- resumption
        target = {"state": engine.snapshot(state), "metrics": engine.snapshot(metrics)}
        done, meta = 0, {"rows": [], "seconds": 0.0, "step_times": []}
        if checkpoints.latest_step is not None:
            done = checkpoints.latest_step
            saved, meta = checkpoints.restore(done, target, engine.replicated)
            state, metrics = engine.place(saved["state"]), engine.place(saved["metrics"])
            print(f"resumed at step {done:,} of {total_steps:,}")
        rows = meta["rows"]
        clock = Clock(config.steps_per_call, meta["seconds"], meta["step_times"])
        last_save = time.monotonic()

        def save(score: float | None = None) -> None:
            nonlocal last_save
            tree = {"state": engine.snapshot(state), "metrics": engine.snapshot(metrics)}
            meta = {"rows": rows, "seconds": clock.seconds, "step_times": [*clock.step_times]}
            checkpoints.save(done, tree, meta, score)
            last_save = time.monotonic()

        def should_stop() -> bool:
            late = time.monotonic() - last_save > 60 * config.checkpoint.every_minutes
            return stop.signum is not None or late

        # ---------------------------------------------------------------------------- training
        writers = [
            CsvWriter(folder / "metrics.csv", rows),
            TensorBoardWriter(folder / "tensorboard", done),
            ConsoleWriter(config.num_epochs, engine.steps_per_epoch),
        ]
        try:
            while done < total_steps:
                epoch = done // engine.steps_per_epoch
                epoch_end = (epoch + 1) * engine.steps_per_epoch

                def progress(step: int, values: dict[str, float], epoch: int = epoch) -> None:
                    step_in_epoch = step - epoch * engine.steps_per_epoch
                    rate = config.batch_size * step_in_epoch / clock.seconds
                    for writer in writers:
                        writer.progress(epoch + 1, step_in_epoch, values, rate)

                state, metrics, values, done = run_until(
                    engine, state, metrics, engine.order(state, epoch), done, epoch_end, clock,
                    should_stop=should_stop, progress=progress,
                )  # fmt: skip
                if done == epoch_end:
                    row = _row(config, exp, epoch + 1, done, values, clock.seconds, state)
                    if (epoch + 1) % config.eval_every_epochs == 0 or done == total_steps:
                        found = fetch(exp.evaluate[curve](engine.snapshot(state))[0])
                        row |= {f"{curve}_{name}": value for name, value in found.items()}
                    is_best = _is_best(rows, row, curve)
                    rows.append(row)
                    for writer in writers:
                        writer.epoch(row)
                    metrics, clock.seconds = engine.no_metrics(), 0.0
                    if (
                        (epoch + 1) % config.checkpoint.every_epochs == 0
                        or done == total_steps
                        or (is_best and config.selected_on != "last")
                    ):
                        save(row[f"{curve}_accuracy"])
                else:
                    save()
                if stop.signum is not None:
                    save()
                    raise Preempted(
                        stop.signum,
                        f"stopped by a signal; saved at step {done:,} of {total_steps:,}. "
                        "The same command resumes",
                    )
        finally:
            for writer in writers:
                writer.close()

        # ------------------------------------------------------------------ the epoch reported
        reported = rows[-1]
        final = engine.snapshot(state)
        if config.selected_on != "last":
            reported = max(
                (row for row in rows if row[f"{curve}_accuracy"] is not None),
                key=lambda row: row[f"{curve}_accuracy"],
            )
            if reported["step"] != done:
                saved, _ = checkpoints.restore(reported["step"], target, engine.replicated)
                final = saved["state"]
        test_metrics, logits = exp.evaluate["test"](final)
        test = fetch(test_metrics)

    summary.write_predictions(
        folder / "predictions.npz",
        np.asarray(logits),
        exp.dataset.test.labels,
        exp.dataset.class_names,
    )
    # The first call also warms the device up.
    step_times = list(clock.step_times)[1:] or list(clock.step_times)
    train_seconds = sum(row["seconds"] for row in rows)
    result = {
        "experiment": config.experiment,
        "model": config.model.name,
        "num_params": num_params,
        "dataset": config.data.name,
        "label": config.data.label,
        "seed": config.seed,
        "epochs": config.num_epochs,
        "steps": total_steps,
        "batch_size": config.batch_size,
        "dtype": str(experiment.compute_dtype(config.dtype)),
        "parallel": config.parallel,
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "top5_accuracy": test["top5_accuracy"],
        "train_accuracy": reported["train_accuracy"],
        "val_accuracy": reported["val_accuracy"] if curve == "val" else None,
        "best_epoch": reported["epoch"],
        "selected_on": config.selected_on,
        "step_time_ms": {
            "median": float(np.median(step_times)),
            "p95": float(np.percentile(step_times, 95)),
        },
        "images_per_second": len(exp.dataset.train.labels) * config.num_epochs / train_seconds,
        "compile_seconds": engine.compile_seconds,
        "train_seconds": train_seconds,
        "peak_memory_bytes": summary.peak_memory_bytes(),
        **environment,
    }
    summary.write_json(folder / "summary.json", result)
    print(summary.table(result, folder))
    return result


def _row(config, exp, epoch, step, values, seconds, state) -> dict[str, Any]:
    """Returns a row of metrics.csv, its evaluation still empty."""
    scale = np.ravel(state.lr_scale)[0]  # one of the replicas' inside pmap
    return {
        "epoch": epoch,
        "step": step,
        "learning_rate": float(exp.schedule(step - 1) * scale),
        **{f"train_{name}": values[name] for name in ("loss", "accuracy", "top5_accuracy")},
        **{f"{exp.curve}_{name}": None for name in ("loss", "accuracy", "top5_accuracy")},
        "seconds": seconds,
        "images_per_second": len(exp.dataset.train.labels) / seconds,
    }


def _is_best(rows: list[dict], row: dict, curve: str) -> bool:
    """Whether the row's accuracy exceeds those of all rows before it."""
    accuracy = row[f"{curve}_accuracy"]
    before = [r[f"{curve}_accuracy"] for r in rows if r[f"{curve}_accuracy"] is not None]
    return accuracy is not None and accuracy > max(before, default=-1.0)
