import json
import multiprocessing
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import spinning
import tiny

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_torch_thread")

from benchmarks.versus_torch import __main__ as versus_torch  # noqa: E402
from benchmarks.versus_torch import cases, compare, contenders  # noqa: E402
from benchmarks.versus_torch.settings import SETTINGS  # noqa: E402
from benchmarks.versus_torch.subprocess_contender import SubprocessContender  # noqa: E402
from cifar_jax import models  # noqa: E402
from cifar_jax.errors import UserError  # noqa: E402


@pytest.mark.slow
def test_record_holds_the_measurements(tmp_path, capsys):
    out = tmp_path / "new" / "results.jsonl"
    tried = ["torch", "torch_fused"]
    arguments = ["", "cnn_small:4", "--rounds", "2", "--steps", "2", "--out", str(out)]
    versus_torch.main([*arguments, "--settings", *tried])
    (record,) = map(json.loads, out.read_text().splitlines())
    expected = dict(model="cnn_small", batch_size=4, dtype="float32", rounds=2, steps_per_round=2)
    assert {field: record[field] for field in expected} == expected
    assert record["optimizer"].startswith("adam")
    assert record["device"]["platform"] == "cpu" and record["threads"]["torch"] >= 1
    assert record["device"]["count"] == 1  # of the eight that the tests have
    assert record["versions"]["torch"] and record["versions"]["jax"] and "git_commit" in record
    assert record["compile_seconds"] > 0
    assert record["used_elsewhere"] is None or 0 <= record["used_elsewhere"] <= 1
    ms = record["ms_per_step"]
    times = record["ms_of_settings"]
    assert [*times] == tried and min(times.values()) > 0
    near = {name for name in tried if times[name] <= compare.NEAR * min(times.values())}
    assert ms.keys() == {"jax", "torch", *near} and record["torch_setting"] in ms
    assert all(len(values) == 2 and min(values) > 0 for values in ms.values())
    assert record == record | compare.comparison(ms)
    # Both have at least PyTorch's libraries in memory.
    assert all(5e7 < size < 1e11 for size in record["peak_memory_bytes"].values())
    assert multiprocessing.active_children() == []
    assert f"{record['jax_ms']:.2f}" in capsys.readouterr().out.splitlines()[1]


@pytest.mark.slow
def test_a_contender_in_a_subprocess(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    large = np.ones(2**30, np.uint8)  # in the memory of this process only
    run = SubprocessContender(spinning.spin, 0.01, num_threads=1)
    environ = Path(f"/proc/{run._process.pid}/environ").read_text()
    assert "hugetlb=0" in environ and os.environ["GLIBC_TUNABLES"].endswith("hugetlb=1")
    assert run.peak_bytes < large.size < compare.peak_bytes()
    before = compare.peak_bytes()
    del large
    compare.reset_peak_bytes()
    assert compare.peak_bytes() < before - 0.9 * 2**30
    seconds, busy = run.processor_seconds, compare._processor_seconds([run])[0]
    run(20)
    assert 0.2 <= run.processor_seconds - seconds < 0.5
    assert compare._processor_seconds([run])[0] - busy >= 0.2
    with pytest.raises(RuntimeError, match="ValueError: bad luck"):
        run(13)
    run.close()
    with pytest.raises(RuntimeError, match="ValueError: no such contender"):
        SubprocessContender(spinning.spin, -1.0, num_threads=1)
    assert multiprocessing.active_children() == []


def test_ratios_are_taken_within_rounds():
    assert compare.comparison(
        {
            "jax": [10.0, 300.0, 12.0],
            "torch": [20.0, 900.0, 90.0],
            "torch_fused": [40.0, 400.0, 30.0],
        }
    ) == {
        "jax_ms": 12.0,
        "torch_ms": 40.0,
        "torch_setting": "torch_fused",
        "ratio": {"median": 0.4, "min": 0.25, "max": 0.75},
        "default_ms": 90.0,
        "ratio_to_default": {"median": 1 / 3, "min": 2 / 15, "max": 0.5},
    }


def test_autocast_computes_in_bfloat16():
    """Compares the first losses of both sides in both dtypes."""
    images, labels = (x[:8] for x in tiny.dataset().train)
    _, optimizer, make_torch_optimizer = contenders.make_optimizers("cnn_small")
    losses = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contenders.harness, "check_loss", lambda loss: losses.setdefault(key, loss))
        for dtype in ("float32", "bfloat16"):
            case = contenders.Case("cnn_small", 8, dtype, images, labels)
            key = "jax", dtype
            run, state, _ = contenders.make_jax(case, optimizer)
            run(1)
            key = "torch", dtype
            setting = SETTINGS["cpu"]["torch"]
            contenders.make_torch(case, make_torch_optimizer, state, setting)(1)
    assert losses["jax", "float32"] != losses["jax", "bfloat16"]
    assert losses["torch", "float32"] != losses["torch", "bfloat16"]


