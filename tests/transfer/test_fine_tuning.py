import gc
import json
import shutil

import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from cifar_jax import experiment, predict, step, transfer
from cifar_jax.errors import UserError
from cifar_jax.range_test import sweep
from cifar_jax.run.checkpoint import open_checkpoints
from cifar_jax.train import train
from cifar_jax.trained import restore
from cifar_jax.transfer import features

# A body with everything that differs between training and evaluation, and a head with dropout.
LAYERS = (4, "M", "B", "D", 8, "M", "F", 16, "B", "D")
NETWORK = {"name": "vgg16", "layers": LAYERS, "dropout": 0.2}
BODY = ("layers.0.", "layers.2.", "layers.4.")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Returns the workdir of a run of one epoch, from whose weights the tests start."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    tiny.train(make_config(transfer__weights="", transfer__train="all", num_epochs=1), folder)
    return folder


# Adam turns a difference in the last bit of a small gradient into a different update.
SGD = dict(optim__name="sgd", optim__learning_rate=0.05, optim__momentum=0.9)


def make_config(weights="", **overrides):
    defaults = dict(
        model=ConfigDict(NETWORK),
        transfer__weights=str(weights),
        transfer__train="head",
        augment__ops="",
        optim__learning_rate=1e-2,
    )
    return tiny.make_config(**defaults | overrides)


def flat(tree):
    """Returns {"layers.0.kernel": array, ...}: checkpoints hold the keys of lists as strings."""
    return {".".join(map(str, path)): leaf for path, leaf in flatten_dict(tree).items()}


def state_of(workdir):
    """Returns the parameters and the running statistics of a run's latest checkpoint."""
    with open_checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        arrays = checkpoints.restore_arrays(checkpoints.latest_step, ("params", "batch_stats"))
    return flat(arrays["params"]), flat(arrays["batch_stats"])


def body(arrays):
    return {name: array for name, array in arrays.items() if name.startswith(BODY)}


def moved(name, state, start):
    return tiny.distance(state[0][name], start[0][name])


def test_cached_features_train_the_same_head(tmp_path, weights):
    for cached in (True, False):
        config = make_config(weights, transfer__cache_features=cached, **SGD)
        tiny.train(config, tmp_path / str(cached))
    cached, plain = (tmp_path / name for name in ("True", "False"))
    assert tiny.distance(state_of(cached), state_of(plain)) < 1e-5
    logits = [np.load(folder / "predictions.npz")["logits"] for folder in (cached, plain)]
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)
    assert "features" in json.loads((cached / "summary.json").read_text())["startup_seconds"]

    for found, start in zip(state_of(cached), state_of(weights), strict=True):
        jax.tree.map(np.testing.assert_array_equal, body(found), body(start))
    assert moved("dense.kernel", state_of(cached), state_of(weights)) > 1e-2

    images = tiny.dataset().test.images
    found = predict.predict(restore.from_workdir(cached), images)
    assert [top[0].name for top in found] == [f"class {i}" for i in logits[0].argmax(1)]


@pytest.mark.parametrize(("parallel", "num_devices"), [("jit", 8), ("pmap", 2)])
def test_cached_features_train_the_same_head_on_several_devices(weights, parallel, num_devices):
    mesh, ends = experiment.make_mesh(jax.devices()[:num_devices]), []
    for cached in (True, False):
        options = dict(parallel=parallel, transfer__cache_features=cached, **SGD)
        config = make_config(weights, **options)
        exp = experiment.create(experiment.checked(config), tiny.dataset(), mesh=mesh)
        state, _ = tiny.run_steps(exp.engine, exp.engine.init(), 3)
        state = exp.engine.snapshot(state)
        _, logits = exp.evaluate["test"](state)
        ends.append((state.params, logits))
    assert tiny.distance(*ends) < 1e-5


def test_pmap_keeps_only_its_own_copy_of_the_features(weights):
    mesh = experiment.make_mesh(jax.devices()[:2])
    config = experiment.checked(make_config(weights, parallel="pmap", eval_batch_size=32))
    exp = experiment.create(config, tiny.dataset(num_train=96, num_test=32), mesh=mesh)
    shape = exp.features["train"].shape

    def count():
        gc.collect()
        return sum(array.shape[-2:] == shape for array in jax.live_arrays())

    state, before = exp.engine.init(), count()
    features.compute_all(exp.features, exp.engine.snapshot(state))
    assert count() == before + 1
    tiny.run_steps(exp.engine, state, 1)
    assert count() == before + 1


