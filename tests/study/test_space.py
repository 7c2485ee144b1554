import pytest
import searching
import tiny
from ml_collections import ConfigDict

from cifar_jax import models
from cifar_jax.config import command_line
from cifar_jax.errors import UserError
from cifar_jax.study import space
from cifar_jax.study.space import Parameter

USAGE = "usage\n\nexample"


def test_statements_are_separated_by_lines_or_semicolons():
    text = """
        model.filters[0] in {64, 16,
            32}; optim.learning_rate in log(1e-4, 1e-1)
        model.dropout in uniform(0, 0.5)  # a comment
        model.depth in int(1, 8)
        augment.ops in {'', 'flip;|crop(4)'}
        optim.step_epochs in {(1, 2), [3], -1, True}
    """
    assert space.parse(text) == (
        Parameter("model.filters", 0, "choice", (64, 16, 32)),
        Parameter("optim.learning_rate", None, "log", (1e-4, 1e-1)),
        Parameter("model.dropout", None, "uniform", (0.0, 0.5)),
        Parameter("model.depth", None, "int", (1, 8)),
        Parameter("augment.ops", None, "choice", ("", "flip;|crop(4)")),
        Parameter("optim.step_epochs", None, "choice", ((1, 2), (3,), -1, True)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing", "is empty"),
        ("seed in {1,", "cannot be parsed at 'seed in {1,'"),
        ("seed in {1}\nseed {2}", "cannot be parsed at 'seed {2}'"),
        ("seed\0", "cannot be parsed"),
        ("(" * 5000, "cannot be parsed"),
        ("seed = {1, 2}", "'seed = {1, 2}': write FIELD in"),
        ("seed not in {1, 2}", "write FIELD in"),
        ("seed in {}", "an empty set"),
        ("seed in [1, 2]", "write FIELD in"),
        ("seed in range(3)", "unknown range in search.space 'range'"),
        ("seed in unifrom(0, 1)", "did you mean 'uniform'"),
        ("seed in int(3, 3)", "an empty range: it needs LOW < HIGH"),
        ("optim.eps in uniform(2, 1)", "an empty range"),
        ("optim.eps in log(0, 1)", "log needs LOW above 0"),
        ("optim.eps in log(-1, 1)", "log needs LOW above 0"),
        ("seed in int(1.5, 3)", "two whole numbers"),
        ("seed in int(1)", "two whole numbers"),
        ("optim.eps in uniform('a', 'b')", "two numbers"),
        ("optim.eps in uniform(0, 1e999)", "is not a valid value"),
        ("optim.eps in uniform(low=0, high=1)", "write FIELD in"),
        ("seed in {1, x}", "'x' is not a number, a string or a list"),
        ("seed in {__import__('os').getpid()}", "is not a number"),
        ("seed in {None}", "is not a valid value"),
        ("seed in {1, 2, 1}", "with 1 twice"),
        ("seed in {1}; seed in {2}", "seed twice"),
        ("model.filters in {(8, 8)}; model.filters[0] in {8}", "model.filters[0] twice"),
        ("model.filters[0] in {8}; model.filters in {(8, 8)}", "model.filters[0] twice"),
        ("f(x) in {1}", "names no field"),
        ("model.filters[-1] in {8}", "names no field"),
        ("3 in {8}", "names no field"),
    ],
)
def test_malformed_spaces(text, message):
    with pytest.raises(UserError) as error:
        space.parse(text)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.learning_rat in log(1e-3, 1)", "did you mean 'optim.learning_rate'"),
        ("optim in {1}", "optim, which is a group"),
        ("model.filters[2] in {8, 16}", r"model.filters[2], but model.filters is (4, 8)"),
        ("batch_size[0] in {8, 16}", "batch_size[0], but batch_size is 32"),
        ("batch_size in {16, '32'}", "batch_size cannot be '32': batch_size must be a whole"),
        ("batch_size in uniform(16, 32)", "batch_size cannot be 16.0: batch_size must be a whole"),
        ("optim.name in {'adam', 'adamm'}", "optim.name cannot be 'adamm': unknown optimizer"),
        ("model.dropout in uniform(0, 2)", "model.dropout cannot be 2.0"),
        ("model.filters[1] in {8, 0}", "model.filters[1] cannot be 0: filters must be positive"),
        ("optim.learning_rate in uniform(-1, 1)", "optim.learning_rate cannot be -1.0"),
        ("model.name in {'cnn2', 'cnn22'}", "unknown model 'cnn22'"),
        ("label_smoothing in {0.1, (0.1, 0.2)}", "label_smoothing must be a number"),
        ("num_epochs in {5, '10'}", "num_epochs cannot be '10': num_epochs must be a whole"),
        ("selected_by in {'loss', 'accuracy'}", "cannot have selected_by"),
        ("data.val_fraction in {0.1, 0.2}", "cannot have data.val_fraction"),
        ("data.limit in {100, 200}", "cannot have data.limit"),
        ("search.sampler in {'tpe', 'random'}", "cannot have search.sampler"),
    ],
)
def test_values_are_checked_one_by_one(text, message):
    with pytest.raises(UserError) as error:
        space.check(searching.make_config(), space.parse(text))
    assert message in str(error.value)


