"""All that this suite claims about a machine with a GPU, measured by one command.

    python -m benchmarks.gpu_suite OUT --data_dir D [--minutes 9] [--only STAGE ...]
    python -m benchmarks.gpu_suite OUT --collect

measures in STAGES, each a benchmark of its own in a process of its own, and stops after --minutes.
Called again with the same OUT it goes on where it stopped, on another machine too, where a training
that was cut short begins anew; OUT holds a handful of small files: records as JSON lines, and
accuracy.tar.gz with the logs of the trainings. --collect adds them to benchmarks/results;
`python -m benchmarks.table` then brings the README up to date.

--data_dir is a TFDS directory, or a folder with the unpacked official archives, or one with an
unpack.py that writes those (`python unpack.py FOLDER`). It needs no network. --work is for what
need not be kept: workdirs and compiled programs. --small tries the whole way in a minute or two, on
a CPU too. Where the checkout came without its history, CIFAR_JAX_COMMIT has to say its commit.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.collect import checked, collect, pack, read_records, unpack
from benchmarks.published import PUBLISHED
from benchmarks.results import ROOT, load_config
from benchmarks.throughput import CONFIGS, NUM_IMAGES
from cifar_jax.errors import UserError

# Beyond the write-ups' own batches and dtypes.
REFERENCE_CASES = (
    *("resnet18 reference:512:bfloat16", "resnet18 reference:128:bfloat16"),
    "resnet34:512:bfloat16",
)
TORCH_CASES = (
    *("resnet18:512:bfloat16", "resnet18:128:bfloat16", "resnet34:512:bfloat16"),
    "resnet18:512:float32",
)
# (config, epochs); None for the config's own.
REFERENCES = (("resnet18", 30), ("resnet34", 30), ("resnet18", None), ("resnet34", None))
# No benchmark is begun with less time left.
LEAST_SECONDS = 20


class Run(NamedTuple):
    """One call of the command.

    Attributes:
      out: what is kept.
      work: what is not.
      data_dir: for the trainings.
      deadline: by time.monotonic().
      small: whether it is a trial.
      seeds: of each experiment.
      failed: modules of the calls that failed.
    """

    out: Path
    work: Path
    data_dir: Path
    deadline: float
    small: bool
    seeds: int
    failed: list[str]

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.monotonic()

    def call(self, module: str, *arguments: str, keep: Callable[[], None] = lambda: None):
        """Runs a benchmark in a process of its own, until the deadline at most.

        Args:
          module: of the benchmark.
          *arguments: its own.
          keep: called every minute meanwhile, and at the end.

        Returns:
          The exit code; None where it ran out of time.
        """
        command = [sys.executable, "-m", module, *arguments]
        print(f"$ {' '.join(command[1:])}", flush=True)
        environ = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(self.work / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        start = time.monotonic()
        code = None
        with subprocess.Popen(command, cwd=ROOT, env=environ) as process:
            while code is None:
                try:
                    code = process.wait(min(60, max(self.seconds_left, 1)))
                except subprocess.TimeoutExpired:
                    keep()
                    if self.seconds_left <= 0:
                        process.kill()
                        break
        keep()
        if code:
            self.failed.append(module)
        ending = "out of time" if code is None else f"exit code {code}"
        print(f"  {time.monotonic() - start:.0f} s, {ending}", flush=True)
        return code

    def records(self, name: str) -> list[dict[str, Any]]:
        """Returns the records of a file of JSON lines in `out`."""
        return read_records(self.out / f"{name}.jsonl")


def check_environment(run: Run) -> None:
    """Writes environment.json: device, versions, and that a product of matrices works."""
    if checked(run.out) is not None:
        return
    code = (
        "import json; import clu.parameter_overview, tensorboardX, cifar_jax.train; "
        "from benchmarks import peak; from cifar_jax.runtime.environment import environment; "
        "dtypes = ('float32', 'bfloat16'); "
        "print(json.dumps(environment() | {'peak': {d: peak.measured(d) for d in dtypes}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nsomething is missing here, see above")
    found = json.loads(done.stdout.splitlines()[-1]) | {"small": run.small}
    if found["git_commit"] is None and not run.small:
        raise SystemExit("a number without its commit is none: set CIFAR_JAX_COMMIT")
    (run.out / "environment.json").write_text(json.dumps(found) + "\n")
    print(json.dumps(found))


def throughput(run: Run) -> None:
    """Times every network, and ResNets in the sizes that GPUs like."""
    cases = [*CONFIGS, *REFERENCE_CASES]
    flags = ()
    if run.small:
        cases, flags = ["cnn_small:8", "cnn2:8"], ("--seconds", "0.1")
    _each(run, "throughput", cases, flags)


def versus_torch(run: Run) -> None:
    """ResNets in the sizes that GPUs like, beside PyTorch at its best."""
    if run.small:
        _each(run, "versus_torch", ["cnn_small:8"], ("--rounds", "1", "--steps", "2"))
        return
    _each(run, "versus_torch", TORCH_CASES, ("--rounds", "5"))


def _each(run: Run, name: str, cases: Sequence[str], flags: Sequence[str]) -> None:
    """Runs a benchmark for those of its cases that have no record yet."""
    out, passed_over = str(run.out / f"{name}.jsonl"), []
    while missing := [c for c in cases if c not in {*_done(run, name), *passed_over}]:
        if run.seconds_left < LEAST_SECONDS:
            return
        if run.call(f"benchmarks.{name}", *missing, *flags, "--out", out) in (0, None):
            return
        # The first that has no record may have ended the process: on without it.
        failed = [case for case in missing if case not in set(_done(run, name))]
        passed_over += failed[:1]


def _done(run: Run, name: str) -> Iterator[str]:
    """Yields the cases that have a record."""
    for r in run.records(name):
        yield from _names(r["model"], r["batch_size"], r["dtype"])


def _names(model: str, batch_size: int, dtype: str) -> Iterator[str]:
    """Yields the cases that a record answers."""
    yield f"{model}:{batch_size}:{dtype}"
    settings = load_config(CONFIGS[model])
    if dtype == settings.dtype:
        yield f"{model}:{batch_size}"
        if batch_size == settings.batch_size:
            yield model


def augmentation(run: Run) -> None:
    """What augmentation costs beside a step of ResNet-18."""
    if not run.records("augmentation"):
        flags = ("flip", "--batch_size", "2", "--rounds", "1", "--seconds", "0.05")
        out = str(run.out / "augmentation.jsonl")
        run.call("benchmarks.augmentation", *(flags if run.small else ()), "--out", out)


def accuracy(run: Run) -> None:
    """Trains the 37 experiments, the cheapest first."""
    flags = ("--seeds", str(run.seeds))
    experiments = sorted(PUBLISHED, key=lambda experiment: _cost(run, experiment))
    if run.small:
        experiments, flags = ["cifar10/cnn_small", "assignment/cnn3"], ("--limit", "500")
        flags += ("--epochs", "1")
    _train(run, experiments, flags)


def references(run: Run) -> None:
    """Trains the suite's own ResNets."""
    if run.small:
        _train(run, ["resnet18"], ("--limit", "128", "--epochs", "2"))  # one of them warms up
        return
    for name, epochs in REFERENCES:
        _train(run, [name], () if epochs is None else ("--epochs", str(epochs)))


