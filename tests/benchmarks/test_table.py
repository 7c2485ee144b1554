import json
import re

import pytest
import tiny

from benchmarks import harness
from benchmarks.published import PUBLISHED
from benchmarks.table import __main__ as table
from benchmarks.table import accuracy, headline, markdown, speed, speedrun


@pytest.mark.parametrize("name", table.FILES)
def test_tables_equal_the_logs(name):
    text = (tiny.ROOT / name).read_text()
    assert table.rewritten(text, name) == text, "run `python -m benchmarks.table`"


@pytest.fixture
def write_log(tmp_path, monkeypatch):
    """Returns a function that writes a log of seed 0, with some fields of its summary changed."""
    monkeypatch.setattr(accuracy, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "benchmarks/results")

    def write(experiment, test_accuracy, num_epochs=None, name="seed0", **summary_fields):
        folder = tmp_path / "benchmarks/results/accuracy" / experiment / name
        options = {} if num_epochs is None else {"num_epochs": num_epochs}
        tiny.write_log(folder, experiment, test_accuracy, **options)
        path = folder / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | summary_fields))

    return write


def test_a_shortened_run_is_listed_with_the_shortened_runs(write_log):
    write_log("coarse/cnn2_batch64", 0.5, num_epochs=5)
    (row,) = accuracy.shortened().splitlines()[2:]
    for cell in ("49.6%", "50.00%", "shortened", "5 of 20", "test", "7.25 ms", "2,119,252"):
        assert f"| {cell} |" in row
    assert "| 2 x Abacus |" in row
    assert "[coarse/cnn2_batch64](configs/coarse/cnn2_batch64.py)" in row
    assert "[0](benchmarks/results/accuracy/coarse/cnn2_batch64/seed0)" in row
    assert not accuracy.complete().splitlines()[2:]
    assert not accuracy.overview().splitlines()[2:]
    assert len(accuracy.not_run().splitlines()[2:]) == len(PUBLISHED)


def test_a_complete_run_is_listed_with_the_complete_runs(write_log):
    write_log("coarse/cnn4_fine", 0.4)
    for make in (accuracy.complete, accuracy.overview):
        (row,) = make().splitlines()[2:]
        assert "| 38.5% | 40.00% | 1 run | +1.50 |" in row
    assert not accuracy.shortened().splitlines()[2:]
    rows = accuracy.not_run().splitlines()[2:]
    assert len(rows) == len(PUBLISHED) - 1
    (row,) = (row for row in rows if "[coarse/cnn4]" in row)
    assert row.endswith("| 55.2% | 100 | 2,165,428 |")


def test_the_overview_has_the_device_with_the_most_runs(write_log):
    other = {"kind": "Other", "count": 1}
    write_log("coarse/cnn4", 0.5)
    for i in range(2):
        write_log("coarse/cnn4", 0.6, name=f"other{i}", device=other, test_loss=1.0 + i)
    assert len(accuracy.complete().splitlines()[2:]) == 2
    (row,) = accuracy.overview().splitlines()[2:]
    assert "| 60.00% ± 0.00" in row and "| Other |" in row


def test_early_stopping_is_shown_in_the_epochs(write_log):
    write_log("coarse/cnn4", 0.55, epochs=31)
    assert "| 100, stopped after 31 | " in accuracy.complete()


def test_step_times_from_a_shared_gpu_are_marked(write_log):
    kind = "NVIDIA H100 80GB HBM3"
    write_log("coarse/cnn4", 0.55, git_commit="fa6179f", device={"kind": kind, "count": 1})
    assert "| 7.25 ms (shared GPU) |" in accuracy.complete()
    write_log("coarse/cnn4_fine", 0.4, git_commit="cb05e25", device={"kind": kind, "count": 1})
    assert "| 7.25 ms |" in accuracy.complete()


@pytest.mark.parametrize("platform, is_marked", [("gpu", True), ("cpu", False)])
def test_step_times_of_several_jobs_on_a_gpu_are_marked(platform, is_marked, write_log):
    device = {"platform": platform, "kind": "Abacus", "count": 1}
    write_log("coarse/cnn4", 0.55, device=device, runs_on_device=4)
    assert ("| 7.25 ms (shared GPU) |" in accuracy.complete()) == is_marked