def test_values_are_applied_to_a_copy():
    config = searching.make_config()
    parameters = space.parse(
        "model.filters[1] in {16, 32}; optim.learning_rate in {1, 2}; augment.ops in {'', 'flip'};"
        "model.dropout in {(0.0, 0.1, 0.2), (0.5, 0.5, 0.5)}"
    )
    space.check(config, parameters)
    values = {"model.filters[1]": 16, "optim.learning_rate": 2, "augment.ops": "flip"}
    values |= {"model.dropout": (0.5, 0.5, 0.5)}
    trial = space.applied(config, parameters, values)
    assert trial.model.filters == (4, 16) and trial.model.dropout == (0.5, 0.5, 0.5)
    assert trial.augment.ops == "flip"
    assert trial.optim.learning_rate == 2.0 and type(trial.optim.learning_rate) is float
    assert config.model.filters == (4, 8) and trial.batch_size == config.batch_size
    assert trial.is_locked


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resnet18", "resnet34"),  # other defaults of the same options
        ("resnet18", "resnet50"),
        ("resnet18", "mobilenetv2"),  # a factor of the same name
        ("resnet18", "convnext_t"),
        ("cnn3", "cnn13"),  # other layers with dropout
        ("cnn2", "cnn4"),
        ("callbacks/simple", "vgg16"),
    ],
)
def test_a_network_is_built_as_on_the_command_line(file, name):
    flags = ["--config", str(tiny.ROOT / "configs" / f"{file}.py")]
    config, _ = command_line.parse(["", *flags], USAGE)
    expected, _ = command_line.parse(["", *flags, f"--config.model.name={name}"], USAGE)
    parameters = space.parse(f"model.name in {{'{config.model.name}', '{name}'}}")
    assert space.applied(config, parameters, {"model.name": name}).model == expected.model
    own = {k: v for k, v in models.options_of(name).items() if k in expected.model}
    assert expected.model.to_dict() == {"name": name} | own
    same = space.applied(config, parameters, {"model.name": config.model.name})
    assert same.model == config.model


def test_networks_may_have_other_kinds_of_options():
    config = tiny.make_config(model=ConfigDict({"name": "cnn2", "filters": (32, 64)}))
    space.check(config, space.parse("model.name in {'cnn2', 'cnn4'}"))  # with two and four filters


def test_the_longest_trial_is_that_with_the_most_epochs():
    config = searching.make_config()
    assert space.longest(config, space.parse("num_epochs in {5, 10, '20'}")) == 10
    assert space.longest(config, space.parse("num_epochs in {'a'}")) == config.num_epochs


def test_a_network_comes_with_its_own_options():
    config = tiny.make_config()
    parameters = space.parse(
        "model.name in {'cnn2', 'cnn_small', 'resnet18'}; model.dense_units in int(8, 64);"
        "model.width in {8, 16}"
    )
    space.check(config, parameters)
    values = {"model.name": "resnet18", "model.dense_units": 9, "model.width": 16}
    trial = space.applied(config, parameters, values)
    assert trial.model.width == 16 and "dense_units" not in trial.model
    trial = space.applied(config, parameters, values | {"model.name": "cnn_small"})
    assert trial.model.to_dict() == {"name": "cnn_small"}
    parameters = space.parse("model.name in {'cnn2', 'cnn_small'}; model.depht in int(8, 64)")
    with pytest.raises(UserError, match=r"unknown config field in search.space 'model\.depht'"):
        space.check(config, parameters)
