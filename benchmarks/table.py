"""Writes the README's tables from the logs in benchmarks/results/.

    python -m benchmarks.table

Accuracy: results/accuracy/<experiment>/<run>/{config.json,metrics.csv,summary.json}, copied from
the workdirs. Runs of one experiment that differ in their seed alone are one row.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path

from benchmarks.published import PUBLISHED
from cifar_jax import config

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Rewrites README.md."""
    path = ROOT / "README.md"
    path.write_text(rewritten(path.read_text()))


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
    """Measured beside published, a row per experiment and length."""
    runs = defaultdict(list)
    for path in sorted((RESULTS / "accuracy").rglob("summary.json")):
        summary = json.loads(path.read_text())
        runs[summary["experiment"], summary["epochs"]].append((path, summary))
    rows = []
    for (experiment, epochs), found in sorted(runs.items()):
        file = f"configs/{experiment}.py"
        full = config.load(ROOT / file).num_epochs
        summaries = [summary for _, summary in found]
        first = summaries[0]
        published = PUBLISHED.get(experiment)
        rows.append(
            (
                f"[{experiment}]({file})",
                f"{first['num_params']:,}",
                f"{epochs}" if epochs == full else f"{epochs} of {full}",
                _percent([published.test_accuracy]) if published else "",
                _percent([s["test_accuracy"] for s in summaries]),
                first["selected_on"],
                f"{statistics.median(s['step_time_ms']['median'] for s in summaries):.1f} ms",
                _device(first),
                _links(path.parent for path, _ in found),
            )
        )
    titles = (
        *("experiment", "parameters", "epochs", "published", "test accuracy", "epoch picked on"),
        *("step time", "device", "logs by seed"),
    )
    return _markdown(titles, rows)


def versus_torch() -> str:
    """Step time of training beside PyTorch's, the newest record of each network and batch."""
    newest = {}
    path = RESULTS / "versus_torch.jsonl"
    for line in path.read_text().splitlines():
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


def _percent(fractions: list[float | None]) -> str:
    if fractions[0] is None:
        return "none"
    mean = f"{100 * statistics.mean(fractions):.2f}%"
    if len(fractions) == 1:
        return mean
    return f"{mean} ± {100 * statistics.stdev(fractions):.2f} ({len(fractions)} seeds)"


def _device(record: dict) -> str:
    device = record["device"]
    return f"{device['count']} x {device['kind']}" if device["count"] > 1 else device["kind"]


def _links(folders) -> str:
    return " ".join(
        f"[{json.loads((folder / 'summary.json').read_text())['seed']}]"
        f"({folder.relative_to(ROOT).as_posix()})"
        for folder in folders
    )


def _markdown(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
