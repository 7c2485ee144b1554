"""All that this suite claims about a machine with a GPU, measured by one command.

    python -m benchmarks.gpu_suite OUT --data_dir D [--minutes 9] [--only STAGE ...]
    python -m benchmarks.gpu_suite OUT --collect

measures in STAGES, each a benchmark of its own in a process of its own, and stops after --minutes.
Called again with the same OUT it goes on where it stopped, on another machine too; OUT holds a
handful of small files: records as JSON lines, and accuracy.tar.gz with the logs of the trainings.
--collect adds them to benchmarks/results; `python -m benchmarks.table` then brings the README up to
date.

--data_dir is a TFDS directory, or a folder with the unpacked official archives, or one with an
unpack.py that writes those (`python unpack.py FOLDER`). It needs no network. --work is for what
need not be kept: workdirs and compiled programs. --small tries the whole way in a minute or two, on
a CPU too.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.published import PUBLISHED
from benchmarks.results import RESULTS, ROOT, load_config
from benchmarks.throughput import CONFIGS
from cifar_jax.errors import UserError

JSON_LINES = ("throughput", "versus_torch", "augmentation")
# Beyond the write-ups' own batches and dtypes.
REFERENCE_CASES = ("resnet18:512:bfloat16", "resnet18:128:bfloat16", "resnet34:512:bfloat16")
TORCH_CASES = (*REFERENCE_CASES, "resnet18:512:float32")
# (config, epochs); None for the config's own.
REFERENCES = (("resnet18", 30), ("resnet34", 30), ("resnet18", None), ("resnet34", None))
IMAGES = 50_000


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

    def call(self, module: str, *arguments: str) -> None:
        """Runs a benchmark in a process of its own, until the deadline at most."""
        command = [sys.executable, "-m", module, *arguments]
        print(f"$ {' '.join(command[1:])}", flush=True)
        environ = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(self.work / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        start = time.monotonic()
        try:
            code = subprocess.run(
                command, cwd=ROOT, env=environ, timeout=max(self.seconds_left, 1)
            ).returncode
        except subprocess.TimeoutExpired:
            ending = "out of time"
        else:
            ending = f"exit code {code}"
            if code:
                self.failed.append(module)
        print(f"  {time.monotonic() - start:.0f} s, {ending}", flush=True)

    def records(self, name: str) -> list[dict[str, Any]]:
        """Returns the records of a file of JSON lines in `out`."""
        path = self.out / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_environment(run: Run) -> None:
    """Writes environment.json: device, versions, and that a product of matrices works."""
    code = (
        "import json, jax; from benchmarks import peak; from cifar_jax.environment import *; "
        "dtypes = ('float32', 'bfloat16'); "
        "print(json.dumps(environment() | {'peak': {d: peak.measured(d) for d in dtypes}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"jax does not work here:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1]) | {"small": run.small}
    (run.out / "environment.json").write_text(json.dumps(found) + "\n")
    print(json.dumps(found))


def throughput(run: Run) -> None:
    """Times every network, and ResNets in the sizes that GPUs like."""
    cases = [name for name in CONFIGS] + list(REFERENCE_CASES)
    flags = ()
    if run.small:
        cases, flags = ["cnn_small:8", "cnn2:8"], ("--seconds", "0.1")
    _each(run, "throughput", cases, flags)


def versus_torch(run: Run) -> None:
    """Every network beside PyTorch."""
    if run.small:
        _each(run, "versus_torch", ["cnn_small:8"], ("--rounds", "1", "--steps", "2"))
        return
    _each(run, "versus_torch", TORCH_CASES, ("--rounds", "5"))
    on_gpu = checked(run.out)["device"]["platform"] == "gpu"
    # Autotuning all of them would take PyTorch half an hour.
    quick = ("--settings", "torch_channels_last_fused", "torch_compiled") if on_gpu else ()
    every = [name for name in CONFIGS if " " not in name]
    _each(run, "versus_torch", every, ("--rounds", "5", *quick))


def checked(out: Path) -> dict[str, Any] | None:
    """Returns what check_environment wrote; None before it has."""
    path = out / "environment.json"
    return json.loads(path.read_text()) if path.exists() else None


def _each(run: Run, name: str, cases: Sequence[str], flags: Sequence[str]) -> None:
    """Runs a benchmark for those of its cases that have no record yet."""
    done = {
        key for r in run.records(name) for key in _names(r["model"], r["batch_size"], r["dtype"])
    }
    missing = [case for case in cases if case not in done]
    if missing:
        run.call(f"benchmarks.{name}", *missing, *flags, "--out", str(run.out / f"{name}.jsonl"))


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
        _train(run, ["resnet18"], ("--limit", "128", "--epochs", "1"))
        return
    for name, epochs in REFERENCES:
        _train(run, [name], () if epochs is None else ("--epochs", str(epochs)))


def _train(run: Run, experiments: Sequence[str], flags: Sequence[str]) -> None:
    """Trains what has no log yet, and packs the logs."""
    minutes = run.seconds_left / 60 - 0.25  # for the packing
    if minutes <= 0:
        return
    run.call(
        "benchmarks.accuracy", *experiments, *flags,
        *("--data_dir", str(run.data_dir), "--minutes", f"{minutes:.2f}"),
        *("--runs", str(run.work / "runs"), "--out", str(run.work / "accuracy")),
    )  # fmt: skip
    pack(run.work / "accuracy", run.out / "accuracy.tar.gz")


def _cost(run: Run, experiment: str) -> float:
    """Returns the seconds that an experiment takes by the throughput measured, or a guess."""
    settings = load_config(experiment)
    rates = {
        r["model"].partition(" ")[0]: r["images_per_second"]
        for r in run.records("throughput")
        if r["dtype"] == "float32"
    }
    return settings.num_epochs * IMAGES / rates.get(settings.model.name, 1e4)


STAGES: dict[str, Callable[[Run], None]] = {
    "environment": check_environment,
    "throughput": throughput,
    "versus_torch": versus_torch,
    "augmentation": augmentation,
    "accuracy": accuracy,
    "references": references,
}


def pack(folder: Path, archive: Path) -> None:
    """Writes a folder's files into a .tar.gz, under their places in it."""
    if folder.is_dir():
        part = archive.with_suffix(".part")
        with tarfile.open(part, "w:gz") as tar:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    tar.add(path, path.relative_to(folder).as_posix())
        part.replace(archive)


