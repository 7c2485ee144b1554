"""Builds the list of figures at the top of the README."""

import json
import statistics

from benchmarks.harness import ROOT
from benchmarks.table.accuracy import comparable
from benchmarks.table.speed import GRAPHS, epochs


def headline() -> str:
    """Returns the list of figures at the top of the README, each with a link to its log."""
    lines = []
    records = [json.loads(line) for line in (ROOT / GRAPHS).read_text().splitlines()]
    for r in records:
        if r["tag"] == "on" and r["case"] == "resnet18 reference:512:bfloat16":
            lines.append(
                f"**{r['images_per_second']:,.0f} images/s** training ResNet-18 in bfloat16 on one "
                f"{r['device']['kind']}, at batch size {r['batch_size']} "
                f"([log]({GRAPHS}), tag `on`)"
            )
    _, fastest_other, *_ = epochs()
    ratio = fastest_other.record["times_as_fast"]
    lines.append(
        f"**{ratio['median']:.2f} times as fast as {fastest_other.name}**, the fastest other "
        f"contender, in an epoch of a small CNN on two CPU cores "
        f"({ratio['min']:.2f} to {ratio['max']:.2f} in {fastest_other.record['rounds']} rounds; "
        f"[log](benchmarks/results/epoch.jsonl))"
    )
    full = comparable()
    differences = [100 * abs(row.difference) for row in full]
    lines.append(
        f"**{len({row.experiment for row in full})} published experiments rerun at full "
        f"length**: half of the accuracies are within {statistics.median(differences):.2f} "
        f"points of the published ones ([logs](benchmarks/results/accuracy))"
    )
    return "\n".join(f"- {line}." for line in lines)
