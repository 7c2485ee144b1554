import itertools
import json

import jax
import pytest

from benchmarks import harness, peak
from benchmarks.throughput import __main__ as throughput
from benchmarks.throughput import cases
from cifar_jax import engine, experiment, models
from cifar_jax.errors import UserError


@pytest.mark.parametrize("name", cases.names())
def test_every_network_is_timed_with_a_config_of_its_own(name):
    _, settings = cases.parse_case(name)
    assert settings.model.name == name.partition(" ")[0]


def test_a_new_network_is_timed_with_the_config_of_its_name(monkeypatch, tmp_path):
    monkeypatch.setitem(models.MODELS, "yours", models.MODELS["cnn3"])
    assert "yours" in cases.names()
    with pytest.raises(UserError, match=r"configs/yours\.py is missing"):
        cases.config_of("yours")
    (tmp_path / "configs" / "recipes").mkdir(parents=True)
    (tmp_path / "configs" / "recipes" / "yours.py").touch()
    monkeypatch.setattr(cases, "ROOT", tmp_path)
    assert cases.config_of("yours") == "recipes/yours"
    (tmp_path / "configs" / "yours.py").touch()
    assert cases.config_of("yours") == "yours"
    monkeypatch.setitem(cases.PUBLISHED, "a/yours", None)
    assert cases.config_of("yours") == "a/yours"
    monkeypatch.setitem(cases.PUBLISHED, "b/yours", None)
    with pytest.raises(UserError, match="yours has several configs: a/yours, b/yours"):
        cases.config_of("yours")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    mesh = engine.make_mesh(jax.devices()[:1])
    out = tmp_path_factory.mktemp("throughput") / "new" / "results.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "make_mesh", lambda: mesh)
        patch.setattr(peak, "measured", lambda dtype: 1e11)
        patch.setattr(jax, "clear_caches", lambda: None)  # would trace all functions of JAX again
        flags = ["", "cnn_small:8", "--seconds", "0.05", "--out", str(out)]
        assert throughput.main(flags) == 0
    (record,) = map(json.loads, out.read_text().splitlines())
    return record


def test_record_holds_the_measurements(record):
    expected = dict(model="cnn_small", batch_size=8, num_params=80_090, dtype="float32")
    assert {name: record[name] for name in expected} == expected
    assert record["compile_seconds"] > 0 and record["steps_per_round"] >= 1
    times = record["step_time_ms"]
    assert 0 < times["min"] <= times["median"] <= times["p95"] <= times["max"]
    assert record["images_per_second"] == pytest.approx(8e3 / times["median"])
    assert record["first_step_ms"] > 0 and 0 <= record["call_overhead_ms"] < 1e3
    assert -1 < record["input_share"] < 1  # noise around zero at this size
    assert "git_commit" in record and record["versions"]["jax"]
    # At least the parameters and Adam's moments, 3 x 4 bytes each, and the images.
    assert record["program_bytes"] > 12 * 80_090 + 4 * 8 * 3072
    row = throughput.table([record]).splitlines()[1]
    for cell in ("cnn_small", f"{record['flops_per_second'] / 1e9:,.0f}", " ms"):
        assert cell in row


def test_flops_agree_with_pytorch(record):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks import torch_models

    module = torch_models.create("cnn_small", 10)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(8, 3, 32, 32)).sum().backward()
    # PyTorch counts only convolutions and products, not activations, losses or the update.
    assert 1.0 <= record["flops_per_step"] / counter.get_total_flops() < 1.15


def test_a_case_sets_batch_size_and_dtype():
    name, settings = cases.parse_case("resnet18:512:bfloat16")
    assert (name, settings.batch_size, settings.dtype) == ("resnet18", 512, "bfloat16")
    assert cases.parse_case("cnn3")[1].batch_size == 32


def test_a_case_is_timed_with_images_of_one_size():
    _, settings = cases.parse_case("speed_resnet")
    assert not settings.augment.train_sizes
    experiment.checked(settings)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["resnet81"], "did you mean"),
        (["cnn3:0"], "is not MODEL"),
        (["cnn3:8:float16"], "unknown dtype 'float16'"),
        (["cnn3:8:float32:1"], "is not MODEL"),
        (["cnn3", "--seconds", "0"], "--seconds must be above 0"),
        (["cnn3", "--seconds", "nan"], "--seconds must be above 0"),
        (["cnn3", "--out", "/proc/none/out.jsonl"], "No such file"),
    ],
)
def test_invalid_flags_are_rejected(capsys, flags, message):
    assert throughput.main(["", *flags]) == 1
    assert message in capsys.readouterr().err


def test_the_peak_counts_two_flops_per_multiplication(monkeypatch):
    products, times = [], itertools.count(0.0, 0.5)  # two readings of the clock are 0.5 s apart

    def compile_for_backend(_lowered):
        def run(matrix, count):
            products.append((matrix.shape, count))
            return matrix

        return run

    monkeypatch.setattr(peak, "compile_for_backend", compile_for_backend)
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(peak, "_SECONDS", 2.0)
    flops = peak.measured.__wrapped__("float32")
    (rows, columns), count = products[-1]
    assert rows == columns and count == 4
    assert flops == 2 * rows**3 * 4 / 0.5
    assert peak.data_sheet("float32") is None  # unknown for CPUs


def test_the_measured_peak_is_plausible(monkeypatch):
    monkeypatch.setattr(peak, "_SECONDS", 0.02)
    monkeypatch.setattr(peak, "_ROUNDS", 1)
    assert 1e8 < peak.measured.__wrapped__("float32") < 1e15
