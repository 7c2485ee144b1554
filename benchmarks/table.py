"""Writes the README's tables from the logs in benchmarks/results/.

    python -m benchmarks.table

Accuracy: results/accuracy/<experiment>/<run>/{config.json,metrics.csv,summary.json}, copied from
the workdirs.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

from benchmarks.published import PUBLISHED, Published
from cifar_jax import config

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# What two runs of one row may differ in.
NOT_COMPARED = ("seed", "data.dir", "checkpoint.", "steps_per_call", "eval_batch_size")


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
    runs = defaultdict(list)
    for path in sorted((RESULTS / "accuracy").rglob("summary.json")):
        settings = config.flatten(json.loads((path.parent / "config.json").read_text()))
        summary = json.loads(path.read_text())
        same = {k: v for k, v in settings.items() if not k.startswith(NOT_COMPARED)}
        key = json.dumps([summary["experiment"], same, summary["device"]], sort_keys=True)
        runs[key].append((path.parent, same, summary))
    titles = (
        *("experiment", "parameters", "epochs", "published", "test accuracy", "epoch picked on"),
        *("step time", "device", "logs by seed"),
    )
    return _markdown(titles, [_accuracy_row(runs[key]) for key in sorted(runs)])


def _accuracy_row(found: list[tuple[Path, dict, dict]]) -> tuple[str, ...]:
    _, settings, first = found[0]
    experiment = first["experiment"]
    file = f"configs/{experiment}.py"
    original = config.load(ROOT / file)
    config.choose_model(original, original.model.name)
    as_written = config.flatten(json.loads(original.to_json()))
    changed = [
        f"`{name}={value}`"
        for name, value in settings.items()
        if name not in ("num_epochs", "dtype") and value != as_written.get(name)
    ]
    epochs, full = first["epochs"], as_written["num_epochs"]
    published = PUBLISHED.get(experiment, Published(None))
    step_time = statistics.median(s["step_time_ms"]["median"] for *_, s in found)
    return (
        " ".join([f"[{experiment}]({file})", *changed]),
        f"{first['num_params']:,}",
        f"{epochs}" if epochs == full else f"{epochs} of {full}",
        "" if published.test_accuracy is None else _percent([published.test_accuracy]),
        _percent([s["test_accuracy"] for *_, s in found]),
        first["selected_on"],
        f"{step_time:.1f} ms",
        _device(first),
        " ".join(f"[{s['seed']}]({path.relative_to(ROOT).as_posix()})" for path, _, s in found),
    )


def versus_torch() -> str:
    """Step time of training beside PyTorch's, the newest record of each network and batch."""
    newest = {}
    path = RESULTS / "versus_torch.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        record = json.loads(line)
        newest[record["model"], record["batch_size"]] = record
    rows = [
        (
            model,
            str(batch_size),
            f"{r['jax_ms']:.1f} ms",
            f"{r['torch_ms']:.1f} ms",
            f"{r['ratio']['median']:.2f} ({r['ratio']['min']:.2f} to {r['ratio']['max']:.2f})",
            f"{r['compile_seconds']:.1f} s",
            _device(r),
        )
        for (model, batch_size), r in sorted(newest.items())
    ]
    titles = ("network", "batch", "JAX", "PyTorch", "JAX / PyTorch", "compilation", "device")
    return _markdown(titles, rows)


TABLES = {"accuracy": accuracy, "versus_torch": versus_torch}


def _percent(fractions: list[float]) -> str:
    mean = f"{100 * statistics.mean(fractions):.2f}%"
    if len(fractions) == 1:
        return mean
    return f"{mean} ± {100 * statistics.stdev(fractions):.2f} ({len(fractions)} seeds)"


def _device(record: dict) -> str:
    device = record["device"]
    kind = f"{device['count']} x {device['kind']}" if device["count"] > 1 else device["kind"]
    cores = device.get("cores")
    return kind if not cores else f"{kind}, {cores} {'core' if cores == 1 else 'cores'}"


def _markdown(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
