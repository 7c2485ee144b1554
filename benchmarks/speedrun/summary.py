"""Summarizes the runs of a speedrun, next to the published result."""

import statistics
from collections.abc import Sequence

from benchmarks.harness import Record
from benchmarks.results import margin_of_error, percent
from benchmarks.speedrun.records import PUBLISHED


def key(record: Record) -> tuple:
    """Returns what the runs of one group have in common: all but the seed and the results."""
    fields = ("recipe", "clock", "framework", "dtype", "num_images")
    return (
        *(record[field] for field in fields),
        tuple(record["changed"]),
        record.get("settings_hash"),  # the first records have none
        tuple(record["device"].values()),
    )


def seconds(values: Sequence[float]) -> str:
    """Formats times: "2.59 s", or "2.59 s ± 0.02 (2.58 to 2.60)", as `results.percent` does."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.2f} s"
    margin, deviation = margin_of_error(values), statistics.stdev(values)
    low = max(mean - margin, 0.0)
    return f"{mean:.2f} s ± {deviation:.2f} ({low:.2f} to {mean + margin:.2f})"


def summarize(records: Sequence[Record]) -> str:
    """Formats the runs of one group: mean ± standard deviation and the mean's 95% interval.

    Args:
      records: One or more records with the same `key`.
    """
    first = records[0]
    published = PUBLISHED[first["recipe"]]
    compilation = first["compile_seconds"]
    compiled = "" if compilation is None else f", of which {compilation:.1f} s compiling"
    created = first.get("create_seconds")
    before = "" if created is None else f"{created:.1f} s{compiled}, and "
    note = "" if first["clock"] == published.clock else ", not comparable"
    changed = f" with {', '.join(first['changed'])}" if first["changed"] else ""
    views = [r["accuracy"] for r in records]
    once = [r["single_view_accuracy"] for r in records]
    lines = [
        f"{first['recipe']}{changed}: {len(records)} run{'s' * (len(records) > 1)} in "
        f"{first['framework']}, {first['dtype']}, {first['device']['kind']}",
        "  mean ± standard deviation (95% confidence interval of the mean)",
        f"  accuracy          {percent(views)}",
        f"  with one view     {percent(once)}",
        f"  time ({first['clock']})         {seconds([r['seconds'] for r in records])}",
        f"  before the runs   {before}{first['warm_up_seconds']:.1f} s for a run on random labels",
        f"  published         {published.accuracy:.2%} in {published.seconds} s "
        f"({published.clock}{note}) on {published.device}; {published.source}",
    ]
    return "\n".join(lines)
