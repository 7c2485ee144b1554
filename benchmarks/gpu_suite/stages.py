"""The stages of the suite, the most valuable ones first."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import util
from pathlib import Path

from benchmarks.gpu_suite.collect import pack, read_environment
from benchmarks.gpu_suite.suite import MIN_SECONDS, Suite
from benchmarks.harness import ROOT
from benchmarks.published import PUBLISHED
from benchmarks.results import load_config
from benchmarks.throughput.cases import config_of, names
from benchmarks.throughput.measure import NUM_IMAGES

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


def check_environment(suite: Suite) -> None:
    """Writes environment.json with the device, the versions and the speed of a matrix product.

    Raises:
      SystemExit: If a package is missing or the commit is unknown.
    """
    if read_environment(suite.out) is not None:
        return
    command = [sys.executable, "-m", "benchmarks.gpu_suite.environment"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nthe environment is incomplete, see above")
    environment = json.loads(done.stdout.splitlines()[-1]) | {"small": suite.small}
    if environment["git_commit"] is None and not suite.small:
        raise SystemExit("the commit of this checkout is unknown: set CIFAR_JAX_COMMIT")
    (suite.out / "environment.json").write_text(json.dumps(environment) + "\n")
    print(json.dumps(environment))


def throughput(suite: Suite) -> None:
    """Times every network, and ResNets at large batch sizes in bfloat16."""
    cases = [*names(), *REFERENCE_CASES]
    flags = ()
    if suite.small:
        cases, flags = ["cnn_small:8", "cnn2:8"], ("--seconds", "0.1")
    _measure_missing(suite, "throughput", cases, flags)


def versus_torch(suite: Suite) -> None:
    """Compares ResNets at large batch sizes with PyTorch in all its settings."""
    if suite.small:
        _measure_missing(suite, "versus_torch", ["cnn_small:8"], ("--rounds", "1", "--steps", "2"))
        return
    _measure_missing(suite, "versus_torch", TORCH_CASES, ("--rounds", "5"))


def _measure_missing(suite: Suite, name: str, cases: Sequence[str], flags: Sequence[str]) -> None:
    """Runs a benchmark for the cases that have no record yet.

    If the process crashes, it is restarted without the case in which it crashed.
    """
    out, skipped = str(suite.out / f"{name}.jsonl"), []
    while missing := [c for c in cases if c not in {*_done(suite, name), *skipped}]:
        if suite.seconds_left < MIN_SECONDS:
            return
        if suite.call(f"benchmarks.{name}", *missing, *flags, "--out", out) in (0, None):
            return
        # The first case without a record may have crashed the process.
        failed = [case for case in missing if case not in set(_done(suite, name))]
        skipped += failed[:1]


def _done(suite: Suite, name: str) -> Iterator[str]:
    """Yields all names of the cases that have a record."""
    for r in suite.records(name):
        yield from _names(r["model"], r["batch_size"], r["dtype"])


def _names(model: str, batch_size: int, dtype: str) -> Iterator[str]:
    """Yields the names, on the command line, of the case to which a record belongs."""
    yield f"{model}:{batch_size}:{dtype}"
    settings = load_config(config_of(model))
    if dtype == settings.dtype:
        yield f"{model}:{batch_size}"
        if batch_size == settings.batch_size:
            yield model


def augmentation(suite: Suite) -> None:
    """Measures the cost of augmentation relative to a step of ResNet-18."""
    if not suite.records("augmentation"):
        flags = ("flip", "--batch_size", "2", "--rounds", "1", "--seconds", "0.05")
        out = str(suite.out / "augmentation.jsonl")
        suite.call("benchmarks.augmentation", *(flags if suite.small else ()), "--out", out)


def accuracy(suite: Suite) -> None:
    """Trains the 37 published experiments in order of increasing cost."""
    flags = ("--seeds", str(suite.seeds))
    experiments = sorted(PUBLISHED, key=lambda experiment: _cost(suite, experiment))
    if suite.small:
        experiments, flags = ["cifar10/cnn_small", "assignment/cnn3"], ("--limit", "500")
        flags += ("--epochs", "1")
    _train(suite, experiments, flags)


def references(suite: Suite) -> None:
    """Trains this suite's own ResNet recipes."""
    if suite.small:
        # Two epochs, because the first one is the warm-up.
        _train(suite, ["resnet18"], ("--limit", "128", "--epochs", "2"))
        return
    for name, epochs in REFERENCES:
        _train(suite, [name], () if epochs is None else ("--epochs", str(epochs)))


def _train(suite: Suite, experiments: Sequence[str], flags: Sequence[str]) -> None:
    """Trains the experiments that have no log yet, and packs the logs."""
    minutes = suite.seconds_left / 60 - 0.75  # leaves time to start, and to save at the end
    if minutes <= 0:
        return
    data_dir = find_data(suite.data_dir, suite.work)
    suite.call(
        "benchmarks.accuracy", *experiments, *flags,
        *("--data_dir", str(data_dir), "--minutes", f"{minutes:.2f}"),
        *("--runs", str(suite.work / "runs"), "--out", str(suite.work / "accuracy")),
        save=lambda: pack(suite.work / "accuracy", suite.out / "accuracy.tar.gz"),
    )  # fmt: skip


def _cost(suite: Suite, experiment: str) -> float:
    """Estimates the seconds that an experiment takes, from the measured throughput if available."""
    settings = load_config(experiment)
    records = [r for r in suite.records("throughput") if r["dtype"] == "float32"]
    speeds = {r["model"]: r["images_per_second"] for r in records}
    speeds |= {r["config"]: r["images_per_second"] for r in records}
    images_per_second = speeds.get(experiment) or speeds.get(settings.model.name) or 1e4
    return settings.num_epochs * NUM_IMAGES / images_per_second


def versus_torch_zoo(suite: Suite) -> None:
    """Compares every network with PyTorch."""
    if suite.small:
        return
    if util.find_spec("torch") is None:
        print("PyTorch is not installed: make reference")
        suite.failed.append("benchmarks.versus_torch")
        return
    from benchmarks.versus_torch import cases  # imported here because it needs PyTorch

    # PyTorch would need half an hour to autotune all networks.
    quick = ("--settings", "torch_channels_last_fused", "torch_compiled")
    on_gpu = read_environment(suite.out)["device"]["platform"] == "gpu"
    flags = ("--rounds", "5", *(quick if on_gpu else ()))
    _measure_missing(suite, "versus_torch", cases.names(), flags)


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


STAGES: dict[str, Callable[[Suite], None]] = {
    "environment": check_environment,
    "throughput": throughput,
    "versus_torch": versus_torch,
    "accuracy": accuracy,
    "references": references,
    "augmentation": augmentation,
    "versus_torch_zoo": versus_torch_zoo,
}
