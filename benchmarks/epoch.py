"""One epoch of cnn3 on a CPU with all that belongs to it, beside Keras and PyTorch.

    python -m benchmarks.epoch [CONTENDER ...] [--data_dir D] [--rounds N] [--limit N] [--out FILE]

The recipe of configs/assignment/cnn3.py: 41,500 images of CIFAR-100 from uint8 on, shuffled,
flipped and shifted by up to a tenth, batches of 32, dropout, Adam at 1e-4, float32, loss and
accuracy counted. Keras augments by its layers RandomFlip and RandomTranslation inside `fit`;
PyTorch by NumPy in a Dataset, behind a DataLoader in the training process or with two workers, by
whole pixels, which is less work, and runs with channels last and a fused Adam, its fastest setting
for this network. Nobody draws a progress bar. All get their large arrays in huge pages, as
`python -m cifar_jax.main` does by itself.

Every turn is a process of its own, for Keras chooses its backend as it is imported. It trains a
hundred batches first, which compiles; then the epoch is timed. Ours begins anew for it, the others
go on from those batches. The turns of a round follow one another, and the ratios are taken within
rounds. The machine must be idle otherwise.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.idle import processor_seconds, used_elsewhere
from cifar_jax.errors import UserError, unknown

RESULTS = Path(__file__).parent / "results" / "epoch.jsonl"
CONFIG = "assignment/cnn3"
BATCH_SIZE, LEARNING_RATE, SHIFT = 32, 1e-4, 0.1
_WARM_UP_BATCHES = 100

# A contender gets images [N, 32, 32, 3] uint8 and labels [N] int32 and returns a function that
# trains one epoch on the first so many of them: count -> (mean loss, accuracy).
Epoch = Callable[[int], tuple[float, float]]


def make_ours(images: np.ndarray, labels: np.ndarray) -> Epoch:
    """Returns what `python -m cifar_jax.main` runs in an epoch, without evaluation."""
    from cifar_jax import config, data, experiment
    from cifar_jax.loop import run_until
    from cifar_jax.run.clock import Clock
    from cifar_jax.runtime import compilation_cache

    compilation_cache.turn_off()
    settings = config.load(Path(__file__).parents[1] / "configs" / f"{CONFIG}.py")
    assert settings.batch_size == BATCH_SIZE and settings.optim.learning_rate == LEARNING_RATE
    settings.data.val_fraction = 0.0  # the images given are the training split already
    settings.dtype = "float32"
    split = data.Split(images, labels)
    mean, std = np.zeros(3, np.float32), np.ones(3, np.float32)
    names = tuple(map(str, range(100)))
    dataset = data.Dataset("cifar100", "fine", split, None, split, names, mean, std)
    engine = experiment.create(experiment.resolved(settings), dataset).engine
    clock = Clock(settings.steps_per_call)

    def epoch(count: int) -> tuple[float, float]:
        state = engine.init()  # the plan is that of the first epoch
        _, _, values, _ = run_until(
            engine, state, engine.no_metrics(), engine.plan(state, 0), 0, -(-count // BATCH_SIZE),
            clock, should_stop=lambda step: False, progress=lambda *_: None,
        )  # fmt: skip
        return values["loss"], values["accuracy"]

    return epoch


def make_keras(images: np.ndarray, labels: np.ndarray) -> Epoch:
    """Returns Keras' `fit`, on the backend that KERAS_BACKEND names."""
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
    """Returns PyTorch's loop over a DataLoader."""
    import torch

    from benchmarks import torch_models

    most = int(SHIFT * 32)
    edges = np.clip(np.arange(-most, 32 + most), 0, 31)  # pixels outside are the nearest inside

    class Images(torch.utils.data.Dataset):
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def __getitem__(self, i):
            image = images[i]
            if torch.rand(()) < 0.5:
                image = image[:, ::-1]
            down, right = torch.randint(0, 2 * most + 1, (2,)).tolist()
            image = image[edges[down : down + 32]][:, edges[right : right + 32]]
            image = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            return image.float() / 255, int(labels[i])

    layout = torch.channels_last
    model = torch_models.CNN3(100).to(memory_format=layout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def epoch(count: int) -> tuple[float, float]:
        loader = torch.utils.data.DataLoader(
            Images(count), BATCH_SIZE, shuffle=True, num_workers=workers
        )
        total, right = 0.0, 0
        for x, y in loader:
            logits = model(x.to(memory_format=layout))
            loss = torch.nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
            right += int((logits.argmax(1) == y).sum())
        return total / count, right / count

    return epoch


def make_torch_with_workers(images, labels) -> Epoch:
    """Returns `make_torch` with a DataLoader of two worker processes."""
    return make_torch(images, labels, workers=2)


CONTENDERS = {
    "cifar_jax": make_ours,
    "keras_jax": make_keras,
    "keras_torch": make_keras,
    "torch": make_torch,
    "torch_workers": make_torch_with_workers,
}


def one(name: str, data_dir: str | None, limit: int) -> dict[str, Any]:
    """Trains a contender's epoch in this process; returns its seconds and numbers."""
    import cifar_jax.data

    data_set = "cifar100" if data_dir is not None else "synthetic"
    found = cifar_jax.data.load(
        data_set, data_dir=data_dir, val_fraction=0.17, val_seed=42, limit=limit
    )
    images, labels = found.train
    count = len(images)
    train = CONTENDERS[name](images, labels)
    # Ends with a batch as long as the epoch's last one, for those who compile each length.
    train(min(_WARM_UP_BATCHES * BATCH_SIZE + (count % BATCH_SIZE), count))
    start = time.perf_counter()
    loss, accuracy = train(count)
    seconds = time.perf_counter() - start
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss became {loss}; the time would mean nothing")
    return {"seconds": seconds, "loss": loss, "accuracy": accuracy, "images": count}


def take_turn(name: str, data_dir: str | None, limit: int) -> dict[str, Any]:
    """Runs `one` in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.epoch", name, "--one", "--limit", str(limit)]
    argv += ["--data_dir", data_dir] if data_dir is not None else ["--synthetic"]
    env = dict(os.environ)
    if name.startswith("keras_"):
        env["KERAS_BACKEND"] = name.removeprefix("keras_")
    env |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    env |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(turns: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Reduces the turns of each contender, of which "cifar_jax" is one.

    Returns:
      Median seconds of each; the fastest of the others; and median, min and max over the rounds of
      its time by ours: how many times as fast ours is.
    """
    seconds = {name: [turn["seconds"] for turn in found] for name, found in turns.items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    others = [name for name in medians if name != "cifar_jax"]
    fastest = min(others, key=medians.__getitem__)
    times = [b / a for a, b in zip(seconds["cifar_jax"], seconds[fastest], strict=True)]
    return {
        "seconds": medians,
        "fastest_other": fastest,
        "times_as_fast": {
            "median": statistics.median(times), "min": min(times), "max": max(times),
        },
    }  # fmt: skip


def table(record: dict[str, Any]) -> str:
    """Returns a record for people."""
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
        f"{record['fastest_other']}; used elsewhere {record['used_elsewhere']:.1%}"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Takes the turns, appends the record, prints its table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.epoch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = f"cifar_jax and others of {', '.join(CONTENDERS)}; all by default"
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", default=[], help=known)
    parser.add_argument("--data_dir", default="", metavar="D", help="of TFDS, as the trainings'")
    parser.add_argument("--synthetic", action="store_true", help="a trial without CIFAR-100")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="of images, for a trial")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    data_dir = None if args.synthetic else args.data_dir
    names = args.contenders or list(CONTENDERS)
    try:
        for name in names:
            if name not in CONTENDERS:
                raise unknown("contender", name, CONTENDERS)
        if args.one:
            print(json.dumps(one(names[0], data_dir, args.limit)))
            return 0
    except UserError as error:
        parser.error(str(error))
    if "cifar_jax" not in names or len(names) < 2:
        parser.error("it takes cifar_jax and another contender to compare")
    if args.rounds < 1:
        parser.error("--rounds needs a whole number above 0")
    if args.limit < 0:
        parser.error("--limit needs 0, for all images, or more")
    if args.out == RESULTS and (args.limit or args.synthetic):
        parser.error("a trial is no result: give it an --out of its own")
    versions = {
        package: version(package)
        for package in ("torch", "keras")
        if any(package in name for name in names)
    }

    from cifar_jax.runtime.environment import environment

    before = processor_seconds()
    turns = {name: [] for name in names}
    for i in range(args.rounds):
        for name in names:
            try:
                turns[name].append(take_turn(name, data_dir, args.limit))
            except subprocess.CalledProcessError as error:  # it has said why
                print(f"{name} failed: nothing is written", file=sys.stderr)
                return error.returncode
            print(f"round {i + 1}: {name} {turns[name][-1]['seconds']:.1f} s", flush=True)
    record = {
        "config": CONFIG,
        "images": turns["cifar_jax"][0]["images"],
        "batch_size": BATCH_SIZE,
        "rounds": args.rounds,
        **compare(turns),
        "turns": turns,
        "used_elsewhere": used_elsewhere(before, processor_seconds()),
        **environment(),
    }
    record["versions"] |= versions
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
