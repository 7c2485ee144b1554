"""Runs all benchmarks on a machine with a GPU.

    python -m benchmarks.gpu_suite OUT --data_dir D [--minutes 9] [--only STAGE ...]
    python -m benchmarks.gpu_suite OUT --collect

The first form runs the STAGES, each of which is a benchmark in its own process, and stops after
--minutes. Run again with the same OUT, it continues where it stopped. This also works on another
machine, except that an interrupted training run starts again there. OUT holds a few small files:
records as JSON lines, and accuracy.tar.gz with the logs of the training runs. --collect adds them
to benchmarks/results; afterwards `python -m benchmarks.table` updates the README.

--data_dir is a TFDS directory, a directory with the unpacked official archives, or a directory with
a script unpack.py that writes those (`python unpack.py FOLDER NAME`). No network is needed. --work
is for temporary files: workdirs and compiled programs. --small tries all stages with tiny settings
in a minute or two, also on a CPU. If the checkout has no git history, the environment variable
CIFAR_JAX_COMMIT must hold its commit.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.gpu_suite.collect import collect, pack, read_environment, read_records, unpack
from benchmarks.harness import ROOT
from benchmarks.published import PUBLISHED
from benchmarks.results import load_config
from benchmarks.throughput.__main__ import CONFIGS, NUM_IMAGES
from cifar_jax.errors import UserError

# Cases in addition to the batch sizes and dtypes of the write-ups.
REFERENCE_CASES = (
    *("resnet18 reference:512:bfloat16", "resnet18 reference:128:bfloat16"),
    "resnet34:512:bfloat16",
)
TORCH_CASES = (
    *("resnet18:512:bfloat16", "resnet18:128:bfloat16", "resnet34:512:bfloat16"),
    "resnet18:512:float32",
)
# (config, epochs); None for the number of epochs in the config.
REFERENCES = (("resnet18", 30), ("resnet34", 30), ("resnet18", None), ("resnet34", None))
# A benchmark is started only if this much time is left.
MIN_SECONDS = 20


class Run(NamedTuple):
    """The settings and state of one invocation of the command.

    Attributes:
      out: The directory of the results.
      work: The directory of temporary files.
      data_dir: The directory of the data sets.
      deadline: When to stop, in terms of time.monotonic().
      small: Whether this is a trial with tiny settings.
      seeds: The number of runs of each experiment.
      failed: The modules of the benchmarks that failed, in order.
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
        """The seconds until the deadline."""
        return self.deadline - time.monotonic()

    def call(
        self, module: str, *arguments: str, save: Callable[[], None] = lambda: None
    ) -> int | None:
        """Runs a benchmark in its own process and kills it at the deadline.

        Args:
          module: The module of the benchmark.
          *arguments: The arguments of the benchmark.
          save: Called every minute while the benchmark runs, and at the end.

        Returns:
          The exit code, or None if the benchmark ran out of time.
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
                    save()
                    if self.seconds_left <= 0:
                        process.kill()
                        break
        save()
        if code:
            self.failed.append(module)
        status = "out of time" if code is None else f"exit code {code}"
        print(f"  {time.monotonic() - start:.0f} s, {status}", flush=True)
        return code

    def records(self, name: str) -> list[dict[str, Any]]:
        """Returns the records in `out`/<name>.jsonl."""
        return read_records(self.out / f"{name}.jsonl")


def check_environment(run: Run) -> None:
    """Writes environment.json with the device, the versions and the speed of a matrix product.

    Raises:
      SystemExit: If a package is missing or the commit is unknown.
    """
    if read_environment(run.out) is not None:
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
        raise SystemExit(f"{done.stderr}\nthe environment is incomplete, see above")
    environment = json.loads(done.stdout.splitlines()[-1]) | {"small": run.small}
    if environment["git_commit"] is None and not run.small:
        raise SystemExit("the commit of this checkout is unknown: set CIFAR_JAX_COMMIT")
    (run.out / "environment.json").write_text(json.dumps(environment) + "\n")
    print(json.dumps(environment))


def throughput(run: Run) -> None:
    """Times every network, and ResNets at large batch sizes in bfloat16."""
    cases = [*CONFIGS, *REFERENCE_CASES]
    flags = ()
    if run.small:
        cases, flags = ["cnn_small:8", "cnn2:8"], ("--seconds", "0.1")
    _measure_missing(run, "throughput", cases, flags)


def versus_torch(run: Run) -> None:
    """Compares ResNets at large batch sizes with PyTorch in all its settings."""
    if run.small:
        _measure_missing(run, "versus_torch", ["cnn_small:8"], ("--rounds", "1", "--steps", "2"))
        return
    _measure_missing(run, "versus_torch", TORCH_CASES, ("--rounds", "5"))


def _measure_missing(run: Run, name: str, cases: Sequence[str], flags: Sequence[str]) -> None:
    """Runs a benchmark for the cases that have no record yet.

    If the process crashes, it is restarted without the case that it crashed in.
    """
    out, skipped = str(run.out / f"{name}.jsonl"), []
    while missing := [c for c in cases if c not in {*_done(run, name), *skipped}]:
        if run.seconds_left < MIN_SECONDS:
            return
        if run.call(f"benchmarks.{name}", *missing, *flags, "--out", out) in (0, None):
            return
        # The first case without a record may have crashed the process.
        failed = [case for case in missing if case not in set(_done(run, name))]
        skipped += failed[:1]


def _done(run: Run, name: str) -> Iterator[str]:
    """Yields the cases that have a record, under all their names."""
    for r in run.records(name):
        yield from _names(r["model"], r["batch_size"], r["dtype"])


def _names(model: str, batch_size: int, dtype: str) -> Iterator[str]:
    """Yields the command-line cases to which a record belongs."""
    yield f"{model}:{batch_size}:{dtype}"
    settings = load_config(CONFIGS[model])
    if dtype == settings.dtype:
        yield f"{model}:{batch_size}"
        if batch_size == settings.batch_size:
            yield model


def augmentation(run: Run) -> None:
    """Measures the cost of augmentation relative to a step of ResNet-18."""
    if not run.records("augmentation"):
        flags = ("flip", "--batch_size", "2", "--rounds", "1", "--seconds", "0.05")
        out = str(run.out / "augmentation.jsonl")
        run.call("benchmarks.augmentation", *(flags if run.small else ()), "--out", out)


def accuracy(run: Run) -> None:
    """Trains the 37 published experiments in order of increasing cost."""
    flags = ("--seeds", str(run.seeds))
    experiments = sorted(PUBLISHED, key=lambda experiment: _cost(run, experiment))
    if run.small:
        experiments, flags = ["cifar10/cnn_small", "assignment/cnn3"], ("--limit", "500")
        flags += ("--epochs", "1")
    _train(run, experiments, flags)


def references(run: Run) -> None:
    """Trains this suite's own ResNet recipes."""
    if run.small:
        # Two epochs, because the first one is the warm-up.
        _train(run, ["resnet18"], ("--limit", "128", "--epochs", "2"))
        return
    for name, epochs in REFERENCES:
        _train(run, [name], () if epochs is None else ("--epochs", str(epochs)))


