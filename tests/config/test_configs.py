import importlib
import inspect
import re
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from cifar_jax import config, data, engine, experiment, models
from cifar_jax.config import base
from cifar_jax.models.rngs import make_rngs
from cifar_jax.optim import callbacks


def distinct_networks():
    """Returns the paths of the configs, one for each distinct network."""
    found = {}
    for path in tiny.CONFIGS:
        found.setdefault(str(config.load(path).model), path)
    return set(found.values())


DISTINCT = distinct_networks()


@pytest.mark.usefixtures("library_convolutions")
@pytest.mark.parametrize("path", tiny.CONFIGS, ids=config.experiment_name)
def test_every_config_builds_and_traces_a_step(path, monkeypatch):
    """Checks the shapes of the network, the optimizer and the augmentation.

    The step is traced with a tiny network. Of the config's own network, only the logits are traced:
    gradients are tested elsewhere, and those of the largest networks take ten seconds to trace.
    Configs with groups of parameters need their own network, which has these parameters.
    """
    cfg = config.load(path)
    num_classes = data.num_classes(cfg.data.name, cfg.data.label)
    if path in DISTINCT:
        assert jax.eval_shape(partial(logits, cfg.model, num_classes)).shape == (2, num_classes)
    if not cfg.optim.groups:
        monkeypatch.setattr(models, "create", tiny.create_network)
    count = 2 * cfg.batch_size
    split = data.Split(np.zeros((count, 32, 32, 3), np.uint8), np.zeros(count, np.int32))
    dataset = data.Dataset(
        train=split,
        val=split if cfg.data.val_fraction else None,
        test=split,
        info=data.DatasetInfo(("",) * num_classes, np.zeros(3, np.float32), np.ones(3, np.float32)),
    )
    traced = []

    def trace_only(make_train_step, init, images, labels, *, batch_size, **_):
        state = jax.eval_shape(init, 0)
        order = engine.epoch_order(jax.random.key(0), 0, count, batch_size)
        images = jax.ShapeDtypeStruct(images.shape, images.dtype)  # features are not computed
        labels = jax.numpy.asarray(labels)
        gather = partial(engine.gather, labels=labels, order=order, step=0, num_examples=count)
        batch = jax.eval_shape(gather, images)
        traced.append(jax.eval_shape(make_train_step(None), state, batch))
        return None

    monkeypatch.setattr(experiment, "create_engine", trace_only)
    # A write-up's batch size need not be divisible by the tests' eight devices.
    mesh = engine.make_mesh(jax.local_devices()[:1])
    experiment.create(experiment.checked(cfg), dataset, mesh=mesh)
    state, _ = traced[0]
    assert state.params  # the traced step returned a state


def logits(model, num_classes):
    options = {k: v for k, v in model.items() if k != "name"}
    network = models.create(model["name"], num_classes, make_rngs(params=0), **options)
    return network(jax.numpy.zeros((2, 32, 32, 3)), make_rngs(dropout=0))


def test_every_field_has_a_comment_in_base():
    lines = Path(base.__file__).read_text().splitlines()
    assigned = [
        i for i, line in enumerate(lines) if re.match(r"    config\.[\w.]+ = (?!Conf)", line)
    ]
    assert len(assigned) > 20
    for i in assigned:
        assert lines[i - 1].lstrip().startswith("#"), f"no comment above: {lines[i]}"


# The arguments that `Plateau(**config.plateau)` and `EarlyStopping(**config.early_stopping)` fill.
CALLBACKS = {
    "plateau": inspect.signature(callbacks.Plateau).parameters,
    "early_stopping": inspect.signature(callbacks.EarlyStopping).parameters,
}


def test_every_field_is_read():
    """A field that nothing reads has no effect. tests/optim checks the fields of `optim`."""
    source = "".join(
        (tiny.ROOT / "cifar_jax" / f"{name}.py").read_text()
        for name in (
            *("experiment/__init__", "experiment/parts", "selection"),
            *("train", "trainer", "final_evaluation", "main"),
            *("study/settings", "study/opening", "study/worker"),
        )
    )
    for field in config.flatten(base.get_config()):
        group, _, name = field.partition(".")
        if group == "optim" or name in CALLBACKS.get(group, ()):
            continue
        assert re.search(rf"\b_?config\.{re.escape(field)}\b", source), f"nothing reads {field}"


def test_config_is_locked_and_named():
    cfg = config.load(tiny.ROOT / "configs" / "coarse" / "cnn2_batch64.py")
    assert cfg.experiment == "coarse/cnn2_batch64"
    with pytest.raises(AttributeError):
        cfg.learning_rate = 1


def test_config_outside_the_checkout_can_import_the_suites_configs(tmp_path):
    text = "from configs.coarse import cnn4\nfrom configs import base\n"
    (tmp_path / "x.py").write_text(text + "get_config = cnn4.get_config\nassert base.get_config()")
    before = sys.path[:]
    assert config.load(tmp_path / "x.py").model.name == "cnn4"
    assert sys.path == before


