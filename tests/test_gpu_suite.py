import json

import pytest
import tiny

from benchmarks import gpu_suite
from benchmarks.published import PUBLISHED

CPU = {"device": {"platform": "cpu"}, "small": False}
GPU = {"device": {"platform": "gpu"}, "small": False}


@pytest.fixture
def calls(monkeypatch):
    """The calls of benchmarks, (module, arguments), none of which is made."""
    made = []
    monkeypatch.setattr(
        gpu_suite.Run, "call", lambda run, module, *arguments: made.append((module, arguments))
    )
    return made


def make_run(folder, environment=CPU, **changes):
    """Returns a run of a minute that keeps its files in a folder."""
    out, work = folder / "out", folder / "work"
    for path in (out, work):
        path.mkdir(exist_ok=True)
    (out / "environment.json").write_text(json.dumps(environment))
    deadline = gpu_suite.time.monotonic() + 60
    settings = dict(data_dir=folder, deadline=deadline, small=False, seeds=1, failed=[])
    return gpu_suite.Run(out, work, **(settings | changes))


def write_records(run, name, *records):
    (run.out / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))


def test_what_has_a_record_is_not_measured_again(tmp_path, calls):
    run = make_run(tmp_path)
    done = [dict(model="resnet18", batch_size=128, dtype="bfloat16"),
            dict(model="cnn3", batch_size=32, dtype="float32")]  # fmt: skip
    write_records(run, "throughput", *done)
    gpu_suite.throughput(run)
    ((module, arguments),) = calls
    assert module == "benchmarks.throughput"
    assert {"cnn2", "resnet18", "resnet18:512:bfloat16"} <= set(arguments)
    assert not {"cnn3", "resnet18:128:bfloat16"} & set(arguments)


def test_nothing_is_called_where_nothing_is_missing(tmp_path, calls):
    run = make_run(tmp_path, small=True)
    write_records(run, "versus_torch", dict(model="cnn_small", batch_size=8, dtype="float32"))
    gpu_suite.versus_torch(run)
    assert calls == []


@pytest.mark.parametrize(("environment", "spared"), [(GPU, True), (CPU, False)])
def test_on_gpus_the_zoo_is_spared_autotuning(tmp_path, calls, environment, spared):
    gpu_suite.versus_torch(make_run(tmp_path, environment))
    (_, references), (_, zoo) = calls
    assert "resnet18:512:bfloat16" in references and "--settings" not in references
    assert "cnn13" in zoo and ("--settings" in zoo) == spared


def test_all_experiments_are_trained_the_cheapest_first(tmp_path, calls):
    run = make_run(tmp_path, seeds=3)
    write_records(
        run,
        "throughput",
        *(dict(model=model, batch_size=1, dtype="float32", images_per_second=speed)
          for model, speed in (("cnn_small", 1e6), ("cnn2", 1e4), ("cnn4", 1.0))),
    )  # fmt: skip
    gpu_suite.accuracy(run)
    ((module, arguments),) = calls
    assert module == "benchmarks.accuracy" and set(PUBLISHED) <= set(arguments)
    assert arguments[arguments.index("--seeds") + 1] == "3"
    assert 0 < float(arguments[arguments.index("--minutes") + 1]) < 1
    trained = arguments[: len(PUBLISHED)]
    assert trained[0] == "cifar10/cnn_small" and "coarse/cnn4" in trained[-3:]


def test_a_call_that_fails_is_remembered_and_one_out_of_time_is_not(tmp_path):
    run = make_run(tmp_path)
    run.call("benchmarks.throughput", "no_such_network")
    assert run.failed == ["benchmarks.throughput"]
    run = make_run(tmp_path, deadline=0)  # a second is what it gets
    run.call("benchmarks.throughput", "cnn2")
    assert run.failed == []


def test_logs_are_packed_and_unpacked_without_writing_over_any(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source / "a" / "seed0", target / "a" / "seed0"):
        folder.mkdir(parents=True)
    (source / "a" / "seed0" / "summary.json").write_text("new")
    (source / "a" / "seed0" / "config.json").write_text("new")
    (target / "a" / "seed0" / "summary.json").write_text("old")
    gpu_suite.pack(source, tmp_path / "logs.tar.gz")
    assert gpu_suite.unpack(tmp_path / "logs.tar.gz", target) == 1
    assert (target / "a" / "seed0" / "summary.json").read_text() == "old"
    assert (target / "a" / "seed0" / "config.json").read_text() == "new"


def test_measurements_are_collected_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_suite, "RESULTS", tmp_path / "results")
    run = make_run(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "throughput.jsonl").write_text('{"model": "old"}\n')
    write_records(run, "throughput", {"model": "a"}, {"model": "b"})
    tiny.write_log(run.work / "accuracy" / "assignment/cnn3/seed0", "assignment/cnn3", 0.5)
    gpu_suite.pack(run.work / "accuracy", run.out / "accuracy.tar.gz")
    for _ in range(2):
        assert gpu_suite.main(["", str(run.out), "--collect"]) == 0
    lines = (tmp_path / "results" / "throughput.jsonl").read_text().splitlines()
    assert [json.loads(line)["model"] for line in lines] == ["old", "a", "b"]
    log = tmp_path / "results" / "accuracy" / "assignment/cnn3/seed0"
    assert (log / "summary.json").exists() and (log / "config.json").exists()
    printed = capsys.readouterr().out
    assert "throughput: 2 new records" in printed and "throughput: 0 new records" in printed


def test_a_trial_is_no_result(tmp_path, capsys):
    run = make_run(tmp_path, CPU | {"small": True})
    assert gpu_suite.main(["", str(run.out), "--collect"]) == 1
    assert "which is no result" in capsys.readouterr().err
    assert gpu_suite.main(["", str(run.out)]) == 1
    assert "was begun with --small" in capsys.readouterr().err
    assert gpu_suite.main(["", str(tmp_path / "none"), "--collect"]) == 1
    assert "no measurements" in capsys.readouterr().err


def test_packed_images_are_unpacked_once(tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "unpack.py").write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "folder.mkdir()\n"
        "(folder / 'images').write_text('here')\n"
    )
    for _ in range(2):  # a second call would fail: the folder is there
        target = gpu_suite.find_data(packed, tmp_path)
    assert (target / "images").read_text() == "here"
    assert gpu_suite.find_data(tmp_path / "tfds", tmp_path) == tmp_path / "tfds"
