import json
import statistics

import jax
import numpy as np
import pytest
import tiny
from scipy import stats

from benchmarks.speedrun import __main__ as command
from benchmarks.speedrun import in_jax, measure, summary
from benchmarks.speedrun.outcome import Outcome
from cifar_jax import config, engine
from cifar_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("library_convolutions")


def thin(**overrides):
    """Returns airbench94 with a thin network and four steps per epoch of the tiny data set."""
    cfg = config.load_complete(measure.config_path("airbench94"))
    small = dict(batch_size=25, eval_batch_size=20, model__widths=(8, 8, 8), num_epochs=2)
    tiny._set(cfg, **small | overrides)
    return measure.check(cfg)


def compiled(cfg, clock):
    """Returns a recipe that is compiled for one device and the tiny data set."""
    return in_jax.InJax(cfg, tiny.dataset(), clock, engine.make_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def recipe():
    """Returns a compiled recipe and its config."""
    cfg = thin()
    return compiled(cfg, "T1"), cfg


def test_a_run_equals_training_with_the_same_seed(recipe, tmp_path):
    run, cfg = recipe
    outcome = run.run(3)
    tiny._set(cfg := cfg.copy_and_resolve_references(), seed=3)
    result = tiny.train(cfg, tmp_path / "run", dataset=tiny.dataset())
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    train_loss = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))["train_loss"]
    assert outcome.accuracy == pytest.approx(result["test_accuracy"])
    assert outcome.train_loss == pytest.approx(float(train_loss), rel=1e-5)


def test_training_on_other_labels_leaves_no_trace(recipe):
    run, _ = recipe
    before = run.run(1)
    labels = tiny.dataset().train.labels
    other = run.run(1, labels[::-1].copy())
    after = run.run(1)
    assert other.train_loss != pytest.approx(before.train_loss, rel=1e-3)
    assert after[1:] == before[1:]


def test_views_are_averaged_only_in_the_reported_accuracy(recipe, request):
    run, cfg = recipe
    assert cfg.augment.views == 6
    state = run._engine.fit(run._engine.init(load=False))
    logits, once = run._evaluate(state)[1], run._evaluate_once(state)[1]
    assert np.abs(logits - once).max() > 1e-6
    request.getfixturevalue("untrained")
    single = compiled(thin(augment__views=1), "T1")
    assert single._evaluate is single._evaluate_once


@pytest.mark.parametrize(("clock", "seconds"), [("T1", 200 + 2 * 4000 + 10), ("T2", 8231)])
def test_a_clock_covers_what_it_says(recipe, clock, seconds, monkeypatch):
    """Every part of a run advances a fake clock; T2 covers 1 + 30 + 200 + 2 * 4000 seconds."""
    run, _ = recipe
    now = [0.0]
    monkeypatch.setattr(in_jax.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(run, "_clock", clock)

    def takes(duration, function):
        def slow(*args, **kwargs):
            now[0] += duration(args) if callable(duration) else duration
            return function(*args, **kwargs)

        return slow

    for name, duration in {
        "upload": 1, "init": 30, "fit": 200, "run": lambda args: 1000 * args[-1],
    }.items():  # fmt: skip
        monkeypatch.setattr(engine.Engine, name, takes(duration, getattr(engine.Engine, name)))
    monkeypatch.setattr(run, "_evaluate", takes(10, run._evaluate))
    monkeypatch.setattr(run, "_evaluate_once", takes(5, run._evaluate_once))
    assert run.run(0).seconds == seconds


def test_the_upload_has_ended_when_t1_starts(recipe, monkeypatch):
    run, _ = recipe
    events, wait = [], jax.block_until_ready
    monkeypatch.setattr(in_jax.time, "perf_counter", lambda: events.append("clock") or 0.0)

    def noted(tree):
        events.extend(x.shape for x in jax.tree.leaves(tree))
        return wait(tree)

    monkeypatch.setattr(in_jax.jax, "block_until_ready", noted)
    run.run(0)
    assert (100, 32, 32, 3) in events[: events.index("clock")]


@pytest.mark.parametrize(
    ("field", "value"),
    [("parallel", "pmap"), ("steps_per_call", 1), ("early_stopping__patience", 3), ("seed", 1)],
)
def test_fields_without_a_use_are_refused(field, value):
    with pytest.raises(UserError, match=f"no use for {field.replace('__', '.')}"):
        thin(**{field: value})


class FakeRecipe:
    """Replaces InJax and records the arguments of its runs."""

    calls = []

    def __init__(self, config, dataset, clock):
        self.labels, self.compile_seconds = dataset.train.labels, 12.5

    def run(self, seed, labels=None):
        self.calls.append((seed, labels))
        return Outcome(2.0 + seed, 0.9 + seed / 100, 0.8, 1.5)


@pytest.fixture
def fake_recipe(monkeypatch):
    monkeypatch.setattr(in_jax, "InJax", FakeRecipe)
    monkeypatch.setattr(measure.experiment, "load_data", lambda config: tiny.dataset())
    monkeypatch.setattr(FakeRecipe, "calls", [])
    return FakeRecipe.calls


def run_command(*flags, out):
    return command.main(["speedrun", *flags, "--out", str(out)])


def test_the_command_warms_up_on_random_labels_and_keeps_every_run(fake_recipe, tmp_path, capsys):
    out = tmp_path / "new" / "speedrun.jsonl"
    flags = ("--runs", "3", "--first_seed", "2", "--config.model.widths=8,16,16")
    assert run_command("airbench95", *flags, "--config.num_epochs=4", out=out) == 0
    (_, warm_up), *timed = fake_recipe
    assert sorted(warm_up) == sorted(tiny.dataset().train.labels)
    assert np.mean(warm_up == tiny.dataset().train.labels) < 0.5
    assert timed == [(2, None), (3, None), (4, None)]
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["seed"] for r in records] == [2, 3, 4]
    assert [r["seconds"] for r in records] == [4.0, 5.0, 6.0]
    first = records[0]
    assert first["changed"] == ["model.widths=[8, 16, 16]", "num_epochs=4"]
    assert (first["clock"], first["framework"], first["compile_seconds"]) == ("T1", "jax", 12.5)
    assert {r["settings_hash"] for r in records} == {first["settings_hash"]}
    assert first["git_commit"] and first["versions"]["jax"] == jax.__version__
    printed = capsys.readouterr().out
    assert "run 1 of 3, seed 2: 92.00% in 4.00 s" in printed
    assert "published         95.01% in 10.4 s (T1) on" in printed
    assert "of which 12.5 s compiling, and " in printed and f"records in        {out}" in printed