@pytest.mark.parametrize(
    "loads, shown",
    [
        ((0.0, 0.0), "3.00 s ± 1.41 (0.00 to 15.71) (T1)"),
        ((0.0, 0.5), "2.00 s (T1, 1 of 2 runs)"),
        ((0.5, 0.5), "machine was busy"),
    ],
)
def test_times_of_speedruns_are_from_an_idle_machine(loads, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    common = {
        "recipe": "airbench94", "clock": "T1", "framework": "jax", "dtype": "bfloat16",
        "num_images": 50_000, "changed": [], "accuracy": 0.94, "single_view_accuracy": 0.93,
        "device": {"kind": "Abacus", "count": 1},
    }  # fmt: skip
    times = zip(loads, (2.0, 4.0), strict=True)
    common |= {"train_loss": 1.0}
    runs = [
        common | {"used_elsewhere": load, "seconds": seconds, "seed": seed}
        for seed, (load, seconds) in enumerate(times)
    ]
    (tmp_path / "speedrun.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    (row,) = (row for row in speedrun.complete().splitlines() if "Abacus" in row)
    assert f"| {shown} | Abacus |" in row and "| 2 |" in row


def test_pipes_in_cells_are_escaped():
    assert markdown.table(("a",), [("x|y",)]).splitlines()[-1] == r"| x\|y |"


def test_missing_markers_are_reported():
    with pytest.raises(ValueError, match="<!-- table:headline -->"):
        table.rewritten("# nothing", "README.md")


def test_links_in_docs_lead_out_of_their_folder(monkeypatch):
    monkeypatch.setitem(table.FILES, "docs/a.md", {"t": lambda: "[x](configs/x.py)"})
    text = table.rewritten("<!-- table:t -->\n<!-- end:t -->", "docs/a.md")
    assert text == "<!-- table:t -->\n[x](../configs/x.py)\n<!-- end:t -->"


def test_speed_tables_show_the_newest_record_of_each_idle_device(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    limit = harness.MAX_BACKGROUND_LOAD  # above it, a measurement ends with a warning
    records = [
        {"augmentation": "flip", "batch_size": 8, "ms": ms, "share_of_step": 0.5,
         "used_elsewhere": load, "device": {"kind": kind, "count": 1}}
        for ms, load, kind in (
            (1.0, 0.0, "A"), (2.0, None, "A"), (3.0, 0.2, "A"), (4.0, limit, "B"),
            (5.0, limit + 0.01, "B"),
        )
    ]  # fmt: skip
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "augmentation.jsonl").write_text(lines)
    rows = speed.augmentation().splitlines()[2:]
    assert [row.split(" | ")[2::2] for row in rows] == [["2.00 ms", "A |"], ["4.00 ms", "B |"]]


def test_contenders_of_an_epoch_are_sorted_by_time(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    seconds = {"torch": 30.0, "cifar_jax": 20.0, "keras_jax": 50.0, "keras_torch": 60.0}
    seconds |= {"torch_workers": 40.0, "torch_by_batch": 25.0}
    record = {
        "config": "assignment/cnn3", "seconds": seconds, "images": 1000, "used_elsewhere": 0.0,
        "turns": {name: [{"images": 1000, "seconds": s}] for name, s in seconds.items()},
        "device": {"kind": "Abacus", "count": 1},
    }  # fmt: skip
    partial = record | {"seconds": {"torch": 1.0, "cifar_jax": 2.0}}
    (tmp_path / "epoch.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(partial) + "\n")
    assert speed.epoch().splitlines()[2:5] == [
        "| cifar_jax | 20.0 s | 50 | 1.00 | Abacus |",
        "| PyTorch augmenting whole batches | 25.0 s | 40 | 1.25 | Abacus |",
        "| PyTorch with a DataLoader | 30.0 s | 33 | 1.50 | Abacus |",
    ]


@pytest.mark.parametrize(
    "platform, settings, default_ms, is_shown",
    [
        ("cpu", ["torch", "torch_fused"], 3.0, True),
        ("cpu", ["torch", "torch_fused"], None, True),  # as the oldest records
        ("cpu", ["torch"], 3.0, False),
        ("cpu", ["torch_fused", "torch_compiled"], None, False),
        ("gpu", ["torch_channels_last_fused", "torch_compiled"], None, True),
        ("gpu", ["torch_autotuned"], None, False),
    ],
)
def test_a_comparison_with_selected_settings_is_not_shown(
    platform, settings, default_ms, is_shown, tmp_path, monkeypatch
):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    ratio = {"median": 0.5, "min": 0.4, "max": 0.6}
    record = {
        "model": "cnn3", "batch_size": 32, "dtype": "float32", "jax_ms": 1.0, "torch_ms": 2.0,
        "ratio": ratio, "ms_of_settings": dict.fromkeys(settings, 2.0), "default_ms": default_ms,
        "ratio_to_default": ratio, "compile_seconds": 1.0, "used_elsewhere": 0.0,
        "device": {"platform": platform, "kind": "Abacus", "count": 1},
    }  # fmt: skip
    (tmp_path / "versus_torch.jsonl").write_text(json.dumps(record) + "\n")
    assert bool(speed.versus_torch().splitlines()[2:]) == is_shown


def epoch_record(cores=2, ratio=2.0, **changes):
    """A record of an epoch in which PyTorch is the fastest other contender."""
    seconds = {name: 100.0 for name in speed.CONTENDER_NAMES} | {
        "cifar_jax": 20.0,
        "torch": ratio * 20,
    }
    return {
        "seconds": seconds, "fastest_other": "torch", "rounds": 3, "used_elsewhere": 0.0,
        "times_as_fast": {"median": ratio, "min": ratio / 2, "max": ratio * 2},
        "device": {"kind": "Abacus", "count": 1, "cores": cores},
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("records", "line"),
    [
        (
            [epoch_record(ratio=0.8)],
            "0.80 times as fast as PyTorch with a DataLoader, the fastest ",
        ),
        (
            [epoch_record(8), epoch_record(1, 3.0)],
            "3.00 times as fast as PyTorch .* on 1 CPU core ",
        ),
        # A record without some of the contenders does not show which one is the fastest.
        (
            [epoch_record(4), epoch_record(seconds={"cifar_jax": 1.0, "torch": 9.0})],
            r"2.00 times as fast as PyTorch .* on 4 CPU cores \(1.00 to 4.00 in 3 rounds",
        ),
    ],
)
def test_the_headline_takes_the_latest_epoch_of_all_contenders(
    tmp_path, monkeypatch, records, line
):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "epoch.jsonl").write_text(lines)
    assert re.match(line, headline._epoch().replace("**", ""))


def test_the_headline_prefers_the_benchmark_of_throughput(tmp_path, monkeypatch):
    old = headline._throughput()
    assert f"({speed.GRAPHS})" in old and "without CutMix on one" in old
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    record = {
        "model": "resnet18 reference", "batch_size": 512, "dtype": "bfloat16",
        "images_per_second": 12_345.0, "used_elsewhere": 0.0,
        "device": {"platform": "gpu", "kind": "Abacus", "count": 1},
    }  # fmt: skip
    on_cpu = record | {"device": {"platform": "cpu", "kind": "Abacus", "count": 1}}
    on_eight = record | {"device": record["device"] | {"count": 8}, "images_per_second": 9e9}
    others = record | {"batch_size": 128}, on_cpu, on_eight
    lines = [json.dumps(r) + "\n" for r in (record, *others)]
    (tmp_path / "throughput.jsonl").write_text("".join(lines))
    line = headline._throughput()
    assert "**12,345 images/s** training ResNet-18 in bfloat16 on one Abacus" in line
    assert "benchmarks/results/throughput.jsonl" in line


def test_a_headline_without_a_record_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match=r"no record of benchmarks\.epoch with all contenders"):
        headline._epoch()
    path = tmp_path / speed.GRAPHS
    path.parent.mkdir(parents=True)
    device = {"kind": "NVIDIA H100 80GB HBM3"}
    record = {"tag": "on", "case": "resnet18:512:bfloat16", "device": device}
    path.write_text(f"{json.dumps(record)}\n")
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="no record of resnet18 reference:512:bfloat16"):
        headline._throughput()


@pytest.mark.parametrize(
    ("platform", "times", "expected"),
    [
        ("gpu", {"torch_channels_last_fused": 2.0, "torch_compiled": 1.0}, True),
        ("gpu", {"torch_channels_last_fused": 2.0, "torch_compiled": None}, False),
        ("cpu", {"torch": 2.0, "torch_fused": 1.0}, True),
        ("cpu", {"torch": None, "torch_fused": 1.0}, False),
        ("cpu", {"torch": 2.0}, False),
    ],
)
def test_a_full_comparison_has_the_settings_that_readers_expect(platform, times, expected):
    record = {"device": {"platform": platform}, "ms_of_settings": times}
    assert speed.is_full_comparison(record) == expected


def test_speedruns_are_grouped_by_what_they_have_in_common(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    first = {
        "recipe": "airbench94", "clock": "T1", "framework": "jax", "dtype": "bfloat16",
        "num_images": 50_000, "changed": [], "seed": 0, "seconds": 1.25, "accuracy": 0.94,
        "single_view_accuracy": 0.93, "train_loss": 1.0, "used_elsewhere": 0.0,
        "device": {"kind": "Abacus", "count": 1},
    }  # fmt: skip
    thin = {"changed": ["num_epochs=2"], "accuracy": 0.5, "train_loss": 1.5}
    second = first | {"seed": 1, "seconds": 1.75, "accuracy": 0.95}
    trials = first | thin, first | thin | {"train_loss": 1.25}
    repeated = first | {"seconds": 9.0}  # the last run of a seed with the same result counts
    lines = [repeated, first, second, first | {"framework": "torch"}, *trials]
    (tmp_path / "speedrun.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    one, two, *missing = speedrun.complete().splitlines()[2:]
    assert "| cifar_jax, bfloat16 | 2 | 94.50% ± 0.71 (88.15 to 100.00) | 93.00% ± 0.00" in one
    assert "| 1.50 s ± 0.35 (0.00 to 4.68) (T1) | Abacus |" in one
    assert "| PyTorch, bfloat16 | 1 | 94.00% | 93.00% | 1.25 s (T1) | Abacus |" in two
    assert len(missing) == 3 and all("no complete run yet" in row for row in missing)
    (trial,) = speedrun.trials().splitlines()[2:]
    assert "| num_epochs=2 | cifar_jax, bfloat16 | 2 | 50.00% ± 0.00" in trial
    assert trial.endswith("| 1.250 to 1.500 |")
