import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from benchmarks import harness
from benchmarks.gpu_suite import __main__ as gpu_suite
from benchmarks.gpu_suite import stages
from benchmarks.gpu_suite.collect import unpack
from benchmarks.gpu_suite.suite import Suite
from benchmarks.published import PUBLISHED
from benchmarks.results import load_config
from cifar_jax.errors import UserError
from cifar_jax.runtime.signals import Preempted

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
    assert {"cnn2", "resnet18"} <= set(arguments) and "cnn3" not in arguments
    assert arguments.index("vgg16") < arguments.index("airbench")  # that of a write-up is first
    for stage, cases in (
        (stages.headline, ["resnet18 reference:512:bfloat16"]),
        (stages.resnets, ["resnet18 reference:512:bfloat16", "resnet34:512:bfloat16"]),
    ):
        calls.clear()
        stage(suite)
        module, arguments = calls[0]
        assert module == "benchmarks.throughput"
        assert [argument for argument in arguments if ":" in argument] == cases


@pytest.mark.parametrize("environment, dtype", [(GPU, "bfloat16"), (CPU, "float32")])
def test_a_dtype_of_auto_is_that_of_the_device(tmp_path, calls, environment, dtype):
    suite = make_suite(tmp_path, environment)
    done = [dict(model="airbench", batch_size=2000, dtype=dtype)]
    assert load_config("speedrun/airbench94").dtype == "auto"
    write_records(suite, "throughput", *done)
    stages.throughput(suite)
    ((_, arguments),) = calls
    assert "airbench" not in arguments and "cct_7_3x1" in arguments


def test_no_benchmark_runs_if_no_record_is_missing(tmp_path, calls):
    suite = make_suite(tmp_path, small=True)
    for name in ("throughput", "versus_torch"):
        write_records(suite, name, dict(model="cnn_small", batch_size=8, dtype="float32"))
    stages.headline(suite)
    assert calls == []


def test_speedruns_continue_with_the_next_seed(tmp_path, calls):
    suite = make_suite(tmp_path)
    done = [dict(recipe="airbench94", framework="jax")] * 20
    write_records(suite, "speedrun", *done, *[dict(recipe="cifar100_75", framework="jax")] * 50)
    stages.speedrun(suite)  # has enough runs
    assert not calls
    stages.more_speedruns(suite)
    (module, arguments), *others = calls
    assert module == "benchmarks.speedrun" and arguments[0] == "airbench94"
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert (options["--runs"], options["--first_seed"]) == ("30", "20")
    assert [arguments[0] for _, arguments in others] == ["airbench95", "airbench96"]
    # PyTorch's autotuning would not end within the minute that is left.
    assert all("torch" not in arguments for _, arguments in calls)


@pytest.mark.parametrize(("environment", "is_limited"), [(GPU, True), (CPU, False)])
def test_autotuning_runs_only_on_gpus_in_a_stage_of_its_own_with_time_left(
    tmp_path, calls, environment, is_limited
):
    pytest.importorskip("torch")
    suite = make_suite(tmp_path, environment)
    stages.headline(suite)
    stages.versus_torch_zoo(suite)
    _, (_, large), (_, zoo) = calls
    assert "resnet18:512:bfloat16" in large and "cnn13" in zoo
    assert all(("torch_compiled" in flags) == is_limited for flags in (large, zoo))
    assert "torch_autotuned" not in (*large, *zoo)
    calls.clear()
    stages.autotuning(suite)
    assert not calls
    suite = make_suite(tmp_path, environment, deadline=time.monotonic() + 1000)
    stages.autotuning(suite)
    assert [{"torch_compiled", "torch_autotuned"} <= set(flags) for _, flags in calls] == (
        [True] if is_limited else []
    )
    times = {"torch_compiled": 1.0, "torch_autotuned": 1.0}
    done = dict(model="resnet18", batch_size=512, dtype="bfloat16", ms_of_settings=times)
    write_records(suite, "versus_torch", done)
    calls.clear()
    stages.autotuning(suite)
    assert not calls


def test_compiled_programs_are_packed_unless_they_are_too_large(tmp_path, monkeypatch):
    suite = make_suite(tmp_path)
    stages.pack_programs(suite)  # nothing is compiled yet
    (suite.work / "programs").mkdir()
    (suite.work / "programs" / "a").write_bytes(b"program")
    stages.pack_programs(suite)
    unpack(suite.out / "programs.tar.gz", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "a").read_bytes() == b"program"
    monkeypatch.setattr(stages, "MAX_PROGRAM_BYTES", 10)
    stages.pack_programs(suite)
    assert not (suite.out / "programs.tar.gz").exists()


