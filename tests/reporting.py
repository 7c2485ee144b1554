"""Writes the workdir of a made-up run for tests of reports: five epochs on CIFAR-100."""

import json
from html.parser import HTMLParser

import numpy as np
import tiny

from cifar_jax import config, data
from cifar_jax.data.superclasses import SUPERCLASSES
from cifar_jax.optim.callbacks import Plateau
from cifar_jax.report.read import read
from cifar_jax.run.writers import CsvWriter

FINE = tuple(sorted(name for names in SUPERCLASSES.values() for name in names))
NUM_IMAGES = 600
# The event of the run's second epoch.
_PLATEAU = Plateau("loss", 1, factor=0.5)
_PLATEAU.decide(1.0, 1e-4)
(CUT,) = _PLATEAU.decide(2.0, 1e-4).events


class Page(HTMLParser):
    """Parses a page: its text, its image descriptions, and the URLs that it loads."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.loads, self.alts, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.loads += [v for k, v in attrs.items() if k in ("src", "href", "xlink:href") and v]
        if tag == "img" or attrs.get("role") == "img":
            self.alts.append(attrs.get("alt") or attrs.get("aria-label"))

    def handle_data(self, text):
        self.text += f" {text}"


def write_predictions(folder, labels, logits, class_names=FINE):
    """Writes predictions.npz for the given labels and logits."""
    np.savez(
        folder / "predictions.npz", logits=logits, labels=labels,
        predictions=logits.argmax(1).astype(np.int32), class_names=np.array(class_names),
    )  # fmt: skip


def draw_predictions(seed=0):
    """Returns labels and logits of an overconfident classifier that is mostly right."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(NUM_IMAGES).astype(np.int32) % len(FINE)
    logits = rng.normal(size=(NUM_IMAGES, len(FINE))).astype(np.float32)
    logits[np.arange(NUM_IMAGES), labels] += 3 * (rng.random(NUM_IMAGES) < 0.6)
    return labels, logits


def images():
    """Returns the test images of the predictions."""
    return np.random.default_rng(1).integers(0, 256, (NUM_IMAGES, 32, 32, 3), np.uint8)


def write_run(folder, *, seed=0, num_epochs=5, complete=True, experiment="assignment/cnn3"):
    """Writes a workdir and returns the run read from it."""
    settings = config.load_complete(tiny.ROOT / "configs" / f"{experiment}.py")
    with settings.unlocked():
        settings.seed, settings.num_epochs = seed, num_epochs
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(settings.to_json())
    done = num_epochs if complete else num_epochs - 2
    rows = [
        {
            "epoch": e, "step": 100 * e, "learning_rate": 1e-4 / e, "train_loss": 4 / e,
            "train_accuracy": 0.1 * e, "train_top5_accuracy": 0.15 * e,
            "val_loss": 5 / e if e != 2 else None, "val_accuracy": 0.09 * e if e != 2 else None,
            "val_top5_accuracy": 0.14 * e if e != 2 else None, "seconds": 2.0,
            "images_per_second": 500.0, "events": CUT if e == 2 else "",
        }
        for e in range(1, done + 1)
    ]  # fmt: skip
    CsvWriter(folder / "metrics.csv", rows).close()
    if complete:
        labels, logits = draw_predictions(seed)
        write_predictions(folder, labels, logits)
        summary = {
            "experiment": experiment, "model": "cnn3", "num_params": 1_193_636, "seed": seed,
            "epochs": num_epochs, "steps": 100 * num_epochs, "dtype": "float32",
            "test_accuracy": float(np.mean(logits.argmax(1) == labels)), "test_loss": 2.25,
            "top5_accuracy": 0.75, "train_accuracy": 0.5, "val_accuracy": 0.45,
            "best_epoch": num_epochs, "selected_on": "last", "train_seconds": 10.0,
            "step_time_ms": {"median": 7.25, "p95": 8.5}, "compile_seconds": 3.5,
            "peak_memory_bytes": 2**28, "device": {"platform": "cpu", "kind": "Abacus", "count": 1},
            "versions": {"jax": "0.10.2"}, "git_commit": "0123abc",
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
    return read(folder)


def dataset(run):
    """Returns the data set of the run's predictions, as data.load would."""
    split = data.Split(images(), run.predictions.labels)
    half = np.full(3, 0.5, np.float32)
    return data.Dataset(split, None, split, data.DatasetInfo(FINE, half, half))
