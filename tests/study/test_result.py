import shlex
from pathlib import Path

import pytest
import searching  # noqa: F401  (skips these tests without optuna)
import tiny

from cifar_jax import search
from cifar_jax.config import command_line, flatten
from cifar_jax.study import result, space

USAGE = "usage\n\nexample"


@pytest.mark.parametrize(
    ("file", "flags", "values"),
    [
        ("cnn2", (), {"batch_size": 16, "optim.learning_rate": 1e-4}),
        ("cnn2", (), {"model.name": "cnn4", "model.dense_units": 64}),
        ("resnet18", (), {"model.name": "resnet34"}),
        ("resnet18", (), {"model.name": "resnet34", "model.depths": (2, 2, 2, 2)}),
        ("resnet18", ("--config.model.name=resnet34",), {"model.depths": (2, 2, 2, 2)}),
        ("callbacks/simple", (), {"model.name": "vgg16"}),
        ("callbacks/simple", (), {"model.dropout": (0.1, 0.2, 0.3)}),
        ("callbacks/school_improved", (), {"plateau.patience": 0}),
        ("callbacks/school_improved", (), {"plateau.patience": 2, "plateau.factor": 0.5}),
        ("cnn2", (), {"lookahead.every": 0, "lookahead.decay": 0.9}),
        ("cnn2", (), {"lookahead.every": 5, "lookahead.decay": 0.9}),
        ("speedrun/airbench95", (), {"lookahead.every": 0}),
        ("speedrun/airbench95", (), {"optim.groups": "*/bias: learning_rate=0.1\n*: name='sgd'"}),
    ],
)
def test_the_printed_command_describes_the_winner(file, flags, values):
    path = str(tiny.ROOT / "configs" / f"{file}.py")
    config, _ = command_line.parse(["", "--config", path, *flags], USAGE)
    text = "; ".join(f"{field} in {{{value!r}}}" for field, value in values.items())
    winner = space.applied(config, space.parse(text), values)
    words = shlex.split(result.command(path, config, winner, Path("w")))
    assert words[:3] == ["python", "-m", "cifar_jax.main"]
    found = flatten(command_line.parse(words[2:], USAGE)[0])
    wanted = flatten(winner)
    if not (winner.plateau.patience or winner.early_stopping.patience):
        wanted |= (
            {"data.val_fraction": 0.0, "selected_on": "last"} if config.data.val_fraction else {}
        )
    # The fields of what is switched off have no effect, and their flags would be refused.
    off = tuple(
        f"{group}."
        for group, switch in command_line.SWITCHES.items()
        if not wanted[f"{group}.{switch}"]
    )
    for fields in (found, wanted):
        for name in [name for name in fields if name.startswith(("search.", *off))]:
            del fields[name]
    assert found == wanted


@pytest.mark.parametrize(
    ("file", "space_text", "flags"),
    [
        ("cnn2", "plateau.patience in {2, 4}", ["plateau.factor=0.5"]),
        ("cnn2", "lookahead.every in {0, 5}", ["lookahead.decay=0.9"]),
        ("search/coarse_cnn4", "", ["selected_by=loss", "data.val_seed=7"]),
        ("cnn2", "optim.schedule in {'cosine', 'one_cycle'}", ["optim.base_learning_rate=1e-4"]),
        ("cnn2", "optim.name in {'adam', 'sgd'}", ["optim.beta1=0.8"]),
    ],
)
def test_a_field_that_some_trial_uses_is_accepted_without_a_note(file, space_text, flags, capsys):
    argv = ["", "--config", str(tiny.ROOT / "configs" / f"{file}.py")]
    argv += [f"--config.search.space={space_text}"] if space_text else []
    argv += [f"--config.{flag}" for flag in flags]
    command_line.parse(argv, USAGE, varied=search._varied)
    assert not capsys.readouterr().err
    command_line.parse([*argv, "--config.optim.power=2.0"], USAGE, varied=search._varied)
    has_note = "optim.power has no effect" in capsys.readouterr().err
    assert has_note == ("optim." not in space_text)