def test_the_probe_runs_once(tmp_path, monkeypatch):
    suite = make_suite(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho '{\"is_equal\": true}'\n")
    (tmp_path / "python").chmod(0o755)
    stages.probe(suite)
    assert suite.records("gpu_graph") == [{"is_equal": True}]
    monkeypatch.setattr(Suite, "call", lambda *_, **__: pytest.fail("it ran again"))
    stages.probe(suite)


def test_the_zoo_fails_without_pytorch(tmp_path, calls, capsys, monkeypatch):
    monkeypatch.setattr(stages.util, "find_spec", lambda name: None)
    suite = make_suite(tmp_path)
    stages.versus_torch_zoo(suite)
    assert suite.failed == ["benchmarks.versus_torch"] and not calls
    assert "PyTorch is not installed; run `make reference`" in capsys.readouterr().out


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


def test_experiments_are_trained_in_order_of_value(tmp_path, calls, monkeypatch):
    suite = make_suite(tmp_path, seeds=3)
    complete = SimpleNamespace(experiment="coarse/cnn2_batch64", is_complete=True)
    shortened = SimpleNamespace(experiment="cifar10/cnn_small", is_complete=False)
    monkeypatch.setattr(stages, "rows", lambda: [complete, shortened])
    write_records(
        suite,
        "throughput",
        *(dict(model=model, config="", batch_size=1, dtype="float32", images_per_second=speed)
          for model, speed in (("cnn_small", 1e6), ("cnn2", 1e4), ("cnn4", 1.0))),
    )  # fmt: skip
    stages.experiments(suite)
    stages.hybrid_short(suite)
    stages.hybrid(suite)
    assert [module for module, _ in calls] == 3 * ["benchmarks.accuracy"]
    short, hybrid, full = (arguments for _, arguments in calls)
    trained = [e for e in short if e in PUBLISHED]
    assert sorted(trained) == sorted(e for e in PUBLISHED if not e.startswith("hybrid/"))
    assert trained[0] == "cifar10/cnn_small"
    assert trained.pop() == "coarse/cnn2_batch64"  # the only one that is complete
    lacking = [PUBLISHED[e].test_accuracy is None for e in trained]
    assert lacking == sorted(lacking) and True in lacking
    assert trained.index("coarse/cnn4") > trained.index("coarse/cnn2_lr1e2")
    assert all(f in full for f in PUBLISHED if f.startswith("hybrid/"))
    assert "hybrid/resnet18" in hybrid and "hybrid/lr_range_test" not in hybrid  # has 25 epochs
    assert hybrid[hybrid.index("--epochs") + 1] == "30" and "--epochs" not in full
    for arguments in (short, hybrid, full):
        assert arguments[arguments.index("--seeds") + 1] == "3" and "--jobs" in arguments
        assert 0 < float(arguments[arguments.index("--minutes") + 1]) < 1


def test_the_short_form_of_a_recipe_is_trained_before_the_long_one(tmp_path, calls):
    assert list(stages.STAGES).index("recipe") < list(stages.STAGES).index("references")
    stages.recipe(make_suite(tmp_path))
    stages.references(make_suite(tmp_path))
    trained = [arguments[0] for _, arguments in calls]
    assert trained == ["resnet18_30epochs", "resnet18", "resnet34"]
    assert all("--epochs" not in arguments for _, arguments in calls)
    lengths = [load_config(name).num_epochs for name in trained]
    assert lengths == [30, 200, 200]


def test_only_failed_calls_are_reported_not_those_out_of_time(tmp_path):
    suite = make_suite(tmp_path)
    suite.call("json.tool", str(tmp_path / "nothing.json"))
    assert suite.failed == ["json.tool"]
    suite = make_suite(tmp_path, deadline=0)  # the call gets one second
    suite.call("http.server", "0")
    assert suite.failed == []


@pytest.mark.usefixtures("default_signals")
def test_a_signal_ends_the_benchmark_that_runs(tmp_path, monkeypatch):
    processes, popen = [], subprocess.Popen

    def start(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return processes[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    saved = []
    with pytest.raises(Preempted) as stopped:
        make_suite(tmp_path).call("http.server", "0", save=lambda: saved.append(1))
    assert stopped.value.exit_code == 128 + signal.SIGTERM and saved == [1]
    assert processes[0].poll() is not None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--minutes", "-1"], "--minutes must be above 0, got -1.0"),
        (["--minutes", "nan"], "--minutes must be above 0, got nan"),
        (["--seeds", "0"], "--seeds must be from 1 to 1,000, got 0"),
        (["--work", "/dev/null/x"], "/dev/null is not a writable directory"),
        (["--data_dir", "/nowhere"], "--data_dir /nowhere is not a folder"),
        (["--data_dir", "/nowhere", "--only", "probe", "speedrun"], "/nowhere is not a folder"),
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
    flags = ["--work", str(tmp_path / "work"), "--data_dir", str(tmp_path)]
    assert gpu_suite.main(["", str(tmp_path), *flags]) == 1
    assert "accuracy.tar.gz is damaged" in capsys.readouterr().err
    assert not calls


def test_what_needs_missing_images_is_skipped(tmp_path, calls, monkeypatch, capsys):
    monkeypatch.setattr(stages.util, "find_spec", lambda name: None)  # cannot prepare them
    monkeypatch.setattr(stages.data, "is_there", lambda name, _: name == "cifar100")
    suite = make_suite(tmp_path)
    stages.speedrun(suite)
    assert [arguments[0] for _, arguments in calls] == ["cifar100_75"]
    calls.clear()
    stages.experiments(suite)
    ((_, arguments),) = calls
    trained = {load_config(e).data.name for e in arguments if e in PUBLISHED}
    assert trained == {"cifar100"} and not suite.failed
    assert f"skipped what needs cifar10, which is not in {tmp_path}" in capsys.readouterr().out


def test_images_that_cannot_be_unpacked_are_reported(tmp_path, calls, capsys):
    (tmp_path / "unpack.py").write_text("raise SystemExit(3)")
    (tmp_path / "cifar100").mkdir()
    suite = make_suite(tmp_path)
    stages.recipe(suite)
    stages.experiments(suite)
    assert "unpack.py failed with exit code 3" in capsys.readouterr().out and not calls
    assert harness.report_failed(suite.failed) == 1
    assert capsys.readouterr().err == "failed (see above): unpack.py\n"


@pytest.mark.parametrize(
    ("starts", "answers", "num_jobs", "said"),
    [
        (True, True, stages.NUM_MPS_JOBS, ["-d", "quit"]),
        (False, True, stages.NUM_MPS_JOBS, ["-d", "get_server_list"]),  # it runs already
        (False, False, stages.NUM_JOBS, ["-d", "get_server_list"]),
    ],
)
def test_runs_share_a_gpu_through_mps_if_it_is_installed(
    tmp_path, monkeypatch, starts, answers, num_jobs, said
):
    calls = []

    def run(command, env=None, input=b"", **_):
        calls.append(input.decode().strip() or command[1])
        assert env is None or "CUDA_VISIBLE_DEVICES" not in env
        return SimpleNamespace(returncode=0 if (starts if env else answers) else 1)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(stages.subprocess, "run", run)
    for program, environment in (("mps", CPU), (None, GPU)):
        monkeypatch.setattr(stages.shutil, "which", lambda _, program=program: program)
        with stages._shared_gpu(make_suite(tmp_path, environment)) as found:
            assert found == stages.NUM_JOBS and not calls
    monkeypatch.setattr(stages.shutil, "which", lambda _: "mps")
    with stages._shared_gpu(make_suite(tmp_path, GPU)) as found:
        assert found == num_jobs
    assert calls == said


def test_measurements_on_another_gpu_are_not_continued(tmp_path, monkeypatch):
    kind = "Abacus MIG 1g"  # a part of an Abacus
    suite = make_suite(tmp_path, {"device": {"platform": "gpu", "kind": kind}, "small": False})
    for names in (["Abacus"], ["Slide rule", "Abacus"], []):
        monkeypatch.setattr(stages, "_gpu_names", lambda names=names: names)
        stages.check_device(suite)
    monkeypatch.setattr(stages, "_gpu_names", lambda: ["Slide rule"])
    with pytest.raises(UserError, match=f"holds measurements on {kind}, but this is Slide rule"):
        stages.check_device(suite)
    assert gpu_suite.main(["", str(suite.out), "--only", "probe"]) == 1
    stages.check_device(make_suite(tmp_path, CPU))


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
