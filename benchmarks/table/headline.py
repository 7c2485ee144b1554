"""Builds the list of figures at the top of the README."""

import statistics

from benchmarks.table.accuracy import comparable
from benchmarks.table.speed import CONTENDER_NAMES, GRAPHS, graphs, has_all_contenders, idle_records


def headline() -> str:
    """Returns the list of figures at the top of the README, each with a link to its log.

    Raises:
      ValueError: If a figure has no record.
    """
    return "\n".join(f"- {line()}." for line in (_throughput, _epoch, _accuracy))


def _throughput() -> str:
    model, batch_size, dtype = case = "resnet18 reference", 512, "bfloat16"
    logged = [r for name, r in graphs("on").items() if name == ":".join(map(str, case))]
    # These records are from before the recipe had CutMix.
    recipe, log = " without CutMix", f"[log]({GRAPHS}), tag `on`"
    timed = [
        r
        for r in idle_records("throughput")
        if (r["model"], r["batch_size"], r["dtype"]) == case
        and (r["device"]["platform"], r["device"]["count"]) == ("gpu", 1)
    ]
    if timed:
        logged, recipe, log = timed, "", "[log](benchmarks/results/throughput.jsonl)"
    r = _latest(logged, f"{model}:{batch_size}:{dtype} on a GPU")
    return (
        f"**{r['images_per_second']:,.0f} images/s** training ResNet-18 in {dtype}{recipe} on one "
        f"{r['device']['kind']}, at batch size {batch_size} ({log})"
    )


def _epoch() -> str:
    full = list(filter(has_all_contenders, idle_records("epoch")))
    r = _latest(full, "benchmarks.epoch with all contenders")
    ratio, cores = r["times_as_fast"], r["device"]["cores"]
    fastest_other = CONTENDER_NAMES[r["fastest_other"]]
    return (
        f"**{ratio['median']:.2f} times as fast as {fastest_other}**, the fastest other "
        f"contender, in an epoch of a small CNN on {cores} CPU core{'s' * (cores > 1)} "
        f"({ratio['min']:.2f} to {ratio['max']:.2f} in {r['rounds']} rounds; "
        f"[log](benchmarks/results/epoch.jsonl))"
    )


def _accuracy() -> str:
    full = comparable()
    differences = [100 * abs(row.difference) for row in full]
    return (
        f"**{len({row.experiment for row in full})} published experiments rerun at full "
        f"length**: half of the accuracies are within {statistics.median(differences):.2f} "
        f"points of the published ones ([logs](benchmarks/results/accuracy))"
    )


def _latest(records: list[dict], name: str) -> dict:
    if not records:
        raise ValueError(f"the README's headline has no record of {name}")
    return records[-1]
