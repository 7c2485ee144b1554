import json
import time

import pytest

from benchmarks.gpu_suite import __main__ as gpu_suite
from benchmarks.gpu_suite import stages
from benchmarks.gpu_suite.suite import Suite
from benchmarks.published import PUBLISHED

CPU = {"device": {"platform": "cpu"}, "small": False}
GPU = {"device": {"platform": "gpu"}, "small": False}


@pytest.fixture
def calls(monkeypatch):
    """Replaces calls of benchmarks; returns a list of their (module, arguments)."""
    recorded = []
    monkeypatch.setattr(
        Suite,
        "call",
        lambda suite, module, *arguments, **_: recorded.append((module, arguments)),
    )
    return recorded


def make_suite(folder, environment=CPU, **changes):
    """Returns a suite with one minute left whose files are in a directory."""
    out, work = folder / "out", folder / "work"
    for path in (out, work):
        path.mkdir(exist_ok=True)
    (out / "environment.json").write_text(json.dumps(environment))
    deadline = time.monotonic() + 60
    settings = dict(data_dir=folder, deadline=deadline, small=False, seeds=1, failed=[])
    return Suite(out, work, **(settings | changes))


def write_records(suite, name, *records):
    (suite.out / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))


def test_cases_with_a_record_are_not_measured_again(tmp_path, calls):
    suite = make_suite(tmp_path)
    done = [dict(model="resnet18 reference", batch_size=128, dtype="bfloat16"),
            dict(model="cnn3", batch_size=32, dtype="float32")]  # fmt: skip
    write_records(suite, "throughput", *done)
    stages.throughput(suite)
    ((module, arguments),) = calls
    assert module == "benchmarks.throughput"
    assert {"cnn2", "resnet18", "resnet34:512:bfloat16"} <= set(arguments)
    assert not {"cnn3", "resnet18 reference:128:bfloat16"} & set(arguments)


def test_no_benchmark_runs_if_no_record_is_missing(tmp_path, calls):
    suite = make_suite(tmp_path, small=True)
    write_records(suite, "versus_torch", dict(model="cnn_small", batch_size=8, dtype="float32"))
    stages.versus_torch(suite)
    assert calls == []


@pytest.mark.parametrize(("environment", "is_limited"), [(GPU, True), (CPU, False)])
def test_the_zoo_skips_autotuning_on_gpus(tmp_path, calls, environment, is_limited):
    pytest.importorskip("torch")
    suite = make_suite(tmp_path, environment)
    stages.versus_torch(suite)
    stages.versus_torch_zoo(suite)
    (_, references), (_, zoo) = calls
    assert "resnet18:512:bfloat16" in references and "--settings" not in references
    assert "cnn13" in zoo and ("--settings" in zoo) == is_limited


def test_the_zoo_fails_without_pytorch(tmp_path, calls, capsys, monkeypatch):
    monkeypatch.setattr(stages.util, "find_spec", lambda name: None)
    suite = make_suite(tmp_path)
    stages.versus_torch_zoo(suite)
    assert suite.failed == ["benchmarks.versus_torch"] and not calls
    assert "PyTorch is not installed: make reference" in capsys.readouterr().out


def test_a_case_that_crashes_the_process_is_skipped(tmp_path, monkeypatch):
    suite, attempts = make_suite(tmp_path), []

    def call(suite, module, *arguments):
        attempts.append([case for case in arguments if case in ("cnn2", "cnn3", "cnn4")])
        if "cnn3" in arguments:  # the process crashes in this case
            done = [dict(model="cnn2", batch_size=64, dtype="float32")]
        else:
            done = [dict(model="cnn4", batch_size=64, dtype="float32")]
        write_records(suite, "throughput", *suite.records("throughput"), *done)
        return -6 if "cnn3" in arguments else 0

    monkeypatch.setattr(Suite, "call", call)
    stages._measure_missing(suite, "throughput", ("cnn2", "cnn3", "cnn4"), ())
    assert attempts == [["cnn2", "cnn3", "cnn4"], ["cnn4"]]


def test_a_truncated_line_is_ignored(tmp_path):
    suite = make_suite(tmp_path)
    (suite.out / "throughput.jsonl").write_text('{"model": "a"}\n{"model": "b')
    assert suite.records("throughput") == [{"model": "a"}]


def test_experiments_are_trained_in_order_of_increasing_cost(tmp_path, calls):
    suite = make_suite(tmp_path, seeds=3)
    write_records(
        suite,
        "throughput",
        *(dict(model=model, config="", batch_size=1, dtype="float32", images_per_second=speed)
          for model, speed in (("cnn_small", 1e6), ("cnn2", 1e4), ("cnn4", 1.0))),
    )  # fmt: skip
    stages.accuracy(suite)
    ((module, arguments),) = calls
    assert module == "benchmarks.accuracy" and set(PUBLISHED) <= set(arguments)
    assert arguments[arguments.index("--seeds") + 1] == "3"
    assert 0 < float(arguments[arguments.index("--minutes") + 1]) < 1
    trained = arguments[: len(PUBLISHED)]
    assert trained[0] == "cifar10/cnn_small" and "coarse/cnn4" in trained[-3:]


def test_only_failed_calls_are_reported_not_those_out_of_time(tmp_path):
    suite = make_suite(tmp_path)
    suite.call("benchmarks.throughput", "no_such_network")
    assert suite.failed == ["benchmarks.throughput"]
    suite = make_suite(tmp_path, deadline=0)  # the call gets one second
    suite.call("benchmarks.throughput", "cnn2")
    assert suite.failed == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--minutes", "-1"], "--minutes must be above 0, got -1.0"),
        (["--minutes", "nan"], "--minutes must be above 0, got nan"),
        (["--seeds", "0"], "--seeds must be from 1 to 1,000, got 0"),
        (["--work", "/dev/null/x"], "/dev/null is not a writable directory"),
    ],
)
def test_invalid_flags_are_rejected(tmp_path, calls, flags, message, capsys):
    assert gpu_suite.main(["", str(tmp_path / "out"), *flags]) == 1
    assert message in capsys.readouterr().err and not calls


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"small": 3}', "\0"])
def test_a_damaged_environment_is_reported(tmp_path, calls, text, capsys):
    (tmp_path / "environment.json").write_text(text)
    for flags in ([], ["--collect"]):
        assert gpu_suite.main(["", str(tmp_path), *flags]) == 1
        assert "environment.json" in capsys.readouterr().err
    assert not calls


def test_out_must_be_a_folder_and_its_logs_sound(tmp_path, calls, capsys):
    (tmp_path / "file").touch()
    assert gpu_suite.main(["", str(tmp_path / "file")]) == 1
    assert "OUT" in capsys.readouterr().err
    (tmp_path / "accuracy.tar.gz").write_bytes(b"damaged")
    assert gpu_suite.main(["", str(tmp_path), "--work", str(tmp_path / "work")]) == 1
    assert "accuracy.tar.gz is damaged" in capsys.readouterr().err
    assert not calls


def test_images_are_unpacked_once(tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "unpack.py").write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1]) / sys.argv[2]\n"
        "folder.mkdir()\n"  # fails if it is called twice
    )
    for name in ("cifar100", "cifar10"):  # one may be added later
        (packed / name).mkdir()
        target = stages.find_data(packed, tmp_path)
        assert (target / name).is_dir()
    assert stages.find_data(tmp_path / "tfds", tmp_path) == tmp_path / "tfds"