def unpack(archive: Path, folder: Path) -> int:
    """Writes those files of a .tar.gz that a folder lacks; returns how many."""
    count = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and not (folder / member.name).exists():
                tar.extract(member, folder, filter="data")
                count += 1
    return count


def collect(out: Path) -> None:
    """Adds what a suite measured to benchmarks/results.

    Raises:
      UserError: for a folder without measurements, or with those of a trial.
    """
    found = checked(out)
    if found is None or found["small"]:
        what = "no measurements" if found is None else "what --small measured, which is no result"
        raise UserError(f"{out} holds {what}")
    for name in JSON_LINES:
        path, target = out / f"{name}.jsonl", RESULTS / f"{name}.jsonl"
        known = set(target.read_text().splitlines()) if target.exists() else set()
        lines = path.read_text().splitlines() if path.exists() else []
        new = [line for line in lines if line not in known]
        if new:
            with target.open("a") as file:
                file.writelines(f"{line}\n" for line in new)
        print(f"{name}: {len(new)} new records")
    if (out / "accuracy.tar.gz").exists():
        count = unpack(out / "accuracy.tar.gz", RESULTS / "accuracy")
        print(f"accuracy: {count} new files")


def find_data(data_dir: Path, work: Path) -> Path:
    """Returns where the images lie, unpacked if need be."""
    if not (data_dir / "unpack.py").exists():
        return data_dir
    target = work / "data"
    if not target.exists():
        part = target.with_suffix(".part")
        subprocess.run([sys.executable, str(data_dir / "unpack.py"), str(part)], check=True)
        part.replace(target)
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
    data_dir = find_data(args.data_dir.expanduser().resolve(), work)
    run = Run(out, work, data_dir, deadline, args.small, args.seeds, failed=[])
    if (out / "accuracy.tar.gz").exists():
        unpack(out / "accuracy.tar.gz", work / "accuracy")
    stages = list(args.only or STAGES)
    if found is None and "environment" not in stages:
        stages.insert(0, "environment")
    for name in stages:
        if run.seconds_left < 20:
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