@pytest.mark.parametrize("train", ["head", "all"])
def test_frozen_statistics_stay_bitwise_the_same_under_pmap(weights, train):
    """The mean of seven equal numbers can differ from them in the last bit."""
    options = dict(transfer__train=train, transfer__freeze_batch_norm=train == "all")
    config = make_config(weights, parallel="pmap", batch_size=28, **options)
    mesh = experiment.make_mesh(jax.devices()[:7])
    exp = experiment.create(experiment.checked(config), tiny.dataset(), mesh=mesh)
    state, _ = tiny.run_steps(exp.engine, exp.engine.init(), 3)
    found = flat(exp.engine.snapshot(state).batch_stats)
    start = state_of(weights)[1]
    jax.tree.map(np.testing.assert_array_equal, body(found), body(start))
    assert tiny.distance(found, start) > 1e-2  # the head's BatchNorm adapts


def test_a_resumed_run_needs_no_weights_and_equals_an_uninterrupted_one(tmp_path, weights):
    copied = shutil.copytree(weights, tmp_path / "weights")
    tiny.train(make_config(copied, num_epochs=2), tmp_path / "straight")
    tiny.train(make_config(copied, num_epochs=1), tmp_path / "resumed")
    shutil.rmtree(copied)
    tiny.train(make_config(copied, num_epochs=2), tmp_path / "resumed")
    found, wanted = (state_of(tmp_path / name) for name in ("resumed", "straight"))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("average", [dict(ema__decay=0.99), dict(lookahead__every=2)])
def test_an_average_starts_as_the_loaded_weights(weights, average):
    config = experiment.checked(make_config(weights, **average))
    mesh = experiment.make_mesh(jax.devices()[:1])
    exp = experiment.create(config, tiny.dataset(), mesh=mesh)
    state = exp.engine.init()
    for found, wanted in zip(state.evaluated, state_of(weights), strict=True):
        jax.tree.map(np.testing.assert_array_equal, flat(found), wanted)
    # The training images' features are those of the loaded body.
    compute = experiment.make_parts(config, exp.dataset.info).features_step
    batch = step.Batch(exp.dataset.train.images[:4], np.zeros(4, int), np.ones(4))
    expected, _ = compute(state.params, state.batch_stats, batch)
    found = exp.features["train"](state)[:4]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_run_with_an_average_starts_with_a_new_head(weights, parallel):
    settings = dict(transfer__train="all", ema__decay=0.9, parallel=parallel)
    dataset = tiny.dataset()
    names = (*dataset.info.class_names, "another")
    dataset = dataset._replace(info=dataset.info._replace(class_names=names))
    config = experiment.checked(make_config(weights, **settings))
    mesh = experiment.make_mesh(jax.devices()[:1])
    engine = experiment.create(config, dataset, mesh=mesh).engine
    state = engine.snapshot(engine.init())
    start = state_of(weights)[0]
    for params in map(flat, (state.params, state.evaluated[0])):
        jax.tree.map(np.testing.assert_array_equal, body(params), body(start))
        assert params["dense.kernel"].shape == (start["dense.kernel"].shape[0], 11)


