"""Writes the README's tables from the logs in benchmarks/results/.

    python -m benchmarks.table

Accuracy: benchmarks/results.py reads its logs. Speed: the newest record of each case on each
device, of those whose machine did little else meanwhile.
"""

import argparse
import functools
import json
import math
import statistics
from typing import NamedTuple

import jax
from flax import nnx

from benchmarks.results import RESULTS, ROOT, Row, percent, rows, settings_of
from cifar_jax import data, models

# The greatest share of the processor's time that others may have taken during a measurement.
_QUIET = 0.1


def main() -> None:
    """Rewrites README.md."""
    argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__).parse_args()
    path = ROOT / "README.md"
    before = path.read_text()
    path.write_text(rewritten(before))
    print(f"{path}: {'unchanged' if path.read_text() == before else 'rewritten'}")


def rewritten(readme: str) -> str:
    """Returns the README with every table made anew.

    Raises:
      ValueError: where a table's markers are missing.
    """
    for name, make in TABLES.items():
        begin, end = f"<!-- table:{name} -->\n", f"<!-- end:{name} -->"
        if begin not in readme or end not in readme:
            raise ValueError(f"README.md lacks {begin.strip()} or {end}")
        head, _, rest = readme.partition(begin)
        readme = f"{head}{begin}{make()}\n{end}{rest.partition(end)[2]}"
    return readme


def accuracy() -> str:
    """Measured beside published: a row for runs that differ in nothing but their seed."""
    titles = (
        *("experiment", "published", "measured", "difference", "epochs", "epoch picked on"),
        *("step time", "parameters", "device", "logs by seed"),
    )
    return _markdown(titles, [_accuracy_row(row) for row in rows(RESULTS / "accuracy")])


def _accuracy_row(row: Row) -> tuple[str, ...]:
    file = f"configs/{row.experiment}.py"
    published = row.published.test_accuracy
    named = " ".join([f"[{row.experiment}]({file})", *(f"`{c}`" for c in row.changed)])
    # As the documents round.
    beside = row.published.other if published is None else f"{100 * published:.10g}%"
    num_params = f"{_num_params(row.experiment):,}"
    if not row.logs:
        return named, beside, "", row.reason, str(row.num_epochs), "", "", num_params, "", ""
    first = row.logs[0].summary
    step_time = statistics.median(log.summary["step_time_ms"]["median"] for log in row.logs)
    return (
        named,
        beside,
        percent(row.accuracies),
        row.reason or f"{100 * row.difference:+.2f}",
        _epochs(row),
        first["selected_on"],
        _milliseconds(step_time),
        num_params,
        ", ".join(sorted({_device(log.summary) for log in row.logs})),
        " ".join(
            f"[{log.summary['seed']}]({log.folder.relative_to(ROOT).as_posix()})"
            for log in row.logs
        ),
    )  # fmt: skip


def _epochs(row: Row) -> str:
    """Returns the epochs of a row's runs, beside those of the config where they are others."""
    planned = row.logs[0].settings["num_epochs"]
    done = sorted({log.summary["epochs"] for log in row.logs})
    text = str(planned) if planned == row.num_epochs else f"{planned} of {row.num_epochs}"
    return text if done == [planned] else f"{text}, stopped after {', '.join(map(str, done))}"


def _num_params(experiment: str) -> int:
    """Counts the parameters of an experiment's network from its shapes."""
    settings = settings_of(experiment)
    num_classes = data.num_classes(settings["data.name"], settings["data.label"])
    options = {k[6:]: v for k, v in settings.items() if k[:6] == "model." and k != "model.name"}
    return _count(settings["model.name"], num_classes, json.dumps(options))


@functools.cache
def _count(model: str, num_classes: int, options: str) -> int:
    def build():
        return models.create(model, num_classes, nnx.Rngs(params=0), **json.loads(options))

    params = nnx.state(nnx.eval_shape(build), nnx.Param)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def versus_torch() -> str:
    """Step time of training beside PyTorch's, the newest record of each network and batch."""
    rows = [
        (
            model,
            str(batch_size),
            dtype,
            _milliseconds(r["jax_ms"]),
            _milliseconds(r["torch_ms"]),
            _ratio(r["ratio"]),
            _milliseconds(r["default_ms"]) if r.get("default_ms") else "",
            _ratio(r.get("ratio_to_default")),
            _mebibytes(r.get("peak_memory_bytes")),
            f"{r['compile_seconds']:.1f} s",
            _device(r),
        )
        for (model, batch_size, dtype), r in newest("versus_torch", "model", "batch_size", "dtype")
    ]
    titles = ("network", "batch", "dtype", "JAX", "PyTorch", "JAX / PyTorch", "as it comes")
    titles += ("JAX / that", "memory, JAX and PyTorch", "compilation", "device")
    return _markdown(titles, rows)


