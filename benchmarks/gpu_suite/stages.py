"""The stages of the suite, the most valuable ones first."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu_suite.collect import pack, read_environment
from benchmarks.gpu_suite.suite import MIN_SECONDS, Suite
from benchmarks.harness import ROOT
from benchmarks.published import PUBLISHED
from benchmarks.results import load_config, rows
from benchmarks.throughput.cases import config_of, names
from benchmarks.throughput.measure import NUM_IMAGES
from cifar_jax import data
from cifar_jax.errors import UserError
from cifar_jax.experiment.parts import compute_dtype

# Cases in addition to the batch sizes and dtypes of the write-ups. The first ones are the headline.
REFERENCE_CASES = (
    *("resnet18 reference:512:bfloat16", "resnet18 reference:128:bfloat16"),
    "resnet34:512:bfloat16",
)
TORCH_CASES = (
    *("resnet18:512:bfloat16", "resnet18:128:bfloat16", "resnet34:512:bfloat16"),
    "resnet18:512:float32",
)
# The settings of PyTorch on a GPU, without autotuning; see benchmarks/versus_torch/settings.py.
GPU_SETTINGS = ("torch_channels_last_fused", "torch_compiled")
# Experiments that train at the same time, without and with NVIDIA's Multi-Process Service.
NUM_JOBS, NUM_MPS_JOBS = 4, 8
# Epochs of the shortened runs of hybrid/.
SHORT_EPOCHS = 30
# The time that PyTorch takes to autotune and measure one case.
AUTOTUNING_SECONDS = 300
# (recipe, framework, runs), the most valuable first.
FIRST_SPEEDRUNS = (("airbench94", "jax", 5), ("cifar100_75", "jax", 5))
SPEEDRUNS = (
    *(("airbench94", "jax", 50), ("cifar100_75", "jax", 50), ("airbench95", "jax", 10)),
    *(("airbench96", "jax", 5), ("airbench94", "torch", 10), ("cifar100_75", "torch", 10)),
)
MAX_PROGRAM_BYTES = 14 * 2**20
# The long recipes to train, after resnet18_30epochs.
REFERENCES = ("resnet18", "resnet34")


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
        raise SystemExit(f"{done.stderr}\nthe environment is incomplete; see above")
    environment = json.loads(done.stdout.splitlines()[-1]) | {"small": suite.small}
    if environment["git_commit"] is None and not suite.small:
        raise SystemExit("the commit of this checkout is unknown: set CIFAR_JAX_COMMIT")
    (suite.out / "environment.json").write_text(json.dumps(environment) + "\n")
    print(json.dumps(environment))


def _gpu_names() -> list[str]:
    """Returns the names of the machine's GPUs."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def check_device(suite: Suite) -> None:
    """Checks that earlier measurements in the suite's directory are from the same kind of GPU.

    Raises:
      UserError: If this machine has GPUs, none of which is of that kind.
    """
    environment, names = read_environment(suite.out), _gpu_names()
    if environment is None or environment["device"]["platform"] != "gpu" or not names:
        return
    kind = environment["device"]["kind"]  # of a part of a GPU, it is longer than the GPU's name
    if not any(map(kind.startswith, names)):
        raise UserError(f"{suite.out} holds measurements on {kind}, but this is {names[0]}")


def probe(suite: Suite) -> None:
    """Decides whether calls run as one CUDA graph; see cifar_jax/gpu_graph.py.

    The answer is kept next to the compiled programs, where the other stages find it.
    """
    if not suite.records("gpu_graph"):
        flags = ("--steps", "1") if suite.small else ("--decide",)
        suite.call("cifar_jax.gpu_graph", *flags, save_output=suite.out / "gpu_graph.jsonl")


def headline(suite: Suite) -> None:
    """Times ResNet-18 at a large batch size, and compares it with PyTorch."""
    if suite.small:
        _measure_missing(suite, "throughput", ["cnn_small:8"], ("--seconds", "0.1"))
        flags = ("--rounds", "1", "--steps", "2", *_quick_settings(suite))
        _measure_missing(suite, "versus_torch", ["cnn_small:8"], flags)
        return
    _time_resnets(suite, REFERENCE_CASES[:1], TORCH_CASES[:1])


