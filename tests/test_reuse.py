"""Runs that differ only in learning rates, seed and callbacks share one compiled program."""

import jax
import numpy as np
import tiny

from cifar_jax import engine, experiment
from cifar_jax import train as training
from cifar_jax.run import metrics_csv

CHANGED = {
    "seed": 5,
    "num_epochs": 3,
    "optim__learning_rate": 3e-3,
    "optim__schedule": "cosine",
    "optim__warmup_epochs": 0.5,
    "plateau__patience": 1,
    "plateau__min_delta": 10.0,  # so that it reduces the learning rate
    "selected_on": "last",
}


def rows_of(folder):
    rows = metrics_csv.read(folder / "metrics.csv")
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def test_a_reused_program_gives_bitwise_the_same_run(tmp_path, monkeypatch):
    mesh = engine.make_mesh(jax.devices()[:1])
    cfg, other = tiny.make_config(), tiny.make_config(**CHANGED)
    dataset = tiny.load("synthetic", val_fraction=cfg.data.val_fraction)
    training.train(other, tmp_path / "alone", dataset=dataset, mesh=mesh)
    first = experiment.create(experiment.checked(cfg), dataset, mesh=mesh)
    training.train(cfg, tmp_path / "first", dataset=dataset, create=lambda *_, **__: first)

    def compile_another(*_):
        raise AssertionError("a second program is compiled")

    monkeypatch.setattr(engine, "compile_for_backend", compile_another)
    summary = training.train(
        other,
        tmp_path / "reused",
        dataset=dataset,
        create=lambda config, *_, **__: experiment.reused(first, config),
    )
    assert summary["compile_seconds"] == 0
    assert rows_of(tmp_path / "reused") == rows_of(tmp_path / "alone")
    assert rows_of(tmp_path / "reused") != rows_of(tmp_path / "first")
    logits = [
        np.load(tmp_path / name / "predictions.npz")["logits"] for name in ("alone", "reused")
    ]
    np.testing.assert_array_equal(*logits)


def test_configs_share_a_program_only_if_the_program_is_the_same():
    key = experiment.program_key(tiny.make_config())
    assert experiment.program_key(tiny.make_config(**CHANGED)) == key
    for changed in (
        {"batch_size": 20},
        {"optim__weight_decay": 0.1},
        {"optim__name": "sgd"},
        {"model__dropout": (0.2, 0.1, 0.1)},
        {"augment__ops": "flip"},
        {"label_smoothing": 0.1},
        {"data__limit": 50},
        {"dtype": "bfloat16"},
        {"steps_per_call": 1},
    ):
        assert experiment.program_key(tiny.make_config(**changed)) != key, changed


def test_features_that_may_depend_on_the_seed_are_not_shared():
    cfg = tiny.make_config(transfer__train="head", augment__ops="")
    assert experiment.program_key(cfg) is None
