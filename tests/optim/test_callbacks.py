import json
import math

import numpy as np
import pytest

from cifar_jax.errors import UserError
from cifar_jax.optim.callbacks import Callbacks, EarlyStopping, Plateau

RNG = np.random.default_rng(0)


def make_sequence():
    """Returns a random walk of a metric, with plateaus and repeated values."""
    steps = RNG.choice(
        [-0.1, -0.01, 0.0, 0.01, 0.1], RNG.integers(5, 40), p=[0.2, 0.2, 0.2, 0.3, 0.1]
    )
    return (2.0 + np.cumsum(steps)).tolist()


SEQUENCES = [make_sequence() for _ in range(200)]


def learning_rates_of(plateau, values, learning_rate=0.1):
    """Returns the learning rate after each epoch."""
    result = []
    for value in values:
        learning_rate *= plateau.decide(value, learning_rate).learning_rate_factor
        result.append(learning_rate)
    return result


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("torch")
    return pytest.importorskip("lazy_keras").keras


class Model:
    """The attributes of a model that Keras's callbacks use."""

    def __init__(self, keras):
        self.optimizer = keras.optimizers.SGD(0.1)
        self.stop_training = False


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
def test_plateau_equals_keras(keras, monitor):
    num_cuts = 0
    for i, values in enumerate(SEQUENCES):
        values = values if monitor == "loss" else [-value for value in values]
        options = dict(factor=0.5, cooldown=i % 4, min_delta=(1e-4, 0.02)[i % 2])
        min_learning_rate = (0.0, 0.03)[i % 3 == 0]
        theirs = keras.callbacks.ReduceLROnPlateau(
            monitor,
            patience=1 + i % 5,
            min_lr=min_learning_rate,
            mode="min" if monitor == "loss" else "max",
            **options,
        )
        theirs.set_model(Model(keras))
        theirs.on_train_begin()
        expected = []
        for epoch, value in enumerate(values):
            theirs.on_epoch_end(epoch, {monitor: value})
            expected.append(float(theirs.model.optimizer.learning_rate))
        ours = Plateau(monitor, 1 + i % 5, min_learning_rate=min_learning_rate, **options)
        np.testing.assert_allclose(learning_rates_of(ours, values), expected, rtol=1e-5)
        num_cuts += len(set(expected)) - 1
    assert num_cuts > 200


def test_plateau_equals_pytorch():
    """PyTorch's patience is one less, and its cooldown of n corresponds to n + 1 in Keras."""
    torch = pytest.importorskip("torch")
    for i, values in enumerate(SEQUENCES):
        patience, cooldown = 1 + i % 5, i % 3
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=0.5,
            patience=patience - 1,
            cooldown=cooldown,
            threshold=1e-3,
            threshold_mode="abs",
            min_lr=0.001,
            eps=0,
        )
        expected = []
        for value in values:
            theirs.step(value)
            expected.append(optimizer.param_groups[0]["lr"])
        ours = Plateau(
            "loss",
            patience,
            factor=0.5,
            cooldown=cooldown + 1,
            min_delta=1e-3,
            min_learning_rate=0.001,
        )
        np.testing.assert_allclose(learning_rates_of(ours, values), expected, rtol=1e-9)


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
def test_early_stopping_equals_keras(keras, monitor):
    num_stops = 0
    for i, values in enumerate(SEQUENCES):
        values = values if monitor == "loss" else [-value for value in values]
        options = dict(patience=1 + i % 6, min_delta=(0.0, 0.02)[i % 2])
        theirs = keras.callbacks.EarlyStopping(
            monitor, mode="min" if monitor == "loss" else "max", **options
        )
        theirs.set_model(Model(keras))
        theirs.on_train_begin()
        ours = EarlyStopping(monitor, **options)
        for epoch, value in enumerate(values):
            theirs.on_epoch_end(epoch, {monitor: value})
            assert ours.decide(value).stops == theirs.model.stop_training
            if theirs.model.stop_training:
                num_stops += 1
                break
        assert ours.has_stopped == theirs.model.stop_training
    assert 50 < num_stops < 200