def resnets(suite: Suite) -> None:
    """Times ResNets at other batch sizes and dtypes, and compares them with PyTorch."""
    if not suite.small:
        _time_resnets(suite, REFERENCE_CASES, TORCH_CASES)


def _time_resnets(suite: Suite, cases: Sequence[str], torch_cases: Sequence[str]) -> None:
    _measure_missing(suite, "throughput", cases, ("--no_input_share",))
    if _has_torch(suite):
        flags = ("--rounds", "5", *_quick_settings(suite))
        _measure_missing(suite, "versus_torch", torch_cases, flags)


def autotuning(suite: Suite) -> None:
    """Compares ResNet-18 with PyTorch after its autotuning, if there is enough time."""
    tuned = any("torch_autotuned" in r["ms_of_settings"] for r in suite.records("versus_torch"))
    if suite.small or tuned or not _is_on_gpu(suite) or not _has_torch(suite):
        return
    if suite.seconds_left > AUTOTUNING_SECONDS:
        flags = ("--rounds", "5", "--settings", *GPU_SETTINGS, "torch_autotuned")
        out = str(suite.out / "versus_torch.jsonl")
        suite.call("benchmarks.versus_torch", TORCH_CASES[0], *flags, "--out", out)


def throughput(suite: Suite) -> None:
    """Times every network at the batch size and dtype of its write-up, those of write-ups first."""
    own = {load_config(experiment).model.name for experiment in PUBLISHED}
    cases = sorted(names(), key=lambda name: name.partition(" ")[0] not in own)
    flags = ("--no_input_share",)
    if suite.small:
        cases, flags = ["cnn_small:8", "cnn2:8"], ("--seconds", "0.1")
    _measure_missing(suite, "throughput", cases, flags)


def _has_torch(suite: Suite) -> bool:
    """Returns whether PyTorch is installed; if not, the comparison counts as failed."""
    if util.find_spec("torch") is not None:
        return True
    print("PyTorch is not installed; run `make reference`")
    suite.failed.append("benchmarks.versus_torch")
    return False


def _is_on_gpu(suite: Suite) -> bool:
    return _platform(suite) == "gpu"


def _platform(suite: Suite) -> str:
    return read_environment(suite.out)["device"]["platform"]


def _quick_settings(suite: Suite) -> tuple[str, ...]:
    """Returns the flags that leave out PyTorch's autotuning, which takes half an hour in all."""
    if not _is_on_gpu(suite):
        return ("--settings", "torch") if suite.small else ()
    return ("--settings", *GPU_SETTINGS)


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
        yield from _names(r["model"], r["batch_size"], r["dtype"], _platform(suite))


def _names(model: str, batch_size: int, dtype: str, platform: str) -> Iterator[str]:
    """Yields the names, on the command line, of the case to which a record belongs.

    Args:
      model: The name of the network.
      batch_size: The number of images per step.
      dtype: The dtype of the computation.
      platform: The device's, "cpu" or "gpu". This process must not ask JAX for it, which would
        occupy the GPU.
    """
    yield f"{model}:{batch_size}:{dtype}"
    settings = load_config(config_of(model))
    if dtype == compute_dtype(settings.dtype, platform):
        yield f"{model}:{batch_size}"
        if batch_size == settings.batch_size:
            yield model


def speedrun(suite: Suite) -> None:
    """Times a few runs of the two shortest recipes in configs/speedrun/."""
    if not suite.small:
        _time_speedruns(suite, FIRST_SPEEDRUNS)
        return
    small = ("data.limit=200", "batch_size=100", "num_epochs=1", "model.widths=8,8,8")
    _time_speedruns(suite, [("airbench94", "jax", 1)], [f"--config.{field}" for field in small])


def more_speedruns(suite: Suite) -> None:
    """Times more runs of all recipes, and after them of two of them in PyTorch."""
    if not suite.small:
        _time_speedruns(suite, SPEEDRUNS)