@pytest.mark.usefixtures("compiled_once")
def test_groups_train_from_their_epochs_on_and_resume(tmp_path, weights):
    settings = dict(
        transfer__train="all",
        transfer__unfreeze_epochs=(0, 1),
        transfer__layer_decay=0.5,
        transfer__freeze_batch_norm=True,
        augment__ops="flip",
    )
    start, ends = state_of(weights), {}
    for num_epochs in (1, 2):
        tiny.train(make_config(weights, num_epochs=num_epochs, **settings), tmp_path / "a")
        ends[num_epochs] = state_of(tmp_path / "a")
    jax.tree.map(np.testing.assert_array_equal, body(ends[1][0]), body(start[0]))
    for name in BODY:
        parameter = f"{name}{'scale' if name == 'layers.2.' else 'kernel'}"
        assert moved(parameter, ends[2], start) > 1e-3
    jax.tree.map(np.testing.assert_array_equal, body(ends[2][1]), body(start[1]))
    assert tiny.distance(ends[2][1], start[1]) > 1e-2  # the head's BatchNorm adapts
    tiny.train(make_config(weights, num_epochs=2, **settings), tmp_path / "b")
    jax.tree.map(np.testing.assert_array_equal, ends[2], state_of(tmp_path / "b"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(transfer__train="body"), "unknown transfer.train 'body'"),
        (dict(transfer__weights=""), "'head' needs transfer.weights"),
        (
            dict(transfer__weights="", transfer__train="all", transfer__freeze_batch_norm=True),
            "freeze_batch_norm needs transfer.weights",
        ),
        (dict(transfer__layer_decay=0.5), "layer_decay needs transfer.train 'all'"),
        (dict(transfer__unfreeze_epochs=(0, 1)), "unfreeze_epochs needs transfer.train 'all'"),
        (dict(transfer__layer_decay=1.5), r"layer_decay must be in \(0, 1\], got 1.5"),
        (
            dict(transfer__train="all", transfer__unfreeze_epochs=(0, 2, 1)),
            r"start with 0 and never decrease, got \(0, 2, 1\)",
        ),
        (
            dict(transfer__train="all", transfer__unfreeze_epochs=(1,)),
            r"start with 0 and never decrease, got \(1,\)",
        ),
        (
            dict(transfer__train="all", transfer__unfreeze_epochs=(0, 1, 2, 3)),
            "has 4 epochs, but the network has only 3 groups",
        ),
        (
            dict(model=ConfigDict(tiny.NETWORK)),
            r"transfer.weights 'x' needs a network with a body and a head, such as .*; cnn2 is not",
        ),
    ],
)
def test_fields_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        experiment.checked(make_config("x", **overrides))


@pytest.mark.parametrize("epoch", [0.001, 0.5, 1, 1e30])
def test_the_optimizers_tree_does_not_depend_on_the_steps_per_epoch(epoch):
    """A trained network is restored without its data set, that is, without that number."""
    config = make_config(transfer__train="all", transfer__unfreeze_epochs=(0, epoch))
    trees = []
    for steps in (1, 10):
        parts = experiment.make_parts(config, tiny.dataset().info, steps_per_epoch=steps)
        trees.append(jax.tree.structure(jax.eval_shape(parts.init, 0)))
    assert trees[0] == trees[1]


def test_features_that_do_not_fit_into_memory_are_refused(weights, monkeypatch):
    monkeypatch.setattr(features, "_free_bytes", lambda device: 10_000)
    config = experiment.checked(make_config(weights))
    message = r"512 features for each of 140 images need .* only 0.0 GB are free"
    with pytest.raises(UserError, match=message):
        experiment.create(config, tiny.dataset())


@pytest.mark.parametrize("normalize", ["standard", "caffe"])
def test_a_normalization_other_than_that_of_the_weights_gets_a_note(weights, normalize, capsys):
    config = experiment.checked(make_config(weights, augment__normalize=normalize))
    parts = experiment.make_parts(config, tiny.dataset().info)
    parts.tuning.load(parts.init(0))
    note = "note: these weights expect augment.normalize 'standard', not 'caffe'\n"
    assert (note in capsys.readouterr().out) == (normalize == "caffe")


def test_wrong_weights_are_refused_before_data_is_read(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "load_data", lambda config: pytest.fail("data is read"))
    model = ConfigDict(NETWORK | {"layers": (5, *LAYERS[1:])})
    for config, message in (
        (make_config(tmp_path / "nothing.h5"), r"nothing\.h5 does not exist"),
        (make_config(weights, model=model), r"layers\.0\.kernel in .* has the shape"),
    ):
        with pytest.raises(UserError, match=message):
            train(config, tmp_path / "run")
        with pytest.raises(UserError, match=message):
            sweep.run(config, 1e-5, 1.0, 3)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("untrained")
def test_weights_are_loaded_once_and_only_if_needed(weights, monkeypatch):
    calls, load = [], transfer.load
    monkeypatch.setattr(transfer, "load", lambda *args: calls.append(args) or load(*args))
    exp = experiment.create(experiment.checked(make_config(weights)), tiny.dataset())
    exp.engine.init(load=False)
    assert not calls
    params = exp.engine.init().params
    assert len(calls) == 1
    assert tiny.distance(flat(params), state_of(weights)[0]) == 0