def test_the_clock_of_the_published_record_is_the_default(fake_recipe, tmp_path):
    out = tmp_path / "speedrun.jsonl"
    assert run_command("cifar100_75", out=out) == 0
    assert run_command("cifar100_75", "--clock", "T1", out=out) == 0
    clocks = [json.loads(line)["clock"] for line in out.read_text().splitlines()]
    assert clocks == ["T2", "T1"]


def test_a_record_of_pytorch_names_its_device_and_dtype(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    flags, out = ("airbench94", "--framework", "torch"), tmp_path / "speedrun.jsonl"
    assert run_command(*flags, "--config.dtype=bfloat16", out=out) == 1
    assert "PyTorch computes in float32, got dtype='bfloat16'" in capsys.readouterr().err
    monkeypatch.setattr(measure.jax, "default_backend", lambda: "gpu")
    assert run_command(*flags, "--config.dtype=float32", out=out) == 1
    assert "PyTorch would compute on the cpu" in capsys.readouterr().err
    assert not out.read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["airbench94", "--runs", "0"], "--runs must be from 1 to 10,000, got 0"),
        (["airbench94", "--config.batch_size=x"], "--config.batch_size needs a whole number"),
        (["airbench94", "--config.parallel=pmap"], "no use for parallel"),
        (["airbench94", "--data_dir", "/none"], "/none"),
    ],
)
def test_invalid_commands_end_in_one_line(flags, message, tmp_path, capsys):
    out = tmp_path / "speedrun.jsonl"
    assert run_command(*flags, out=out) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--rnus", "3"],
        ["airbench95"],
        ["airbench95", "--config.seed=1"],
        ["--config", "configs/cnn3.py"],
        ["--config=configs/cnn3.py"],
    ],
)
def test_arguments_that_are_not_fields_are_refused(flags, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_command("airbench94", *flags, out=tmp_path / "speedrun.jsonl")
    assert f"unrecognized arguments: {flags[0]}" in capsys.readouterr().err


def test_the_summary_has_mean_deviation_and_interval():
    values = [2.0, 2.5, 2.1, 2.2]
    interval = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    expected = "2.20 s ± {:.2f} ({:.2f} to {:.2f})".format(statistics.stdev(values), *interval)
    assert summary.seconds(values) == expected
    assert summary.seconds([2.0]) == "2.00 s"


def test_runs_of_different_settings_are_different_groups(fake_recipe, tmp_path):
    out = tmp_path / "speedrun.jsonl"
    for size in (500, 500, 1000):
        assert run_command("airbench94", f"--config.batch_size={size}", out=out) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    one, same, other = (summary.key(record | {"changed": []}) for record in records)
    assert one == same and one != other