def _mebibytes(peaks: dict[str, int] | None) -> str:
    """Returns the peaks of both processes, where they were measured."""
    if not peaks:
        return ""
    return f"{peaks['jax'] / 2**20:,.0f} and {peaks['torch'] / 2**20:,.0f} MiB"


def _ratio(found: dict[str, float] | None) -> str:
    if not found:
        return ""
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def throughput() -> str:
    """Time to the first step and from step to step, the newest record of each network."""
    rows = [
        (
            name,
            str(batch_size),
            dtype,
            f"{r['num_params']:,}",
            f"{r['compile_seconds']:.1f} s",
            _milliseconds(r["first_step_ms"]),
            _milliseconds(r["step_time_ms"]["median"]),
            f"{r['images_per_second']:,.0f}",
            _share_of_peak(r),
            _device(r),
        )
        for (name, batch_size, dtype), r in newest("throughput", "model", "batch_size", "dtype")
    ]
    titles = (
        *("network", "batch", "dtype", "parameters", "compilation", "first step", "step"),
        *("images/s", "of peak FLOP/s", "device"),
    )
    return _markdown(titles, rows)


def _share_of_peak(record: dict) -> str:
    if not record.get("flops_per_second"):
        return ""
    return f"{record['flops_per_second'] / record['peak_flops_per_second']['measured']:.1%}"


def augmentation() -> str:
    """Cost of augmentation, the newest record of each line and batch."""
    rows = [
        (
            f"`{line}`",
            str(batch_size),
            f"{r['ms']:.2f} ms",
            f"{r['share_of_step']:.2%}",
            _device(r),
        )
        for (line, batch_size), r in newest("augmentation", "augmentation", "batch_size")
    ]
    return _markdown(("augmentation", "batch", "time", "share of a step", "device"), rows)


class Contender(NamedTuple):
    """One line of `epochs`.

    Attributes:
      name: for people.
      seconds: of an epoch, the median of the rounds.
      images_per_second: in them.
      times_ours: its time by cifar_jax', the median of the rounds' ratios.
      record: of benchmarks.epoch.
    """

    name: str
    seconds: float
    images_per_second: float
    times_ours: float
    record: dict


def epochs() -> list[Contender]:
    """Returns everyone of the newest records of benchmarks.epoch, the fastest first."""
    names = {
        "cifar_jax": "cifar_jax",
        "keras_jax": "Keras on JAX",
        "keras_torch": "Keras on PyTorch",
        "torch": "PyTorch, DataLoader",
        "torch_workers": "PyTorch, DataLoader with two workers",
    }

    def times_ours(turns: dict[str, list[dict]], name: str) -> float:
        pairs = zip(turns["cifar_jax"], turns[name], strict=True)
        return statistics.median(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)

    return [
        Contender(names[name], seconds, r["images"] / seconds, times_ours(r["turns"], name), r)
        for _, r in newest("epoch", "config", "images")
        for name, seconds in sorted(r["seconds"].items(), key=lambda item: item[1])
    ]


def epoch() -> str:
    """A whole epoch beside Keras and PyTorch, the newest record."""
    rows = [
        (
            c.name,
            f"{c.seconds:.1f} s",
            f"{c.images_per_second:,.0f}",
            f"{c.times_ours:.2f}",
            _device(c.record),
        )
        for c in epochs()
    ]
    return _markdown(("", "an epoch", "images/s", "times ours", "device"), rows)


TABLES = {
    "accuracy": accuracy,
    "throughput": throughput,
    "versus_torch": versus_torch,
    "epoch": epoch,
    "augmentation": augmentation,
}


def newest(name: str, *fields: str) -> list[tuple[tuple, dict]]:
    """Returns ((values of the fields), newest record of a quiet machine) for each case and device.

    Args:
      name: of a file in benchmarks/results, without its ending.
      fields: what makes a case.
    """
    path = RESULTS / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else ()
    records = [r for r in map(json.loads, lines) if (r["used_elsewhere"] or 0) <= _QUIET]
    found = {(*(r[field] for field in fields), _device(r)): r for r in records}
    return [(key[:-1], found[key]) for key in sorted(found)]


def _milliseconds(value: float) -> str:
    """Returns a time with three digits: "0.152 ms", "38.5 ms", "5,851 ms"."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f} ms"


def _device(record: dict) -> str:
    device = record["device"]
    kind = f"{device['count']} x {device['kind']}" if device["count"] > 1 else device["kind"]
    cores = device.get("cores")
    return kind if not cores else f"{kind}, {cores} {'core' if cores == 1 else 'cores'}"


def _markdown(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    main()
