"""The contenders, each a function that returns one training epoch."""

from collections.abc import Callable

import numpy as np

from benchmarks.harness import ROOT

CONFIG = "assignment/cnn3"
BATCH_SIZE, LEARNING_RATE, SHIFT = 32, 1e-4, 0.1

# Trains one epoch on the first `count` images and returns (mean loss, accuracy). Each `make_*`
# function below takes images [N, 32, 32, 3] uint8 and labels [N] int32 and returns an Epoch.
Epoch = Callable[[int], tuple[float, float]]


def make_cifar_jax(images: np.ndarray, labels: np.ndarray) -> Epoch:
    """Returns the epoch that `python -m cifar_jax.main` trains, without evaluation.

    Raises:
      ValueError: If the config no longer matches the recipe that the other contenders follow.
    """
    from cifar_jax import config, data, experiment
    from cifar_jax.clock import Clock
    from cifar_jax.loop import run_until

    settings = config.load(ROOT / "configs" / f"{CONFIG}.py")
    if (settings.batch_size, settings.optim.learning_rate) != (BATCH_SIZE, LEARNING_RATE):
        raise ValueError(
            f"{CONFIG} must have batch size {BATCH_SIZE} and learning rate {LEARNING_RATE}"
        )
    settings.data.val_fraction = 0.0  # `images` is already the training split
    settings.dtype = "float32"
    split = data.Split(images, labels)
    mean, std = np.zeros(3, np.float32), np.ones(3, np.float32)
    names = tuple(map(str, range(100)))
    dataset = data.Dataset(split, None, split, data.DatasetInfo(names, mean, std))
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
    """Returns an epoch of Keras's `fit` on the backend selected by KERAS_BACKEND."""
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
    """Returns an epoch of a PyTorch training loop over a DataLoader, which augments each image."""
    import torch

    max_shift, padded = _padded_indices()

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

    return _make_torch_epoch(
        lambda count: torch.utils.data.DataLoader(
            Images(count), BATCH_SIZE, shuffle=True, num_workers=workers
        )
    )


def make_torch_with_workers(images: np.ndarray, labels: np.ndarray) -> Epoch:
    """Returns the epoch of `make_torch` with two DataLoader worker processes."""
    return make_torch(images, labels, workers=2)


def make_torch_by_batch(images: np.ndarray, labels: np.ndarray) -> Epoch:
    """Returns an epoch of a PyTorch training loop that augments whole batches, without a loader."""
    import torch

    max_shift, padded = _padded_indices()
    x, y = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels).long()
    padded, window = torch.from_numpy(padded), torch.arange(32)

    def batches(count: int):
        for chosen in torch.randperm(count).split(BATCH_SIZE):
            down, right = torch.randint(2 * max_shift + 1, (2, len(chosen), 1))
            rows, columns = padded[down + window], padded[right + window]
            columns = torch.where(torch.rand(len(chosen), 1) < 0.5, 31 - columns, columns)
            batch = x[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
            yield batch.permute(0, 3, 1, 2).float() / 255, y[chosen]

    return _make_torch_epoch(batches)


def _padded_indices() -> tuple[int, np.ndarray]:
    """Returns the largest shift, and the indices of the pixels of an image padded by as many.

    Padded pixels take the value of the nearest pixel inside the image.
    """
    max_shift = int(SHIFT * 32)
    return max_shift, np.clip(np.arange(-max_shift, 32 + max_shift), 0, 31)


def _make_torch_epoch(batches: Callable) -> Epoch:
    """Returns an epoch of a PyTorch training loop.

    Args:
      batches: Returns the batches of the first `count` images, each with images [N, 3, 32, 32]
        between 0 and 1 and int64 labels [N].
    """
    import torch

    from benchmarks.torch_models.cnn3 import CNN3

    layout = torch.channels_last
    model = CNN3(100).to(memory_format=layout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def epoch(count: int) -> tuple[float, float]:
        total_loss, num_correct = 0.0, 0
        for x, y in batches(count):
            logits = model(x.to(memory_format=layout))
            loss = torch.nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(y)
            num_correct += int((logits.argmax(1) == y).sum())
        return total_loss / count, num_correct / count

    return epoch


CONTENDERS = {
    "cifar_jax": make_cifar_jax,
    "keras_jax": make_keras,
    "keras_torch": make_keras,
    "torch": make_torch,
    "torch_workers": make_torch_with_workers,
    "torch_by_batch": make_torch_by_batch,
}
