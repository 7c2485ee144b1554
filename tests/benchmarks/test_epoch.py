import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks.epoch import __main__ as epoch
from benchmarks.epoch import contenders, measure
from cifar_jax import data, engine, experiment, loop

torch = pytest.importorskip("torch")
lazy_keras = pytest.importorskip("lazy_keras")


@pytest.mark.usefixtures("library_convolutions")
def test_cifar_jax_trains_one_epoch_of_its_config(monkeypatch):
    """Every image is used once, the last batch is smaller, and the loss decreases."""
    ends, until = [], loop.run_until
    monkeypatch.setattr(loop, "run_until", lambda *a, **k: ends.append(until(*a, **k)) or ends[-1])
    mesh = engine.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(experiment, "make_mesh", lambda: mesh)
    run = contenders.make_cifar_jax(*data.load("synthetic", limit=300).train)
    first, _ = run(64)
    assert first == pytest.approx(np.log(100), rel=0.1)
    loss, accuracy = run(300)
    assert loss < first and 0 < accuracy <= 1
    _, metrics, _, step = ends[-1]
    assert step == 10 and metrics.sums[3] == 300


@pytest.mark.slow
def test_the_record_holds_every_contender(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    out = tmp_path / "new" / "epoch.jsonl"
    names = ["cifar_jax", "torch"]
    flags = ["--synthetic", "--limit", "96", "--rounds", "1", "--out", str(out)]
    assert epoch.main(["", *names, *flags]) == 0
    (record,) = map(json.loads, out.read_text().splitlines())
    assert list(record["seconds"]) == names and record["fastest_other"] in names[1:]
    for name in names:
        (turn,) = record["turns"][name]
        assert turn["images"] == 96 and turn["seconds"] == record["seconds"][name] > 0
        # The warm-up has already trained on these few images. The initializations differ.
        assert 0.5 < turn["loss"] < 6 and 0 <= turn["accuracy"] <= 1
    times = record["times_as_fast"]["median"]
    assert times == record["seconds"][record["fastest_other"]] / record["seconds"]["cifar_jax"]
    assert record["versions"]["torch"] and "git_commit" in record
    assert f"{times:.2f} times as fast" in epoch.table(record)


@pytest.mark.parametrize("name, backend", [("keras_jax", "jax"), ("keras_torch", "torch")])
def test_keras_runs_on_the_named_backend(monkeypatch, name, backend):
    calls = []

    def run(argv, env, **_):
        calls.append((argv, env))
        return SimpleNamespace(stdout='a line of Keras\n{"seconds": 2.0}\n')

    monkeypatch.setattr(measure.subprocess, "run", run)
    assert measure.time_epoch_in_subprocess(name, "folder", 64) == {"seconds": 2.0}
    [(argv, env)] = calls
    assert env["KERAS_BACKEND"] == backend and env["JAX_PLATFORMS"] == "cpu"
    assert argv[3:] == [name, "--one", "--limit", "64", "--data_dir", "folder"]


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("name", ["keras_torch", "torch", "torch_by_batch"])
def test_other_contenders_learn(name):
    torch.manual_seed(0)
    if name.startswith("keras"):
        lazy_keras.keras.utils.set_random_seed(0)
    run = contenders.CONTENDERS[name](*data.load("synthetic", limit=96).train)
    losses = [run(96)[0] for _ in range(5)]
    assert losses[0] == pytest.approx(np.log(100), rel=0.1)
    # Dropout alone changes the loss by about 1% from epoch to epoch.
    assert losses[-1] < 0.97 * losses[0]


def test_batches_are_augmented_as_single_images_are(monkeypatch):
    """Every image is one of the 98 shifts and flips of its original, and they vary."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (64, 32, 32, 3), np.uint8), np.arange(64, dtype=np.int32)
    monkeypatch.setattr(contenders, "_make_torch_epoch", lambda batches: batches)
    batches = contenders.make_torch_by_batch(images, labels)
    seen, used = set(), []
    torch.manual_seed(0)
    for x, y in batches(64):
        assert x.dtype == torch.float32 and y.dtype == torch.int64 and len(x) == 32
        used += y.tolist()
        pixels = (255 * x).round().numpy().astype(np.uint8)
        for image, label in zip(pixels, y.tolist(), strict=True):
            variants = {}
            for flipped in (images[label], images[label][:, ::-1]):
                padded = np.pad(flipped, ((3, 3), (3, 3), (0, 0)), "edge")
                for down, right in np.ndindex(7, 7):
                    variant = padded[down : down + 32, right : right + 32]
                    variants[variant.tobytes()] = len(variants)
            seen.add(variants[image.transpose(1, 2, 0).tobytes()])
    assert sorted(used) == list(range(64))  # every image once
    assert len(seen) > 30 and min(sum(i < 49 for i in seen), sum(i >= 49 for i in seen)) > 10


def test_cifar_jax_is_compared_with_the_fastest_other_contender():
    turns = {
        "cifar_jax": [{"seconds": 1.0}, {"seconds": 2.0}, {"seconds": 3.0}],
        "torch": [{"seconds": 4.0}, {"seconds": 5.0}, {"seconds": 6.0}],
        "keras_jax": [{"seconds": 3.0}, {"seconds": 3.0}, {"seconds": 90.0}],
    }
    compared = measure.comparison(turns)
    assert compared["seconds"] == {"cifar_jax": 2.0, "torch": 5.0, "keras_jax": 3.0}
    assert compared["fastest_other"] == "keras_jax"
    assert compared["times_as_fast"] == {"median": 3.0, "min": 1.5, "max": 30.0}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["torch"], "must include cifar_jax and another"),
        (["cifar_jax", "torch", "--limit", "-5"], "--limit must be from 0 to 50,000"),
        (["troch"], "did you mean"),
        (["cifar_jax", "cifar_jax"], "is named twice"),
        (["--limit", "96"], "a trial is not a result"),
        (["--rounds", "0"], "--rounds must be from 1 to 1,000, got 0"),
    ],
)
def test_invalid_arguments_are_rejected(flags, reason, capsys):
    assert epoch.main(["", *flags]) == 1
    assert reason in capsys.readouterr().err


def test_a_failed_contender_ends_the_benchmark(tmp_path, capfd):
    out = tmp_path / "epoch.jsonl"
    flags = ["--data_dir", str(tmp_path / "nothing"), "--out", str(out)]
    assert epoch.main(["", "torch", "cifar_jax", *flags]) == 1
    shown = capfd.readouterr().err
    assert "nothing" in shown and "torch failed" in shown and "Traceback" not in shown
    assert out.read_text() == ""