def _train(run: Run, experiments: Sequence[str], flags: Sequence[str]) -> None:
    """Trains what has no log yet, and packs the logs."""
    minutes = run.seconds_left / 60 - 0.75  # for its start, and for saving
    if minutes <= 0:
        return
    data_dir = find_data(run.data_dir, run.work)
    run.call(
        "benchmarks.accuracy", *experiments, *flags,
        *("--data_dir", str(data_dir), "--minutes", f"{minutes:.2f}"),
        *("--runs", str(run.work / "runs"), "--out", str(run.work / "accuracy")),
        keep=lambda: pack(run.work / "accuracy", run.out / "accuracy.tar.gz"),
    )  # fmt: skip


def _cost(run: Run, experiment: str) -> float:
    """Returns the seconds that an experiment takes by the throughput measured, or a guess."""
    settings = load_config(experiment)
    records = [r for r in run.records("throughput") if r["dtype"] == "float32"]
    rates = {r["model"]: r["images_per_second"] for r in records}
    rates |= {r["config"]: r["images_per_second"] for r in records}
    rate = rates.get(experiment) or rates.get(settings.model.name) or 1e4
    return settings.num_epochs * NUM_IMAGES / rate


def versus_torch_zoo(run: Run) -> None:
    """Every network beside PyTorch."""
    if run.small:
        return
    # Autotuning all of them would take PyTorch half an hour.
    quick = ("--settings", "torch_channels_last_fused", "torch_compiled")
    on_gpu = checked(run.out)["device"]["platform"] == "gpu"
    every = [name for name in CONFIGS if " " not in name]
    _each(run, "versus_torch", every, ("--rounds", "5", *(quick if on_gpu else ())))


