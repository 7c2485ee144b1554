"""Compares a whole training epoch of cnn3 on a CPU with Keras and PyTorch.

    python -m benchmarks.epoch [CONTENDER ...] [--data_dir D] [--rounds N] [--limit N] [--out FILE]

All contenders follow configs/assignment/cnn3.py: the 41,500 training images of CIFAR-100, stored as
uint8, are shuffled, flipped and shifted by up to a tenth of their size; training uses batches of
32, dropout, Adam at 1e-4 and float32, and computes loss and accuracy. Keras augments with its
layers RandomFlip and RandomTranslation inside `fit`. PyTorch augments with NumPy in a Dataset that
a DataLoader reads in the training process or in two worker processes; it shifts by whole pixels,
which is less work, and uses channels_last and a fused Adam, its fastest setting for this network.
No contender draws a progress bar. All of them get their large arrays in huge pages, as
`python -m cifar_jax.main` does by default.

Every turn runs in its own process because Keras chooses its backend at import. It first trains on
one hundred batches, which compiles everything, and then the epoch is timed. cifar_jax starts the
epoch from a new initialisation; the others continue from those batches. Contenders are interleaved
and ratios are taken within rounds. The machine must be otherwise idle.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks.harness import RESULTS, ROOT, Record
from benchmarks.idle import background_load, processor_seconds
from cifar_jax.errors import UserError, unknown

OUT = RESULTS / "epoch.jsonl"
CONFIG = "assignment/cnn3"
BATCH_SIZE, LEARNING_RATE, SHIFT = 32, 1e-4, 0.1
_WARM_UP_BATCHES = 100

# Trains one epoch on the first `count` images and returns (mean loss, accuracy). Each `make_*`
# function below takes images [N, 32, 32, 3] uint8 and labels [N] int32 and returns an Epoch.
Epoch = Callable[[int], tuple[float, float]]


def make_cifar_jax(images: np.ndarray, labels: np.ndarray) -> Epoch:
    """Returns the epoch that `python -m cifar_jax.main` trains, without evaluation.

    Raises:
      ValueError: If the config no longer matches the recipe that the other contenders follow.
    """
    from cifar_jax import config, data, experiment
    from cifar_jax.loop import run_until
    from cifar_jax.run.clock import Clock
    from cifar_jax.runtime import compilation_cache

    compilation_cache.turn_off()
    settings = config.load(ROOT / "configs" / f"{CONFIG}.py")
    if (settings.batch_size, settings.optim.learning_rate) != (BATCH_SIZE, LEARNING_RATE):
        raise ValueError(
            f"{CONFIG} needs batch size {BATCH_SIZE} and learning rate {LEARNING_RATE}"
        )
    settings.data.val_fraction = 0.0  # `images` is already the training split
    settings.dtype = "float32"
    split = data.Split(images, labels)
    mean, std = np.zeros(3, np.float32), np.ones(3, np.float32)
    names = tuple(map(str, range(100)))
    dataset = data.Dataset("cifar100", "fine", split, None, split, names, mean, std)
    engine = experiment.create(experiment.resolved(settings), dataset).engine
    clock = Clock(settings.steps_per_call)

    def epoch(count: int) -> tuple[float, float]:
        state = engine.init()  # each epoch uses the batches of epoch 0
        _, _, values, _ = run_until(
            engine, state, engine.no_metrics(), engine.plan(state, 0), 0, -(-count // BATCH_SIZE),
            clock, should_stop=lambda step: False, progress=lambda *_: None,
        )  # fmt: skip
        return values["loss"], values["accuracy"]

    return epoch


def make_keras(images: np.ndarray, labels: np.ndarray) -> Epoch:
    """Returns an epoch of Keras' `fit` on the backend selected by KERAS_BACKEND."""
    import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((32, 32, 3))])
    model.add(layers.Rescaling(1 / 255))
    model.add(layers.RandomFlip("horizontal"))
    model.add(layers.RandomTranslation(SHIFT, SHIFT, fill_mode="nearest"))
    for filters, dropout in ((32, 0), (64, 0.1), (128, 0.25)):
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
        if dropout:
            model.add(layers.Dropout(dropout))
    model.add(layers.Flatten())
    model.add(layers.Dense(512, activation="relu"))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(100))
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def epoch(count: int) -> tuple[float, float]:
        history = model.fit(images[:count], labels[:count], batch_size=BATCH_SIZE, verbose=0)
        return history.history["loss"][0], history.history["accuracy"][0]

    return epoch