@pytest.mark.parametrize("cut_at", [1, 3, 4])
def test_decisions_are_the_same_after_a_round_trip_through_json(cut_at):
    def make():
        return Callbacks(Plateau("loss", 2, cooldown=1), EarlyStopping("train_accuracy", 3))

    def decide(callbacks, value):
        return callbacks.after_epoch({"loss": value, "train_accuracy": -value}, 0.1)

    values = [2.0, 2.1, 2.2, 2.0, 2.3, 2.2]
    uninterrupted = make()
    expected = [decide(uninterrupted, value) for value in values]
    assert [i for i, d in enumerate(expected) if d.learning_rate_factor != 1] == [2, 4]
    assert [d.stops for d in expected] == [False, False, False, True, True, True]
    first, second = make(), make()
    decisions = [decide(first, value) for value in values[:cut_at]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    decisions += [decide(second, value) for value in values[cut_at:]]
    assert decisions == expected and second.has_stopped
    assert expected[2].events == ("learning rate cut to 0.01: no better loss in 2 evaluations",)
    assert expected[3].events == ("stopped: no better train_accuracy in 3 evaluations",)


@pytest.mark.parametrize("factor", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("learning_rate", [1e-3, 3e-4, 0.1])
def test_learning_rate_at_its_min_is_not_cut_again(factor, learning_rate):
    """As in training, the learning rate is a float32 multiplied by a float32 scale."""
    for min_learning_rate in (1e-7, 1e-6, 3e-5):
        plateau = Plateau("loss", 3, factor=factor, min_learning_rate=min_learning_rate)
        scale, cuts = np.float32(1), 0
        for _ in range(200):
            decision = plateau.decide(1.0, float(np.float32(learning_rate) * scale))
            scale *= np.float32(decision.learning_rate_factor)
            cuts += len(decision.events)
        assert cuts == math.ceil(
            math.log(min_learning_rate / learning_rate) / math.log(factor) - 1e-6
        )


def test_nan_is_not_an_improvement():
    plateau = Plateau("loss", 2)
    for value in (1.0, math.nan, 2.0):
        decision = plateau.decide(value, 0.1)
    assert plateau.best == -1.0 and decision.learning_rate_factor == pytest.approx(0.1)


def test_epochs_without_an_evaluation_do_not_count():
    plateau = Callbacks(Plateau("loss", 2))
    values = [1.0, None, 1.0, None, None]
    assert all(plateau.after_epoch({"loss": v}, 0.1).learning_rate_factor == 1.0 for v in values)
    assert plateau.after_epoch({"loss": 1.0}, 0.1).learning_rate_factor == pytest.approx(0.1)
    assert Callbacks().after_epoch({}, 0.1) == (1.0, False, ())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plateau("los", 2), "unknown plateau.monitor 'los'; did you mean 'loss'"),
        (lambda: Plateau("loss", 0), "1 or more, or 0 to disable the callback, got 0"),
        (lambda: Plateau("loss", 2, factor=1.0), r"plateau.factor must be in \(0, 1\), got 1.0"),
        (lambda: Plateau("loss", 2, cooldown=-1), "plateau.cooldown must be at least 0, got -1"),
        (
            lambda: Plateau("loss", 2, min_learning_rate=math.nan),
            "plateau.min_learning_rate must be at least 0, got nan",
        ),
        (lambda: Plateau("loss", 2, min_delta=-1), "plateau.min_delta must be at least 0, got -1"),
        (lambda: EarlyStopping("loss", 1.5), "early_stopping.patience must be .* got 1.5"),
    ],
)
def test_invalid_options_are_rejected(make, message):
    with pytest.raises(UserError, match=message):
        make()