def test_a_config_file_imports_from_the_nearest_configs_above_it(tmp_path, monkeypatch):
    """Modules of these names on the path, and those already imported, are ignored."""
    monkeypatch.syspath_prepend(tiny.ROOT)
    imported = importlib.import_module("configs.cnn3")
    for num_epochs in (3, 4):
        folder = tmp_path / str(num_epochs) / "configs"
        folder.mkdir(parents=True)
        (folder / "cnn3.py").write_text(_assigning(f"config.num_epochs = {num_epochs}"))
        text = "from configs import cnn3\ndef get_config(): return cnn3.get_config()"
        (folder / "cnn2.py").write_text(text)
        assert config.load(folder / "cnn2.py").num_epochs == num_epochs
        assert sys.modules["configs.cnn3"] is imported


def _assigning(line):
    """Returns a config file whose fourth line is the given one."""
    return (
        "from configs import base\ndef get_config():\n    config = base.get_config()\n"
        f"    {line}\n    return config"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.py is not a config file: it defines no function get_config"),
        ("def get_config(): pass", "get_config returns a NoneType, not a ConfigDict"),
        ("import nowhere", r"cannot be imported \(ModuleNotFoundError: No module named 'nowhere'"),
        ("def get_config(:", r"cannot be imported \(SyntaxError: .*line 1"),
        (
            "from configs import base\ndef get_config():\n    config = base.get_config()\n"
            "    config.optim.learning_rat = 1\n    return config",
            "unknown config field .* 'optim.learning_rat'; did you mean 'optim.learning_rate'",
        ),
        (
            "from configs import base\ndef get_config():\n    config = base.get_config()\n"
            "    config.optm.learning_rate = 1\n    return config",
            r"x.py, line 4: .*optm.*Did you mean.*optim",
        ),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'model': {'name': 'cnn3'}})",
            r"x.py lacks the field .*base.get_config\(\)",
        ),
        ("import sys\nsys.exit(0)", "x.py, line 2: a config file must not exit"),
        ("get_config = 3", "it defines no function get_config"),
        ("def get_config(x): pass", r"x.py: TypeError: get_config\(\) missing 1 required"),
        (
            "def get_config():\n    return 1 / 0",
            "x.py, line 2: ZeroDivisionError: division by zero",
        ),
        ("def get_config():\n    return [].no_such", "x.py, line 2: AttributeError: 'list' object"),
        (_assigning("config.batch_size = '10'"), "batch_size must be of type int, not str"),
        (_assigning("config.optim.step_epochs = {3, 5}"), "step_epochs must be of type tuple"),
        (_assigning("config.optim.eps = print"), "eps must be of type float, not builtin"),
        (_assigning("config.optim = 3"), "optim must be of type ConfigDict, not int"),
        (_assigning("config.batch_size = None"), "batch_size must be a whole number, got None"),
        (_assigning("config.optim.eps = float('nan')"), "optim.eps must be a number, got nan"),
        (_assigning("config.optim.step_epochs = ('3',)"), "must be a list of numbers, as in"),
        (_assigning("del config.optim.rise"), "x.py lacks the field optim.rise"),
        (_assigning("config.lr"), "x.py, line 4: AttributeError: there is no field 'lr'"),
        (_assigning("config.model = config"), "x.py: RecursionError"),
        (_assigning("config[3] = 4"), "x.py: TypeError"),
        (_assigning("setattr(config, 5000 * 'x', 1)"), "unknown config field in .* 'x+ [.]{3} x+'"),
    ],
)
def test_invalid_config_files_are_refused(tmp_path, text, message):
    (tmp_path / "x.py").write_text(text)
    with pytest.raises(config.UserError, match=message) as caught:
        config.load(tmp_path / "x.py")
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cnn3", "cnn3 is not a file: did you mean configs/cnn3.py"),
        ("configs/cnn4", "did you mean configs/cnn4.py"),
        (
            "nothing",
            f"nothing is not a file: configs/ has {len(tiny.CONFIGS)} config files, such as c",
        ),
        ("vgg16_transfer.py", "did you mean configs/coarse/vgg16_transfer.py"),
        ("configs/coarse", "coarse is a folder, not a config file: did you mean configs/coarse/c"),
        ("README.md", "README.md is not a Python file"),
        (5000 * "x", "File name too long"),
    ],
)
def test_a_wrong_path_gets_the_closest_one(monkeypatch, path, message):
    monkeypatch.chdir(tiny.ROOT)
    with pytest.raises(config.UserError, match=re.escape(message)) as caught:
        config.load(path)
    assert len(str(caught.value)) < 200


def test_the_recipe_of_wide_resnet_has_the_batches_and_the_clipping_of_its_source():
    cfg = config.load(tiny.ROOT / "configs" / "recipes" / "wide_resnet_28_10.py")
    assert (cfg.batch_size, cfg.num_epochs, cfg.optim.learning_rate) == (256, 200, 0.1)
    assert (cfg.optim.clip_norm, cfg.optim.nesterov) == (5.0, True)
