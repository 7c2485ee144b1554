"""Checks the README and the pages of docs/: their length, links and code."""

import re
import textwrap

import jax.numpy as jnp
import optax
import pytest
import tiny
from models import test_models

from cifar_jax import experiment, models, optim
from cifar_jax.config import base
from cifar_jax.errors import UserError
from cifar_jax.experiment.parts import build_optimizer, build_schedule
from cifar_jax.optim.options import require

DOCS = tiny.ROOT / "docs"


def headings(path):
    """Returns the anchors of a page, which GitHub makes from its headings."""
    titles = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", (tiny.ROOT / "README.md", *sorted(DOCS.glob("*.md"))), ids=str)
def test_links_point_to_files_and_headings(path):
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in headings(linked), target


@pytest.mark.parametrize("name", ["README.md", "docs/training.md"])
def test_examples_use_runs_that_earlier_ones_made(name):
    made = {"runs/coarse/cnn2_batch64"}  # by the README's first real run
    blocks = re.findall(r"```sh\n(.*?)```", (tiny.ROOT / name).read_text(), re.DOTALL)
    for line in "".join(blocks).splitlines():
        used = set(re.findall(r"runs/[\w/]+", line))
        if "cifar_jax.main" in line or "cifar_jax.lr_range_test" in line:
            config = re.search(r"--config configs/([\w/]+)\.py", line)[1]
            made |= used if "--workdir" in line else {f"runs/{config}"}
        else:
            assert all(path.startswith(tuple(made)) for path in used), line


def test_the_readme_is_short():
    """Its tables are not counted: they grow with the results."""
    text = (tiny.ROOT / "README.md").read_text()
    assert len(re.sub(r"<!-- table:.*?<!-- end:", "", text, flags=re.DOTALL).splitlines()) <= 140


def example(text_in_it):
    """Returns the block of Python in docs/extending.md that contains a text."""
    text = (DOCS / "extending.md").read_text()
    (found,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if text_in_it in block
    ]
    return textwrap.dedent(found)


def test_the_example_network_passes_the_tests_of_networks(monkeypatch):
    scope = {}
    exec(example("OneConv"), scope)
    monkeypatch.setitem(models.MODELS, "one_conv", scope["OneConv"])
    monkeypatch.setitem(test_models.NUM_PARAMS, "one_conv", 820_196)
    test_models.test_number_of_parameters("one_conv")
    test_models.test_logits_in_training_and_evaluation("one_conv")
    test_models.test_bfloat16_keeps_parameters_statistics_and_logits_in_float32("one_conv")
    assert models.options_of("one_conv") == {"filters": 32, "dropout": 0.5}


def test_the_example_schedule_and_optimizer_work(monkeypatch):
    scope = {"optax": optax, "require": require}
    exec(example("hold_and_decay"), scope)
    for registry, name in ((optim.SCHEDULES, "hold_and_decay"), (optim.OPTIMIZERS, "rmsprop")):
        monkeypatch.setitem(registry, name, scope[name])
    config = base.get_config()
    config.optim.update(name="rmsprop", schedule="hold_and_decay", hold=0.5, learning_rate=0.1)
    config.update(num_epochs=5)
    config.optim.warmup_epochs = 1.0
    experiment.checked(config)
    schedule = build_schedule(config, steps_per_epoch=10)
    expected = [0.0, 0.1, 0.1, 0.05, 0.0]
    assert [float(schedule(step)) for step in (0, 10, 30, 40, 50)] == pytest.approx(expected)
    config.optim.hold = 1.0
    with pytest.raises(UserError, match=r"optim\.hold must be in \[0, 1\), got 1"):
        experiment.checked(config)
    weights, config.optim.eps = jnp.ones(3), 0.5
    optimizer = build_optimizer(config)
    updates, _ = optimizer.update(weights, optimizer.init(weights))
    assert updates == pytest.approx([-1 / (0.001 + 0.5) ** 0.5] * 3)
