import jax
import pytest

from benchmarks.gpu_program import programs
from benchmarks.gpu_program.__main__ import CASES
from benchmarks.gpu_program.measure import lower
from cifar_jax.errors import UserError


def steps(case):
    return [(p.first_epoch, p.image_size, p.num_steps) for p in programs.parse(case)[2]]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # The scripts take 200, 720 and 1776 steps. 10,000 images are 5 batches.
        ("speedrun/airbench94", [(0, 32, 200), (None, 32, 5)]),
        ("speedrun/airbench95", [(0, 32, 720), (None, 32, 5)]),
        ("speedrun/airbench96", [(0, 32, 1776), (None, 32, 5)]),
        # 48 steps in each of 9 epochs, which start with 20, 24 and 32 pixels.
        (
            "speedrun/cifar100_75",
            [(0, 20, 48), (1, 24, 3 * 48), (4, 32, 5 * 48), (None, 32, 5)],
        ),
    ],
)
def test_the_programs_of_a_speedrun(case, expected):
    assert case in CASES and steps(case) == expected


def test_other_cases_have_one_program():
    (program,) = programs.parse("cnn3:40000")[2]
    assert (program.image_size, program.batch_size, program.steps_per_epoch) == (32, 40_000, 2)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("speedrun/airbench93", "unknown config .* did you mean 'speedrun/airbench9"),
        ("speedrun/airbench94:100", "unknown config"),
        ("../setup", "unknown config"),
        ("cnn33", "unknown model"),
    ],
)
def test_unknown_cases_are_refused(case, message):
    with pytest.raises(UserError, match=message):
        programs.parse(case)


def test_every_program_has_its_size_and_its_learning_rates():
    _, settings, found = programs.parse("speedrun/cifar100_75")
    settings.model.widths = settings.model.mid_widths = (2, 3, 4)
    for program in found:
        lowered = lower(settings, jax.devices()[:1], program)
        # The stem, a valid convolution with 2x2 pixels.
        size = program.image_size - 1
        images = 2000 if program.is_evaluation else 1024
        assert f"tensor<{images}x{size}x{size}x24x" in lowered.as_text()
        if not program.is_evaluation:
            order, rates = lowered.args_info[0][3][:2]
            # Group 0, and one for each of the three lines of optim.groups.
            assert (order.shape, rates.shape) == ((48, 1024), (48, 4))
