"""Writes the tables of the README and of docs/ from the logs in benchmarks/results/.

    python -m benchmarks.table

benchmarks/results.py reads the accuracy logs. Speed tables show, for each case and device, the
newest record during which the machine was otherwise nearly idle.
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

# The largest share of processor time that other processes may have used during a measurement.
_MAX_BACKGROUND_LOAD = 0.1
# The (commit, device) pairs of logs that were written while nine trainings shared one GPU through
# NVIDIA's MPS. Their step times are longer than those of a network that has the GPU to itself.
_SHARED_GPU = {("fa6179f", "NVIDIA H100 80GB HBM3")}
_ACCURACY_TITLES = (
    *("experiment", "published", "measured", "difference", "epochs", "epoch selected on"),
    *("step time", "parameters", "device", "logs by seed"),
)
_GRAPHS = "benchmarks/results/checks/gpu/graphs.jsonl"


def main() -> None:
    """Rewrites every file of FILES."""
    argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__).parse_args()
    for name in FILES:
        path = ROOT / name
        before = path.read_text()
        path.write_text(rewritten(before, name))
        print(f"{path}: {'unchanged' if path.read_text() == before else 'rewritten'}")


def rewritten(text: str, name: str) -> str:
    """Returns the content of a file with all of its tables rebuilt.

    Args:
      text: The file's current content.
      name: The file, as FILES names it.

    Raises:
      ValueError: If a table's markers are missing.
    """
    to_root = "../" * name.count("/")
    for table, make in FILES[name].items():
        begin, end = f"<!-- table:{table} -->\n", f"<!-- end:{table} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{name} lacks {begin.strip()} or {end}")
        head, _, rest = text.partition(begin)
        built = make().replace("](", f"]({to_root}")  # links are relative to the root
        text = f"{head}{begin}{built}\n{end}{rest.partition(end)[2]}"
    return text


def headline() -> str:
    """Lists the figures that open the README, each with a link to its log."""
    lines = []
    records = [json.loads(line) for line in (ROOT / _GRAPHS).read_text().splitlines()]
    for r in records:
        if r["tag"] == "on" and r["case"] == "resnet18 reference:512:bfloat16":
            lines.append(
                f"**{r['images_per_second']:,.0f} images/s** training ResNet-18 in bfloat16 on one "
                f"{r['device']['kind']}, at batch size {r['batch_size']} "
                f"([log]({_GRAPHS}), tag `on`)"
            )
    _, fastest_other, *_ = epochs()
    ratio = fastest_other.record["times_as_fast"]
    lines.append(
        f"**{ratio['median']:.2f} times as fast as {fastest_other.name}**, the fastest other "
        f"contender, in an epoch of a small CNN on two CPU cores "
        f"({ratio['min']:.2f} to {ratio['max']:.2f} in {fastest_other.record['rounds']} rounds; "
        f"[log](benchmarks/results/epoch.jsonl))"
    )
    comparable = _comparable()
    differences = [100 * abs(row.difference) for row in comparable]
    lines.append(
        f"**{len({row.experiment for row in comparable})} published experiments rerun at full "
        f"length**: half of the accuracies are within {statistics.median(differences):.2f} "
        f"points of the published ones ([logs](benchmarks/results/accuracy))"
    )
    return "\n".join(f"- {line}." for line in lines)


def _comparable() -> list[Row]:
    """Returns the rows whose measured accuracy can be compared with the published one."""
    return [row for row in rows(RESULTS / "accuracy") if row.difference is not None]


def _complete_rows() -> list[Row]:
    """Returns the rows of complete runs."""
    return [row for row in rows(RESULTS / "accuracy") if _is_complete(row)]


def _is_complete(row: Row) -> bool:
    """Returns whether a row's runs are those that the config file describes."""
    if not row.logs or row.changed:
        return False
    return row.logs[0].settings["num_epochs"] == row.num_epochs


def accuracy() -> str:
    """Measured and published accuracy of the complete runs, in short."""
    titles = ("experiment", "published", "measured", "difference", "epoch selected on", "device")
    return _accuracy_table(_complete_rows(), titles)


def complete() -> str:
    """All columns of the complete runs: one row for runs that differ only in their seed."""
    return _accuracy_table(_complete_rows(), _ACCURACY_TITLES)


def shortened() -> str:
    """All columns of runs with fewer epochs or other settings than their config file."""
    chosen = [row for row in rows(RESULTS / "accuracy") if row.logs and not _is_complete(row)]
    return _accuracy_table(chosen, _ACCURACY_TITLES)


def not_run() -> str:
    """The experiments of which no complete run has been logged."""
    found = rows(RESULTS / "accuracy")
    done = {row.experiment for row in found if _is_complete(row)}
    missing = {row.experiment: row for row in found if row.experiment not in done}
    titles = ("experiment", "published", "epochs", "parameters")
    return _markdown(
        titles,
        [
            (
                _experiment_link(row.experiment),
                _published(row),
                str(row.num_epochs),
                f"{_num_params(row.experiment):,}",
            )
            for row in missing.values()
        ],
    )


def _accuracy_table(chosen: list[Row], titles: tuple[str, ...]) -> str:
    cells = map(_accuracy_cells, chosen)
    return _markdown(titles, [tuple(c[title] for title in titles) for c in cells])