def try_settings(monkeypatch, seconds, num_steps=3):
    """Calls `_try_settings` with contenders whose first turn is slow; those without a time fail."""
    names = {setting: name for name, setting in compare.settings_here().items()}

    def make(setting):
        return lambda _: seconds[names[setting]] + 0.0

    turns = []

    def seconds_per_step(run, count):
        turns.append(count)
        return run(count) * (10.0 if len(turns) % compare.FIRST_TURNS else 1.0)

    monkeypatch.setattr(compare.harness, "seconds_per_step", seconds_per_step)
    kept, ms = compare._try_settings(make, seconds, num_steps)
    assert set(turns) == {num_steps}
    return [*kept], ms


def test_settings_nearly_as_fast_as_the_fastest_and_the_default_are_kept(monkeypatch):
    seconds = {
        "torch": 9.0, "torch_channels_last": 1.2, "torch_fused": 1.3,
        "torch_channels_last_fused": 1.0, "torch_channels_last_fused_huge": None,
    }  # fmt: skip
    kept, ms = try_settings(monkeypatch, seconds)
    assert kept == ["torch", "torch_channels_last", "torch_channels_last_fused"]
    assert ms == {name: s and 1e3 * s for name, s in seconds.items()}


def test_a_comparison_needs_one_setting_that_works(monkeypatch):
    with pytest.raises(RuntimeError, match="PyTorch failed in every setting"):
        try_settings(monkeypatch, {"torch": None, "torch_fused": None})


def test_rounds_fill_some_seconds_within_limits():
    assert compare._plan_rounds(1e3 * compare.SECONDS / 15) == 15
    assert compare._plan_rounds(1e6) == compare.MIN_ROUNDS
    assert compare._plan_rounds(1e-3) == compare.MAX_ROUNDS


def test_contenders_alternate_after_a_warm_up():
    turns = []
    contenders = {name: lambda n, name=name: turns.append((name, n)) for name in "ab"}
    ms = compare.time_contenders(contenders, num_rounds=2, num_steps=5)
    warm_up = compare.WARM_UP_STEPS
    assert turns == 2 * [("a", warm_up), ("a", 5), ("b", warm_up), ("b", 5)]
    assert {name: len(values) for name, values in ms.items()} == {"a": 2, "b": 2}


def test_times_are_milliseconds_per_step(monkeypatch):
    now = 0.0

    def run(num_steps):
        nonlocal now
        now += 0.25 * num_steps

    monkeypatch.setattr(compare.harness.time, "perf_counter", lambda: now)
    assert compare.time_contenders({"a": run}, num_rounds=1, num_steps=4) == {"a": [250.0]}


@pytest.mark.parametrize("model", ["cnn3", "resnet18"])
def test_both_optimizers_take_the_same_steps(model):
    _, optimizer, make_torch_optimizer = contenders.make_optimizers(model)
    start, *grads = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    params, torch_params = jnp.asarray(start), torch.tensor(start, requires_grad=True)
    state = optimizer.init(params)
    torch_optimizer = make_torch_optimizer([torch_params], fused=True)
    for grad in grads:
        updates, state = optimizer.update(jnp.asarray(grad), state, params)
        params = optax.apply_updates(params, updates)
        torch_params.grad = torch.tensor(grad)
        torch_optimizer.step()
    np.testing.assert_allclose(params - start, torch_params.detach() - start, rtol=1e-3)


def test_a_case_consists_of_model_batch_size_and_dtype():
    assert cases.parse_case("cnn3:128") == ("cnn3", 128, "float32")
    assert cases.parse_case("resnet18:512:bfloat16") == ("resnet18", 512, "bfloat16")
    assert cases.parse_case("cnn2") == ("cnn2", 64, "float32")
    with pytest.raises(UserError, match="unknown model 'resnet19'; did you mean 'resnet18'"):
        cases.parse_case("resnet19:32")
    with pytest.raises(UserError, match="'resnet18 imagenet' cannot be compared"):
        cases.parse_case("resnet18 imagenet")


def test_a_network_without_a_pytorch_version_is_not_comparable(monkeypatch):
    class Unversioned(models.MODELS["cnn3"]):
        pass

    monkeypatch.setitem(models.MODELS, "cnn3", Unversioned)
    assert "cnn3" not in cases.names() and "cnn2" in cases.names()
    with pytest.raises(UserError, match="'cnn3' cannot be compared"):
        cases.parse_case("cnn3")