def make_torch(images: np.ndarray, labels: np.ndarray, workers: int = 0) -> Epoch:
    """Returns an epoch of a PyTorch training loop over a DataLoader."""
    import torch

    from benchmarks import torch_models

    max_shift = int(SHIFT * 32)
    # Pixels outside the image take the value of the nearest pixel inside it.
    padded = np.clip(np.arange(-max_shift, 32 + max_shift), 0, 31)

    class Images(torch.utils.data.Dataset):
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def __getitem__(self, i):
            image = images[i]
            if torch.rand(()) < 0.5:
                image = image[:, ::-1]
            down, right = torch.randint(0, 2 * max_shift + 1, (2,)).tolist()
            image = image[padded[down : down + 32]][:, padded[right : right + 32]]
            image = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            return image.float() / 255, int(labels[i])

    layout = torch.channels_last
    model = torch_models.CNN3(100).to(memory_format=layout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def epoch(count: int) -> tuple[float, float]:
        loader = torch.utils.data.DataLoader(
            Images(count), BATCH_SIZE, shuffle=True, num_workers=workers
        )
        total_loss, num_correct = 0.0, 0
        for x, y in loader:
            logits = model(x.to(memory_format=layout))
            loss = torch.nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(y)
            num_correct += int((logits.argmax(1) == y).sum())
        return total_loss / count, num_correct / count

    return epoch


def make_torch_with_workers(images: np.ndarray, labels: np.ndarray) -> Epoch:
    """Returns the epoch of `make_torch` with two DataLoader worker processes."""
    return make_torch(images, labels, workers=2)


CONTENDERS = {
    "cifar_jax": make_cifar_jax,
    "keras_jax": make_keras,
    "keras_torch": make_keras,
    "torch": make_torch,
    "torch_workers": make_torch_with_workers,
}


def time_epoch(name: str, data_dir: str | None, limit: int) -> Record:
    """Times one epoch of a contender in this process.

    Args:
      name: A key of CONTENDERS.
      data_dir: The TFDS directory with CIFAR-100, "" for the default one, or None to train on
        synthetic images.
      limit: The number of images, or 0 for all.

    Returns:
      The seconds, loss, accuracy and number of images.

    Raises:
      RuntimeError: If the loss becomes NaN or infinite.
    """
    import cifar_jax.data

    data_set = "cifar100" if data_dir is not None else "synthetic"
    dataset = cifar_jax.data.load(
        data_set, data_dir=data_dir, val_fraction=0.17, val_seed=42, limit=limit
    )
    images, labels = dataset.train
    count = len(images)
    train = CONTENDERS[name](images, labels)
    # The warm-up ends with a batch as long as the epoch's last one, because some contenders compile
    # once per batch size.
    train(min(_WARM_UP_BATCHES * BATCH_SIZE + (count % BATCH_SIZE), count))
    start = time.perf_counter()
    loss, accuracy = train(count)
    seconds = time.perf_counter() - start
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss became {loss}; the time is meaningless")
    return {"seconds": seconds, "loss": loss, "accuracy": accuracy, "images": count}


def time_epoch_in_subprocess(name: str, data_dir: str | None, limit: int) -> Record:
    """Runs `time_epoch` in a new process.

    Raises:
      subprocess.CalledProcessError: If it fails there.
    """
    argv = [sys.executable, "-m", "benchmarks.epoch", name, "--one", "--limit", str(limit)]
    argv += ["--data_dir", data_dir] if data_dir is not None else ["--synthetic"]
    env = dict(os.environ)
    if name.startswith("keras_"):
        env["KERAS_BACKEND"] = name.removeprefix("keras_")
    env |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    env |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def comparison(turns: dict[str, list[Record]]) -> Record:
    """Summarises the turns of each contender, which include "cifar_jax".

    Returns:
      The record's fields `seconds`, the median of each contender; `fastest_other`; and
      `times_as_fast`, the median, min and max over rounds of its time divided by that of cifar_jax.
    """
    seconds = {name: [turn["seconds"] for turn in results] for name, results in turns.items()}
    medians, fastest = harness.compare(seconds, "cifar_jax")
    return {
        "seconds": medians,
        "fastest_other": fastest,
        "times_as_fast": harness.ratio(seconds[fastest], seconds["cifar_jax"]),
    }


def table(record: Record) -> str:
    """Formats a record as a table."""
    lines = [f"{'':<15} {'seconds':>8} {'images/s':>9} {'loss':>7} {'accuracy':>9}"]
    for name, seconds in record["seconds"].items():
        last = record["turns"][name][-1]
        lines.append(
            f"{name:<15} {seconds:>8.1f} {last['images'] / seconds:>9,.0f} "
            f"{last['loss']:>7.3f} {100 * last['accuracy']:>8.2f}%"
        )
    times = record["times_as_fast"]
    lines.append(
        f"{times['median']:.2f} times as fast ({times['min']:.2f} to {times['max']:.2f}) as "
        f"{record['fastest_other']}; background load {record['used_elsewhere']:.1%}"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Interleaves the contenders, appends a record, prints a table and returns the exit code."""
    parser = harness.make_parser("epoch", __doc__)
    parser.add_argument(
        "contenders",
        nargs="*",
        metavar="CONTENDER",
        default=[],
        help=f"cifar_jax and others to compare it with: {', '.join(CONTENDERS)} (default: all)",
    )
    parser.add_argument(
        "--data_dir", default="", metavar="D", help="TFDS directory that holds CIFAR-100"
    )
    parser.add_argument(
        "--synthetic", action="store_true", help="train on synthetic images, for a trial"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="number of rounds (default: 3)"
    )
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="number of images, for a trial"
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="file for the record")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    data_dir = None if args.synthetic else args.data_dir
    names = args.contenders or list(CONTENDERS)
    try:
        for name in names:
            if name not in CONTENDERS:
                raise unknown("contender", name, CONTENDERS)
        if args.one:
            print(json.dumps(time_epoch(names[0], data_dir, args.limit)))
            return 0
    except UserError as error:
        parser.error(str(error))
    try:
        if "cifar_jax" not in names or len(names) < 2:
            raise UserError("the comparison needs cifar_jax and another contender")
        if args.rounds < 1:
            raise UserError("--rounds needs a whole number above 0")
        if args.limit < 0:
            raise UserError("--limit needs 0, for all images, or more")
        if args.out == OUT and (args.limit or args.synthetic):
            raise UserError("a trial is not a result: choose another file with --out")
        output = harness.open_output(args.out)
    except (UserError, OSError) as error:
        parser.error(str(error))
    with output:
        try:
            record = measure_contenders(names, data_dir, args.limit, args.rounds)
        except subprocess.CalledProcessError as error:  # the process has printed the reason
            print("no record was written", file=sys.stderr)
            return error.returncode
        harness.append(output, record)
    print(table(record))
    return 0


def measure_contenders(
    names: Sequence[str], data_dir: str | None, limit: int, num_rounds: int
) -> Record:
    """Interleaves epochs of the contenders and returns the record.

    Args:
      names: Keys of CONTENDERS, among them "cifar_jax".
      data_dir: As in `time_epoch`.
      limit: As in `time_epoch`.
      num_rounds: The number of epochs of each contender.

    Raises:
      subprocess.CalledProcessError: If a contender fails.
    """
    from cifar_jax.runtime.environment import environment

    versions = {
        package: version(package)
        for package in ("torch", "keras")
        if any(package in name for name in names)
    }

    def take_turn(name: str) -> Record:
        try:
            return time_epoch_in_subprocess(name, data_dir, limit)
        except subprocess.CalledProcessError:
            print(f"{name} failed, see above", file=sys.stderr)
            raise

    def report(i: int, name: str, turn: Record) -> None:
        print(f"round {i + 1}: {name} {turn['seconds']:.1f} s", flush=True)

    before = processor_seconds()
    turns = {name: partial(take_turn, name) for name in names}
    results = harness.interleave(turns, num_rounds, report)
    record = {
        "config": CONFIG,
        "images": results["cifar_jax"][0]["images"],
        "batch_size": BATCH_SIZE,
        "rounds": num_rounds,
        **comparison(results),
        "turns": results,
        "used_elsewhere": background_load(before, processor_seconds()),
        **environment(),
    }
    record["versions"] |= versions
    return record


if __name__ == "__main__":
    sys.exit(main())