def _time_speedruns(
    suite: Suite, recipes: Sequence[tuple[str, str, int]], flags: Sequence[str] = ()
) -> None:
    """Times the runs that are missing.

    PyTorch's autotuning takes minutes, so PyTorch starts only if enough time is left.
    """
    for name, framework, num_runs in recipes:
        needed = AUTOTUNING_SECONDS if framework == "torch" else MIN_SECONDS
        done = [(r["recipe"], r["framework"]) for r in suite.records("speedrun")]
        num_done = done.count((name, framework))
        if num_done >= num_runs or suite.seconds_left < needed:
            continue
        if framework == "torch" and not _has_torch(suite):
            return
        data_dir = _images(suite, load_config(f"speedrun/{name}").data.name)
        if data_dir is None:
            continue
        suite.call(
            "benchmarks.speedrun", name, "--framework", framework, *flags,
            *("--runs", str(num_runs - num_done), "--first_seed", str(num_done)),
            *("--data_dir", str(data_dir)),
            *("--out", str(suite.out / "speedrun.jsonl")),
        )  # fmt: skip


def augmentation(suite: Suite) -> None:
    """Measures the cost of augmentation relative to a step of ResNet-18."""
    if not suite.records("augmentation"):
        flags = ("flip", "--batch_size", "2", "--rounds", "1", "--seconds", "0.05")
        out = str(suite.out / "augmentation.jsonl")
        suite.call("benchmarks.augmentation", *(flags if suite.small else ()), "--out", out)


def experiments(suite: Suite) -> None:
    """Trains the published experiments outside hybrid/, several at once."""
    if suite.small:
        flags = ("--limit", "500", "--epochs", "1", "--jobs", "2")
        _train(suite, ["cifar10/cnn_small", "assignment/cnn3"], flags)
    else:
        _train_together(suite, _by_value(suite)[0])


def hybrid_short(suite: Suite) -> None:
    """Trains the experiments in hybrid/, six times the work of all others, for SHORT_EPOCHS."""
    if not suite.small:
        longer = [e for e in _by_value(suite)[1] if load_config(e).num_epochs > SHORT_EPOCHS]
        _train_together(suite, longer, ("--epochs", str(SHORT_EPOCHS)))


def hybrid(suite: Suite) -> None:
    """Trains the experiments in hybrid/ at full length."""
    if not suite.small:
        _train_together(suite, _by_value(suite)[1])


def _train_together(suite: Suite, experiments: Sequence[str], flags: Sequence[str] = ()) -> None:
    """Trains experiments several at once."""
    with _shared_gpu(suite) as num_jobs:
        jobs = ("--seeds", str(suite.seeds), "--jobs", str(num_jobs))
        _train(suite, experiments, (*jobs, *flags))


@contextlib.contextmanager
def _shared_gpu(suite: Suite) -> Iterator[int]:
    """Starts NVIDIA's Multi-Process Service if it is installed, and stops it at the end.

    Without it, several processes take turns on a GPU. A few still pay, because some compile while
    others train.

    Yields:
      The number of runs to train at the same time.
    """
    command = shutil.which("nvidia-cuda-mps-control")
    if command is None or not _is_on_gpu(suite):
        yield NUM_JOBS
        return
    # The service numbers the GPUs that it sees, so it has to see those that the runs name.
    environ = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    started = subprocess.run([command, "-d"], env=environ, capture_output=True).returncode == 0
    try:
        # Somebody else may have started it; then it is theirs to stop.
        runs = started or _tell(command, "get_server_list")
        yield NUM_MPS_JOBS if runs else NUM_JOBS
    finally:
        if started:
            _tell(command, "quit")