STAGES: dict[str, Callable[[Run], None]] = {
    "environment": check_environment,
    "throughput": throughput,
    "versus_torch": versus_torch,
    "accuracy": accuracy,
    "references": references,
    "augmentation": augmentation,
    "versus_torch_zoo": versus_torch_zoo,
}


def find_data(data_dir: Path, work: Path) -> Path:
    """Returns where the images lie, unpacked if need be: of those data sets that are there."""
    if not (data_dir / "unpack.py").exists():
        return data_dir
    target = work / "data"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("cifar10", "cifar100"):
        done = target / f".{name}"
        if (data_dir / name).is_dir() and not done.exists():
            command = [sys.executable, str(data_dir / "unpack.py"), str(target), name]
            subprocess.run(command, check=True)
            done.touch()
    return target


def summarise(run: Run) -> str:
    """Returns a short table of what is in `out`."""
    lines = []
    for r in run.records("throughput"):
        achieved, peak = r["flops_per_second"], r["peak_flops_per_second"]["measured"]
        lines.append(
            f"{r['model']:<18} {r['batch_size']:>4} {r['dtype']:<8} "
            f"{r['step_time_ms']['median']:9.3f} ms {r['images_per_second']:>11,.0f} img/s "
            f"{(achieved or 0) / peak:6.1%} of peak  compile {r['compile_seconds']:5.1f} s"
        )
    for r in run.records("versus_torch"):
        lines.append(
            f"{r['model']:<18} {r['batch_size']:>4} {r['dtype']:<8} "
            f"{r['jax_ms']:9.3f} ms, {r['torch_setting']} {r['torch_ms']:.3f} ms, "
            f"ratio {r['ratio']['median']:.2f}"
        )
    logs = sorted((run.work / "accuracy").rglob("summary.json"))
    for path in logs:
        s = json.loads(path.read_text())
        lines.append(
            f"{s['experiment']:<28} seed {s['seed']} {s['epochs']:>3} epochs "
            f"{s['test_accuracy']:7.2%} in {s['train_seconds']:6.1f} s, "
            f"compile {s['compile_seconds']:5.1f} s"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Measures, or collects; returns the exit code, 1 where a benchmark failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--data_dir", type=Path, default=Path("~/tensorflow_datasets"))
    parser.add_argument("--work", type=Path, default=Path("runs/gpu_suite"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--seeds", type=int, default=1, help="of each experiment")
    parser.add_argument(
        "--only", nargs="+", choices=STAGES, metavar="STAGE", help=", ".join(STAGES)
    )
    parser.add_argument("--small", action="store_true", help="try the way")
    parser.add_argument("--collect", action="store_true", help="into benchmarks/results")
    args = parser.parse_args(argv[1:])
    try:
        if args.collect:
            collect(args.out)
            return 0
        found = checked(args.out)
        if found is not None and found["small"] != args.small:
            raise UserError(f"{args.out} was begun {'without' if args.small else 'with'} --small")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    deadline = time.monotonic() + 60 * args.minutes
    out, work = args.out.resolve(), args.work.resolve()
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    data_dir = args.data_dir.expanduser().resolve()
    run = Run(out, work, data_dir, deadline, args.small, args.seeds, failed=[])
    if (out / "accuracy.tar.gz").exists():
        unpack(out / "accuracy.tar.gz", work / "accuracy")
    stages = list(args.only or STAGES)
    if found is None and "environment" not in stages:
        stages.insert(0, "environment")
    for name in stages:
        if run.seconds_left < LEAST_SECONDS:
            print(f"{name}: no time left; the same command goes on")
            break
        print(f"\n{name}", flush=True)
        STAGES[name](run)
    text = summarise(run)
    (out / "summary.txt").write_text(text + "\n")
    print("\n" + text)
    if run.failed:
        print(f"failed, see above: {', '.join(run.failed)}")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
