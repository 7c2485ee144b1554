import numpy as np
import pytest
import tiny

from cifar_jax import config
from cifar_jax.experiment.parts import build_schedule
from cifar_jax.range_test.suggestion import Point, fields_for, flags_for, smooth, suggest


def test_suggestions_for_a_curve_that_rises_from_1e4_to_1e2_and_falls():
    rates = np.geomspace(1e-6, 1, 201)
    height = np.interp(np.log10(rates), [-4, -2, -1], [0.05, 0.65, 0.0])
    points = [Point(i, r, 3 - 4 * h, h) for i, (r, h) in enumerate(zip(rates, height, strict=True))]
    found = suggest(points)
    assert found["base_learning_rate"] == pytest.approx(10**-3.8, rel=0.3)
    assert found["max_learning_rate"] == pytest.approx(1e-2, rel=0.3)
    assert 1e-4 < found["steepest_learning_rate"] < 1e-2


def curve(accuracies):
    rates = np.geomspace(1e-6, 1, len(accuracies))
    return [Point(i, r, 4.6, a) for i, (r, a) in enumerate(zip(rates, accuracies, strict=True))]


def test_nothing_is_suggested_if_the_accuracy_does_not_rise():
    noise = 0.01 + 0.002 * np.random.default_rng(0).standard_normal(200)
    for accuracies in (noise, np.full(200, 0.01), np.full(5, 0.01)):
        found = suggest(curve(accuracies))
        assert found["max_learning_rate"] is None and "does not rise" in found["warnings"][0]
    assert suggest(curve(noise + np.linspace(0, 0.02, 200)))["max_learning_rate"]
    few = suggest(curve([0.01, 0.05, 0.1, 0.02]))
    assert few["max_learning_rate"] == pytest.approx(1e-2)
    assert "only 4 points" in few["warnings"][0]


def test_curve_that_rises_to_the_end_gives_a_warning():
    rising = curve(np.linspace(0, 0.5, 200))
    assert "larger --to" in suggest(rising)["warnings"][0]
    interrupted = suggest(rising, "Ctrl-C")
    assert (
        interrupted["max_learning_rate"] is None and "let it finish" in interrupted["warnings"][0]
    )
    assert not suggest(curve(np.interp(np.arange(200), [0, 150, 199], [0, 0.5, 0])))["warnings"]


@pytest.mark.parametrize("path", tiny.CONFIGS, ids=config.experiment_name)
def test_the_flags_fit_every_config(path):
    cfg = config.load(path)
    found = {"base_learning_rate": 1e-4, "max_learning_rate": 2e-3}
    for flag in flags_for(fields_for(cfg, found)).split():
        name, _, value = flag.removeprefix("--config.optim.").partition("=")
        cfg.optim[name] = type(cfg.optim[name])(value)
    schedule = build_schedule(cfg, 100)
    rates = [float(schedule(step)) for step in (0, 400)]
    np.testing.assert_allclose(rates, [1e-4, 2e-3], rtol=1e-5)


def test_smoothing_preserves_a_straight_line_and_the_length():
    values = np.linspace(0, 1, 100)
    np.testing.assert_allclose(smooth(values)[10:-10], values[10:-10])
    assert len(smooth(values)) == 100
    np.testing.assert_array_equal(smooth([1.0, 2.0, 3.0]), [1, 2, 3])  # too few to smooth
