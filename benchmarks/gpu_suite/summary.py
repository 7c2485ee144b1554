"""Summarizes a suite's results in a short table."""

import json
from collections import defaultdict

from benchmarks.gpu_suite.suite import Suite
from benchmarks.speedrun import summary as speedrun


def summarize(suite: Suite) -> str:
    """Formats the results so far as a short table."""
    lines = []
    for r in suite.records("throughput"):
        achieved, peak = r["flops_per_second"], r["peak_flops_per_second"]["measured"]
        lines.append(
            f"{r['model']:<18} {r['batch_size']:>4} {r['dtype']:<8} "
            f"{r['step_time_ms']['median']:9.3f} ms {r['images_per_second']:>11,.0f} img/s "
            f"{(achieved or 0) / peak:6.1%} of peak  compile {r['compile_seconds']:5.1f} s"
        )
    for r in suite.records("versus_torch"):
        lines.append(
            f"{r['model']:<18} {r['batch_size']:>4} {r['dtype']:<8} "
            f"{r['jax_ms']:9.3f} ms, {r['torch_setting']} {r['torch_ms']:.3f} ms, "
            f"ratio {r['ratio']['median']:.2f}"
        )
    groups = defaultdict(list)
    for r in suite.records("speedrun"):
        groups[speedrun.key(r)].append(r)
    lines += [speedrun.summarize(records) for records in groups.values()]
    logs = sorted((suite.work / "accuracy").rglob("summary.json"))
    for path in logs:
        s = json.loads(path.read_text())
        lines.append(
            f"{s['experiment']:<28} seed {s['seed']} {s['epochs']:>3} epochs "
            f"{s['test_accuracy']:7.2%} in {s['train_seconds']:6.1f} s, "
            f"compile {s['compile_seconds']:5.1f} s"
        )
    return "\n".join(lines)