def _train(run: Run, experiments: Sequence[str], flags: Sequence[str]) -> None:
    """Trains the experiments that have no log yet, and packs the logs."""
    minutes = run.seconds_left / 60 - 0.75  # leaves time to start, and to save at the end
    if minutes <= 0:
        return
    data_dir = find_data(run.data_dir, run.work)
    run.call(
        "benchmarks.accuracy", *experiments, *flags,
        *("--data_dir", str(data_dir), "--minutes", f"{minutes:.2f}"),
        *("--runs", str(run.work / "runs"), "--out", str(run.work / "accuracy")),
        save=lambda: pack(run.work / "accuracy", run.out / "accuracy.tar.gz"),
    )  # fmt: skip


def _cost(run: Run, experiment: str) -> float:
    """Estimates the seconds that an experiment takes, from the measured throughput if available."""
    settings = load_config(experiment)
    records = [r for r in run.records("throughput") if r["dtype"] == "float32"]
    speeds = {r["model"]: r["images_per_second"] for r in records}
    speeds |= {r["config"]: r["images_per_second"] for r in records}
    images_per_second = speeds.get(experiment) or speeds.get(settings.model.name) or 1e4
    return settings.num_epochs * NUM_IMAGES / images_per_second


def versus_torch_zoo(run: Run) -> None:
    """Compares every network with PyTorch."""
    if run.small:
        return
    # PyTorch would need half an hour to autotune all networks.
    quick = ("--settings", "torch_channels_last_fused", "torch_compiled")
    on_gpu = read_environment(run.out)["device"]["platform"] == "gpu"
    networks = [name for name in CONFIGS if " " not in name]
    _measure_missing(run, "versus_torch", networks, ("--rounds", "5", *(quick if on_gpu else ())))


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
    """Returns the directory of the images, after unpacking the available data sets if necessary.

    Raises:
      subprocess.CalledProcessError: If unpack.py fails.
    """
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
    """Formats the results so far as a short table."""
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
    """Runs the stages or collects results; returns the exit code, 1 if a benchmark failed."""
    parser = harness.make_parser("gpu_suite", __doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="directory of the results")
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=Path("~/tensorflow_datasets"),
        help="directory of the data sets (default: ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/gpu_suite"), help="directory of temporary files"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit (default: 9)")
    parser.add_argument("--seeds", type=int, default=1, help="number of runs of each experiment")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=STAGES,
        metavar="STAGE",
        help=f"stages to run: {', '.join(STAGES)} (default: all)",
    )
    parser.add_argument("--small", action="store_true", help="try all stages with tiny settings")
    parser.add_argument(
        "--collect", action="store_true", help="add the results to benchmarks/results"
    )
    args = parser.parse_args(argv[1:])
    try:
        if args.collect:
            collect(args.out)
            return 0
        environment = read_environment(args.out)
        if environment is not None and environment["small"] != args.small:
            before = "without" if args.small else "with"
            raise UserError(f"{args.out} was started {before} --small")
    except UserError as error:
        return harness.reject(error)
    deadline = time.monotonic() + 60 * args.minutes
    out, work = args.out.resolve(), args.work.resolve()
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    data_dir = args.data_dir.expanduser().resolve()
    run = Run(out, work, data_dir, deadline, args.small, args.seeds, failed=[])
    if (out / "accuracy.tar.gz").exists():
        unpack(out / "accuracy.tar.gz", work / "accuracy")
    stages = list(args.only or STAGES)
    if environment is None and "environment" not in stages:
        stages.insert(0, "environment")
    for name in stages:
        if run.seconds_left < MIN_SECONDS:
            print(f"{name}: no time left; run the same command again to continue")
            break
        print(f"\n{name}", flush=True)
        STAGES[name](run)
    text = summarise(run)
    (out / "summary.txt").write_text(text + "\n")
    print("\n" + text)
    return harness.report_failed(run.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