def _tell(command: str, text: str) -> bool:
    """Sends a line to the Multi-Process Service, and returns whether it answers."""
    try:
        done = subprocess.run(
            [command], input=f"{text}\n".encode(), capture_output=True, timeout=30
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _by_value(suite: Suite) -> tuple[list[str], list[str]]:
    """Returns the experiments outside hybrid/ and those in it, in the order to train them in.

    Those come first that have no complete run in benchmarks/results, then those with a published
    accuracy, and among these the cheapest.
    """
    complete = {row.experiment for row in rows() if row.is_complete}

    def value(experiment: str) -> tuple[bool, bool, float]:
        lacks_accuracy = PUBLISHED[experiment].test_accuracy is None
        return experiment in complete, lacks_accuracy, _cost(suite, experiment)

    ordered = sorted(PUBLISHED, key=value)
    return (
        [e for e in ordered if not e.startswith("hybrid/")],
        [e for e in ordered if e.startswith("hybrid/")],
    )


def recipe(suite: Suite) -> None:
    """Trains this suite's short ResNet recipe."""
    if suite.small:
        _train(suite, ["cnn3"], ("--limit", "128", "--epochs", "1"))
    else:
        _train(suite, ["resnet18_30epochs"], ())


def references(suite: Suite) -> None:
    """Trains this suite's long ResNet recipes."""
    for name in () if suite.small else REFERENCES:
        _train(suite, [name], ())


def _train(suite: Suite, experiments: Sequence[str], flags: Sequence[str]) -> None:
    """Trains the experiments that have no log yet, and packs the logs."""
    minutes = suite.seconds_left / 60 - 0.75  # leaves time to start, and to save at the end
    names = {experiment: load_config(experiment).data.name for experiment in experiments}
    folders = {name: _images(suite, name) for name in set(names.values())}
    experiments = [e for e in experiments if folders[names[e]] is not None]
    if minutes <= 0 or not experiments:
        return
    data_dir = folders[names[experiments[0]]]  # the same for all data sets
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
    if suite.small or not _has_torch(suite):
        return
    from benchmarks.versus_torch import cases  # imported here because it needs PyTorch

    flags = ("--rounds", "5", *_quick_settings(suite))
    _measure_missing(suite, "versus_torch", cases.names(), flags)


def pack_programs(suite: Suite) -> None:
    """Packs the compiled programs, so that another machine of the same kind need not compile them.

    An archive of more than MAX_PROGRAM_BYTES is not kept.
    """
    archive = suite.out / "programs.tar.gz"
    pack(suite.work / "programs", archive)
    if archive.exists() and archive.stat().st_size > MAX_PROGRAM_BYTES:
        archive.unlink()


def _images(suite: Suite, name: str) -> Path | None:
    """Returns the directory of a data set, or None if it is not there and cannot be prepared."""
    try:
        data_dir = find_data(suite.data_dir, suite.work)
    except subprocess.CalledProcessError as error:
        print(f"{suite.data_dir}/unpack.py failed with exit code {error.returncode}")
        suite.failed.append("unpack.py")
        return None
    if data.is_there(name, data_dir) or util.find_spec("tensorflow_datasets") is not None:
        return data_dir
    print(f"skipped what needs {name}, which is not in {data_dir}")
    return None


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


class Stage(NamedTuple):
    """A stage of the suite.

    Attributes:
      run: Runs the parts of the stage that have no results yet.
      minutes: About how many minutes the whole stage takes on an H100: an estimate from the
        programs that are compiled and the steps that are run.
      needs_images: Whether it trains on CIFAR.
    """

    run: Callable[[Suite], None]
    minutes: float
    needs_images: bool = False


STAGES = {
    "environment": Stage(check_environment, 0.5),
    "probe": Stage(probe, 0.5),
    "headline": Stage(headline, 3),
    "recipe": Stage(recipe, 2, needs_images=True),
    "speedrun": Stage(speedrun, 4, needs_images=True),
    "experiments": Stage(experiments, 12, needs_images=True),
    "resnets": Stage(resnets, 5),
    "throughput": Stage(throughput, 15),
    "references": Stage(references, 10, needs_images=True),
    "more_speedruns": Stage(more_speedruns, 12, needs_images=True),
    "hybrid_short": Stage(hybrid_short, 10, needs_images=True),
    "versus_torch_zoo": Stage(versus_torch_zoo, 45),
    "autotuning": Stage(autotuning, 5),
    "augmentation": Stage(augmentation, 3),
    "hybrid": Stage(hybrid, 65, needs_images=True),
}
