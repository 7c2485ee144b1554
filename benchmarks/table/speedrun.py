"""Builds the tables of speedruns."""

from collections import defaultdict

from benchmarks import harness
from benchmarks.harness import Record
from benchmarks.results import percent
from benchmarks.speedrun.records import PUBLISHED
from benchmarks.speedrun.summary import key, seconds
from benchmarks.table.markdown import device, table
from benchmarks.table.speed import is_idle, records

_NAMES = {"jax": "cifar_jax", "torch": "PyTorch"}


def complete() -> str:
    """Returns the table of complete runs, next to the published results."""
    measured = defaultdict(list)
    for group in _groups():
        if not group[0]["changed"]:
            measured[group[0]["recipe"]].append(group)
    rows = []
    for recipe, published in PUBLISHED.items():
        link = f"[{recipe}](configs/speedrun/{recipe}.py)"
        record = f"{published.accuracy:.2%} in {published.seconds} s, {published.device}"
        for group in measured[recipe]:
            rows.append((link, record, *_cells(group), _idle_time(group), device(group[0])))
        if not measured[recipe]:
            rows.append((link, record, "no complete run yet", "", "", "", "", ""))
    titles = ("recipe", "published", "framework", "runs", "accuracy", "one view", "time", "device")
    return table(titles, rows)


def trials() -> str:
    """Returns the table of shortened runs, without times, since other processes ran too."""
    rows = [
        (group[0]["recipe"], ", ".join(group[0]["changed"]), *_cells(group), _losses(group))
        for group in _groups()
        if group[0]["changed"]
    ]
    titles = ("recipe", "changed", "framework", "runs", "accuracy", "one view", "training loss")
    return table(titles, rows)


def programs() -> str:
    """Returns the table of each recipe's programs, compiled for a GPU on a machine without one."""
    logged = records(harness.RESULTS / "gpu_program.jsonl")
    rows = []
    for recipe, published in PUBLISHED.items():
        case, with_evaluation = f"speedrun/{recipe}", published.clock == "T1"
        newest = {
            (r["program"], r["image_size"]): r
            for r in logged
            if r["case"] == case and (r["cuda_graph"] or r["program"] == "evaluation")
        }
        if not newest:
            continue
        # The programs are logged in the order in which a run uses them.
        rows += [_program_cells(recipe, r) for r in newest.values()]
        timed = [r for r in newest.values() if with_evaluation or r["program"] == "training"]
        what = "training and evaluation" if with_evaluation else "training"
        rows.append(
            (
                *(recipe, f"**{what}**", "", "", "", "", "", ""),
                f"**{sum(map(_run_seconds, timed)):.2f} s**",
                f"{published.seconds} s, {published.device}",
            )
        )
    titles = (
        *("recipe", "program", "steps of a run", "launches by the host", "kernels"),
        *("memory traffic", "GFLOP", "bound per step", "bound per run", "published time"),
    )
    return table(titles, rows)


def _program_cells(recipe: str, record: Record) -> tuple[str, ...]:
    return (
        recipe,
        f"{record['program']}, {record['image_size']} pixels",
        str(record["num_steps"]),
        str(record["launches_per_step"]),
        str(record["kernels"]),
        f"{record['bytes'] / 1e6:,.0f} MB",
        f"{record['flops'] / 1e9:,.0f}",
        f"{record['min_step_ms']:.3f} ms",
        f"{_run_seconds(record):.3f} s",
        "",
    )


def _run_seconds(record: Record) -> float:
    """Returns the lower bound on the time that a run spends in a program."""
    return record["num_steps"] * record["min_step_ms"] / 1e3


def _groups() -> list[list[Record]]:
    """Returns the runs of each recipe, framework, setting and device, without repetitions.

    Of runs with the same seed and result, which add no information, the last one on an idle
    machine counts.
    """
    path = harness.RESULTS / "speedrun.jsonl"
    groups = defaultdict(dict)
    for record in records(path) if path.exists() else ():
        result = record["seed"], record["accuracy"], record["train_loss"]
        group = groups[key(record)]
        if is_idle(record) or not is_idle(group.get(result, record)):
            group[result] = record
    return [list(groups[group].values()) for group in sorted(groups, key=str)]


def _cells(group: list[Record]) -> tuple[str, ...]:
    """Returns the framework, the number of runs and both accuracies."""
    first = group[0]
    return (
        f"{_NAMES[first['framework']]}, {first['dtype']}",
        str(len(group)),
        percent([r["accuracy"] for r in group]),
        percent([r["single_view_accuracy"] for r in group]),
    )


def _idle_time(group: list[Record]) -> str:
    """Returns the time of the runs for which the machine was otherwise nearly idle."""
    idle = list(filter(is_idle, group))
    if not idle:
        return "machine was busy"
    count = "" if len(idle) == len(group) else f", {len(idle)} of {len(group)} runs"
    return f"{seconds([r['seconds'] for r in idle])} ({idle[0]['clock']}{count})"


def _losses(group: list[Record]) -> str:
    low, high = min(r["train_loss"] for r in group), max(r["train_loss"] for r in group)
    return f"{low:.3f} to {high:.3f}"