def _accuracy_cells(row: Row) -> dict[str, str]:
    """Returns the cells of a row that has logs, by column title."""
    first = row.logs[0].summary
    step_time = statistics.median(log.summary["step_time_ms"]["median"] for log in row.logs)
    mark = " (shared GPU)" if any(_shared_gpu(log.summary) for log in row.logs) else ""
    links = [
        f"[{log.summary['seed']}]({log.folder.relative_to(ROOT).as_posix()})" for log in row.logs
    ]
    return {
        "experiment": " ".join(
            [_experiment_link(row.experiment), *(f"`{setting}`" for setting in row.changed)]
        ),
        "published": _published(row),
        "measured": percent(row.accuracies),
        "difference": row.reason or f"{100 * row.difference:+.2f}",
        "epochs": _epochs(row),
        "epoch selected on": first["selected_on"],
        "step time": _milliseconds(step_time) + mark,
        "parameters": f"{_num_params(row.experiment):,}",
        "device": ", ".join(sorted({_device(log.summary) for log in row.logs})),
        "logs by seed": " ".join(links),
    }


def _experiment_link(experiment: str) -> str:
    return f"[{experiment}](configs/{experiment}.py)"


def _published(row: Row) -> str:
    """Returns the published accuracy as the write-up rounds it, or what it says instead."""
    published = row.published.test_accuracy
    return row.published.other if published is None else f"{100 * published:.10g}%"


def _shared_gpu(summary: dict) -> bool:
    """Returns whether other trainings ran on the GPU at the same time."""
    return (summary.get("git_commit"), summary["device"]["kind"]) in _SHARED_GPU


def _epochs(row: Row) -> str:
    """Returns the epochs of a row's runs, with those of the config file if they differ."""
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
    """Time of a training step in JAX and PyTorch, for each network, batch size and dtype."""
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
    titles = (
        *("network", "batch", "dtype", "JAX", "PyTorch", "JAX / PyTorch", "PyTorch defaults"),
        *("JAX / PyTorch defaults", "memory, JAX and PyTorch", "compilation", "device"),
    )
    return _markdown(titles, rows)


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
    """Compilation, first step and step time of each network, batch size and dtype."""
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
    """Cost of each augmentation, per batch and as a share of a training step."""
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
    """One contender of benchmarks.epoch.

    Attributes:
      name: The name to display.
      seconds: The time of an epoch, the median over rounds.
      images_per_second: The throughput at that time.
      times_ours: Its time relative to cifar_jax's, the median of the rounds' ratios.
      record: The whole record.
    """

    name: str
    seconds: float
    images_per_second: float
    times_ours: float
    record: dict


def epochs() -> list[Contender]:
    """Returns the contenders of the newest record of benchmarks.epoch, the fastest first."""
    names = {
        "cifar_jax": "cifar_jax",
        "keras_jax": "Keras on JAX",
        "keras_torch": "Keras on PyTorch",
        "torch": "PyTorch with a DataLoader",
        "torch_workers": "PyTorch with a DataLoader, two workers",
    }

    def relative_time(turns: dict[str, list[dict]], name: str) -> float:
        pairs = zip(turns["cifar_jax"], turns[name], strict=True)
        return statistics.median(turn["seconds"] / ours["seconds"] for ours, turn in pairs)

    return [
        Contender(names[name], seconds, r["images"] / seconds, relative_time(r["turns"], name), r)
        for _, r in newest("epoch", "config", "images")
        for name, seconds in sorted(r["seconds"].items(), key=lambda item: item[1])
    ]


def epoch() -> str:
    """An epoch of cnn3 in cifar_jax, PyTorch and Keras."""
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
    return _markdown(("contender", "epoch", "images/s", "relative time", "device"), rows)


def cuda_graphs() -> str:
    """Step times with a call as one CUDA graph, and with every kernel launched by the host."""
    records = [json.loads(line) for line in (ROOT / _GRAPHS).read_text().splitlines()]
    by_tag = {tag: {r["case"]: r for r in records if r["tag"] == tag} for tag in ("default", "on")}
    lines = []
    for case, graph in by_tag["on"].items():
        host = by_tag["default"][case]["step_ms"]["median"]
        step = graph["step_ms"]["median"]
        lines.append(
            (
                graph["model"].removesuffix(" reference"),
                str(graph["batch_size"]),
                graph["dtype"],
                _milliseconds(host),
                _milliseconds(step),
                f"{step / host:.2f}",
                f"{graph['images_per_second']:,.0f}",
                _device(graph),
            )
        )
    titles = ("network", "batch", "dtype", "launched by the host", "one graph", "ratio")
    return _markdown((*titles, "images/s, one graph", "device"), lines)


# The tables of each file, by the name in their markers.
FILES = {
    "README.md": {"headline": headline, "accuracy": accuracy},
    "docs/results.md": {
        "complete": complete,
        "shortened": shortened,
        "not_run": not_run,
        "throughput": throughput,
        "versus_torch": versus_torch,
        "epoch": epoch,
        "augmentation": augmentation,
    },
    "docs/performance.md": {"cuda_graphs": cuda_graphs},
}


def newest(name: str, *fields: str) -> list[tuple[tuple, dict]]:
    """Returns (field values, newest record) for each case and device.

    Records made while other processes used more than _MAX_BACKGROUND_LOAD are left out.

    Args:
      name: A file in benchmarks/results, without its suffix.
      *fields: The fields that distinguish cases.
    """
    path = RESULTS / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else ()
    records = [
        r for r in map(json.loads, lines) if (r["used_elsewhere"] or 0) <= _MAX_BACKGROUND_LOAD
    ]
    latest = {(*(r[field] for field in fields), _device(r)): r for r in records}
    return [(key[:-1], latest[key]) for key in sorted(latest)]


def _milliseconds(value: float) -> str:
    """Formats a time with three digits or more: "0.152 ms", "38.5 ms", "5,851 ms"."""
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
