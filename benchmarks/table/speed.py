"""Builds the tables of step times, epochs and augmentation.

For each case and device, they show the newest record for which the machine was otherwise nearly
idle.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import harness
from benchmarks.gpu_program import h100
from benchmarks.table.markdown import device, table
from cifar_jax.report.page import milliseconds

GRAPHS = "benchmarks/results/checks/gpu/graphs.jsonl"
# The contenders of benchmarks.epoch, with the names to display.
CONTENDER_NAMES = {
    "cifar_jax": "cifar_jax",
    "keras_jax": "Keras on JAX",
    "keras_torch": "Keras on PyTorch",
    "torch": "PyTorch with a DataLoader",
    "torch_workers": "PyTorch with a DataLoader, two workers",
    "torch_by_batch": "PyTorch augmenting whole batches",
}


def versus_torch() -> str:
    """Returns the table of training step times in JAX and PyTorch."""
    rows = [
        (
            model,
            str(batch_size),
            dtype,
            milliseconds(r["jax_ms"]),
            milliseconds(r["torch_ms"]),
            _ratio(r["ratio"]),
            milliseconds(r["default_ms"]) if r.get("default_ms") else "",
            _ratio(r.get("ratio_to_default")),
            _mebibytes(r.get("peak_memory_bytes")),
            f"{r['compile_seconds']:.1f} s",
            device(r),
        )
        for (model, batch_size, dtype), r in newest(
            "versus_torch", "model", "batch_size", "dtype", is_valid=is_full_comparison
        )
    ]
    titles = (
        *("network", "batch", "dtype", "JAX", "PyTorch", "JAX / PyTorch", "PyTorch defaults"),
        *("JAX / PyTorch defaults", "memory, JAX and PyTorch", "compilation", "device"),
    )
    return table(titles, rows)


def is_full_comparison(record: dict) -> bool:
    """Returns whether PyTorch ran in several settings.

    On a GPU, these include one that is compiled, and on a CPU the defaults.
    """
    settings = record["ms_of_settings"]
    needed = "torch_compiled" if record["device"]["platform"] == "gpu" else "torch"
    return len(settings) > 1 and settings.get(needed) is not None


def _mebibytes(peaks: dict[str, int] | None) -> str:
    """Returns the peak memory of both processes, or "" if it was not measured."""
    if not peaks:
        return ""
    return f"{peaks['jax'] / 2**20:,.0f} and {peaks['torch'] / 2**20:,.0f} MiB"


def _ratio(ratio: dict[str, float] | None) -> str:
    if not ratio:
        return ""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def throughput() -> str:
    """Returns the table of compilation, first step and step times."""
    rows = [
        (
            name,
            str(batch_size),
            dtype,
            f"{r['num_params']:,}",
            f"{r['compile_seconds']:.1f} s",
            milliseconds(r["first_step_ms"]),
            milliseconds(r["step_time_ms"]["median"]),
            f"{r['images_per_second']:,.0f}",
            _share_of_peak(r),
            device(r),
        )
        for (name, batch_size, dtype), r in newest("throughput", "model", "batch_size", "dtype")
    ]
    titles = (
        *("network", "batch", "dtype", "parameters", "compilation", "first step", "step"),
        *("images/s", "of peak FLOP/s", "device"),
    )
    return table(titles, rows)


def _share_of_peak(record: dict) -> str:
    if not record.get("flops_per_second"):
        return ""
    return f"{record['flops_per_second'] / record['peak_flops_per_second']['measured']:.1%}"


def augmentation() -> str:
    """Returns the table of the cost of each augmentation."""
    rows = [
        (
            f"`{line}`",
            str(batch_size),
            f"{r['ms']:.2f} ms",
            f"{r['share_of_step']:.2%}",
            device(r),
        )
        for (line, batch_size), r in newest("augmentation", "augmentation", "batch_size")
    ]
    return table(("augmentation", "batch", "time", "share of a step", "device"), rows)


class Contender(NamedTuple):
    """One contender of benchmarks.epoch.

    Attributes:
      name: The name to display.
      seconds: The time of an epoch, the median over rounds.
      images_per_second: The throughput at that time.
      relative_time: Its time relative to cifar_jax's, the median of the rounds' ratios.
      record: The whole record.
    """

    name: str
    seconds: float
    images_per_second: float
    relative_time: float
    record: dict


def epochs() -> list[Contender]:
    """Returns the contenders of each device's newest record of benchmarks.epoch with all of them.

    Those of one record are sorted by time, the fastest first.
    """

    def relative_time(turns: dict[str, list[dict]], name: str) -> float:
        pairs = zip(turns["cifar_jax"], turns[name], strict=True)
        return statistics.median(turn["seconds"] / ours["seconds"] for ours, turn in pairs)

    return [
        Contender(
            CONTENDER_NAMES[name],
            seconds,
            r["images"] / seconds,
            relative_time(r["turns"], name),
            r,
        )
        for _, r in newest("epoch", "config", "images", is_valid=has_all_contenders)
        for name, seconds in sorted(r["seconds"].items(), key=lambda item: item[1])
    ]


def has_all_contenders(record: dict) -> bool:
    """Returns whether a record of benchmarks.epoch has every contender."""
    return record["seconds"].keys() == CONTENDER_NAMES.keys()


def epoch() -> str:
    """Returns the table of epochs of cnn3 in cifar_jax, PyTorch and Keras."""
    rows = [
        (
            c.name,
            f"{c.seconds:.1f} s",
            f"{c.images_per_second:,.0f}",
            f"{c.relative_time:.2f}",
            device(c.record),
        )
        for c in epochs()
    ]
    return table(("contender", "epoch", "images/s", "relative time", "device"), rows)


def cuda_graphs() -> str:
    """Returns the table of step times with one CUDA graph and with launches by the host."""
    by_host, lines = graphs("default"), []
    for case, graph in graphs("on").items():
        host = by_host[case]["step_ms"]["median"]
        step = graph["step_ms"]["median"]
        lines.append(
            (
                graph["model"].removesuffix(" reference"),
                str(graph["batch_size"]),
                graph["dtype"],
                milliseconds(host),
                milliseconds(step),
                f"{step / host:.2f}",
                f"{graph['images_per_second']:,.0f}",
                device(graph),
            )
        )
    titles = ("network", "batch", "dtype", "launched by the host", "one graph", "ratio")
    return table((*titles, "images/s, one graph", "device"), lines)


def graphs(tag: str) -> dict[str, dict]:
    """Returns the newest record of each case in the log of CUDA graphs on an H100.

    Args:
      tag: "on" with one graph per call, "default" with launches by the host.
    """
    logged = records(harness.ROOT / GRAPHS)
    return {r["case"]: r for r in logged if (r["tag"], r["device"]["kind"]) == (tag, h100.NAME)}


def newest(
    name: str, *fields: str, is_valid: Callable[[dict], bool] = lambda record: True
) -> list[tuple[tuple, dict]]:
    """Returns (field values, newest record) for each case and device.

    Args:
      name: A file in benchmarks/results, as in `idle_records`.
      *fields: The fields that distinguish cases.
      is_valid: Returns whether a record counts.
    """
    valid = filter(is_valid, idle_records(name))
    latest = {(*(r[field] for field in fields), device(r)): r for r in valid}
    return [(key[:-1], latest[key]) for key in sorted(latest)]


def idle_records(name: str) -> list[dict]:
    """Returns the records of an otherwise nearly idle machine, the newest last.

    Records with a background load above harness.MAX_BACKGROUND_LOAD, which the measuring command
    warned about, are left out.

    Args:
      name: A file in benchmarks/results, without its suffix.
    """
    path = harness.RESULTS / f"{name}.jsonl"
    return list(filter(is_idle, records(path) if path.exists() else ()))


def is_idle(record: dict) -> bool:
    """Returns whether the machine was otherwise nearly idle, or its load is unknown."""
    return not harness.background(record["used_elsewhere"])["is_busy"]


def records(path: Path) -> list[dict]:
    """Returns the records in a file of JSON lines, the newest last."""
    return [json.loads(line) for line in path.read_text().splitlines()]
