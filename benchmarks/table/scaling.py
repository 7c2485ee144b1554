"""Builds the tables of the efficiency predicted for many GPUs, where nothing was measured."""

from benchmarks.scaling.compiled import GPUS_PER_HOST
from benchmarks.scaling.links import all_reduce
from benchmarks.scaling.networks import FLOAT32_BYTES, NETWORKS, sizes
from benchmarks.scaling.predict import (
    BASE_BATCH_SIZE,
    NUM_GPUS,
    Prediction,
    Predictor,
    images_needed,
    predictor,
)
from benchmarks.scaling.step_times import REFERENCE, compiled
from benchmarks.table.markdown import table
from cifar_jax.report.page import milliseconds


def networks() -> str:
    """Returns the table of what the GPUs exchange in a step."""
    predict = predictor()
    reduces = {r["network"]: r["all_reduces"] for r in compiled() if r["num_gpus"] > 1}
    rows = []
    for network in NETWORKS:
        exchanged, all_reduces = sizes(network), reduces[network]
        base = predict.base(network)
        rows.append(
            (
                network,
                f"{exchanged.num_params:,}",
                f"{exchanged.gradient_bytes / 1e6:,.1f} MB",
                f"{FLOAT32_BYTES * exchanged.num_params / 1e6:,.1f} MB",
                str(exchanged.num_batch_norms),
                str(sum(reduce["is_forward"] for reduce in all_reduces)),
                str(len(all_reduces)),
                f"{sum(reduce['num_bytes'] for reduce in all_reduces) / 1e6:,.1f} MB",
                milliseconds(1e3 * base.seconds),
                base.source,
            )
        )
    titles = (
        *("network", "parameters", "gradients, jit", "gradients, pmap", "BatchNorm layers"),
        *("all-reduces in the forward pass", "all-reduces", "their size"),
        *(f"one GPU, batch {BASE_BATCH_SIZE}", "source"),
    )
    return table(titles, rows)


def all_reduces() -> str:
    """Returns the table of the time of an all-reduce, by size and number of GPUs."""
    reference = sizes(REFERENCE)
    arrays = {
        "4 KB: statistics of a layer with 512 channels": 2 * 512 * 4,
        f"{reference.gradient_bytes / 1e6:.1f} MB: gradients of {REFERENCE}, jit": (
            reference.gradient_bytes
        ),
        f"{FLOAT32_BYTES * reference.num_params / 1e6:.1f} MB: gradients of {REFERENCE}, pmap": (
            FLOAT32_BYTES * reference.num_params
        ),
    }
    rows = [
        (name, *(f"{1e6 * all_reduce(size, n):,.0f} us" for n in NUM_GPUS[1:]))
        for name, size in arrays.items()
    ]
    return table(("array", *(f"{n} GPUs" for n in NUM_GPUS[1:])), rows)


def weak() -> str:
    """Returns the table of weak scaling: the batch size grows with the number of GPUs."""
    predict = predictor()
    return _efficiency_table(predict, predict.weak)


def strong() -> str:
    """Returns the table of strong scaling: the batch size is that of one GPU."""
    predict = predictor()
    return _efficiency_table(predict, predict.strong)


def _efficiency_table(predict: Predictor, scaled) -> str:
    rows = []
    for network in NETWORKS:
        base = predict.base(network)
        for num_gpus in NUM_GPUS:
            jit = scaled(network, num_gpus)
            rows.append(
                (
                    network,
                    str(num_gpus),
                    str(jit.batch_size),
                    f"{milliseconds(1e3 * jit.compute)}, {jit.source}",
                    _milliseconds(jit.statistics),
                    _milliseconds(jit.update),
                    milliseconds(1e3 * jit.step(overlap=False)),
                    _three_digits(jit.images_per_second(overlap=False)),
                    _efficiencies(jit, base),
                    _efficiencies(scaled(network, num_gpus, "pmap"), base),
                )
            )
    titles = (
        *("network", "GPUs", "images per GPU", "compute", "BatchNorm", "gradients", "step"),
        *("images/s", "efficiency, jit", "efficiency, pmap"),
    )
    return table(titles, rows)


def _efficiencies(prediction: Prediction, base) -> str:
    """Returns the efficiency without and with overlap: "83% to 86%", or one if they are equal."""
    efficiencies = [prediction.efficiency(base, overlap) for overlap in (False, True)]
    digits = 1 if efficiencies[0] < 0.1 else 0
    return " to ".join(dict.fromkeys(f"{e:.{digits}%}" for e in efficiencies))


def _milliseconds(seconds: float) -> str:
    """Returns a time; "" if nothing is exchanged."""
    return milliseconds(1e3 * seconds) if seconds else ""


def _three_digits(number: float) -> str:
    """Returns a number above 100, rounded to three digits: more would pretend precision."""
    unit = 10 ** (len(f"{number:.0f}") - 3)
    return f"{round(number / unit) * unit:,}"


def limits() -> str:
    """Returns the table of what a larger batch is worth, for the reference network."""
    predict = predictor()
    first = predict.weak(REFERENCE, 1)
    rows = []
    for num_gpus in NUM_GPUS:
        scaled = predict.weak(REFERENCE, num_gpus)
        speed_up = scaled.images_per_second(False) / first.images_per_second(False)
        images = images_needed(scaled.global_batch_size) / images_needed(first.global_batch_size)
        is_possible = scaled.steps_per_epoch >= 1
        rows.append(
            (
                str(num_gpus),
                str(-(-num_gpus // GPUS_PER_HOST)),
                f"{scaled.global_batch_size:,}",
                f"{scaled.steps_per_epoch:,.2f}" if not is_possible else _steps(scaled),
                f"{speed_up:,.1f}",
                f"{images:,.1f}" if is_possible else "",
                f"{speed_up / images:,.1f}" if is_possible else "",
            )
        )
    titles = ("GPUs", "hosts", "images per step", "steps per epoch", "images/s, relative")
    return table((*titles, "images to the same loss, relative", "speed-up"), rows)


def _steps(prediction: Prediction) -> str:
    return f"{-(-prediction.steps_per_epoch // 1):,.0f}"
