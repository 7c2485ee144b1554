import argparse
import json
import re
from functools import partial

import jax
import pytest

from benchmarks import harness
from cifar_jax.errors import UserError


@pytest.fixture
def clock(monkeypatch):
    """Returns (make, calls): `make` creates loops that advance a fake clock and log their calls."""
    now, calls = [0.0], []
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])

    def make(name, per_step, per_call=0.0):
        def run(num_steps):
            now[0] += per_call + per_step * num_steps
            calls.append((name, num_steps))

        return run

    return make, calls


def test_calibrate_makes_the_overhead_of_a_call_negligible(clock):
    make, _ = clock
    # A single step would be timed at ten times its true duration.
    num_steps = harness.calibrate(make("a", 0.0001, 0.0009), 0.02)
    assert 0.015 < 0.0001 * num_steps < 0.022
    assert harness.calibrate(make("b", 5.0), 0.02) == 1


def test_interleave_alternates_loops_with_equal_steps(clock):
    make, calls = clock
    loops = {"a": make("a", 0.01), "b": make("b", 0.02)}
    num_rounds, num_steps = harness.plan_rounds(loops["a"], seconds=3.0)
    assert (num_rounds, num_steps) == (15, 20)
    turns = {name: partial(harness.seconds_per_step, run, num_steps) for name, run in loops.items()}
    results = harness.interleave(turns, num_rounds)
    assert results["a"] == pytest.approx([0.01] * 15)
    assert results["b"] == pytest.approx([0.02] * 15)
    assert calls[-4:] == [("a", 20), ("b", 20)] * 2


def test_interleave_reports_every_result():
    reported = []
    turns = {"a": lambda: 1, "b": lambda: 2}
    harness.interleave(turns, 2, lambda *result: reported.append(result))
    assert reported == [(0, "a", 1), (0, "b", 2), (1, "a", 1), (1, "b", 2)]


def test_slow_steps_get_three_rounds_of_one_step(clock):
    make, _ = clock
    assert harness.plan_rounds(make("a", 5.0), seconds=2.0) == (3, 1)


def test_compare_finds_the_fastest_other_contender():
    times = {"ours": [1.0, 2.0, 3.0], "a": [4.0, 5.0, 6.0], "b": [3.0, 3.0, 90.0]}
    assert harness.compare(times, "ours") == ({"ours": 2.0, "a": 5.0, "b": 3.0}, "b")


def test_ratios_are_taken_within_rounds():
    ratios = harness.ratio([3.0, 3.0, 90.0], [1.0, 2.0, 3.0])
    assert ratios == {"median": 3.0, "min": 1.5, "max": 30.0}


def test_a_failed_case_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    cleared = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(1))

    def fail():
        raise RuntimeError("out of memory")

    path = tmp_path / "new" / "records.jsonl"
    cases = [("a", lambda: {"name": "a"}), ("b", fail), ("c", lambda: {"name": "c"})]

    def table(records):
        return "\n".join(["title", *(record["name"] for record in records)])

    assert harness.run_cases(cases, path, table) == 1
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == ["a", "c"]
    printed = capsys.readouterr()
    assert printed.out == "title\na\nc\n"
    assert "out of memory" in printed.err and "failed (see above): b" in printed.err
    assert len(cleared) == 3  # after every case, also one that failed


def test_run_cases_succeeds_if_every_case_does(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # would trace all functions of JAX again
    path = tmp_path / "records.jsonl"
    assert harness.run_cases([("a", dict)], path, lambda records: "title") == 0


def test_errors_are_printed_in_one_line(capsys):
    assert harness.reject(UserError("--rounds must be at least 1")) == 1
    assert capsys.readouterr().err == "error: --rounds must be at least 1\n"


def test_a_busy_machine_is_noted_in_the_record_and_printed(capsys):
    assert harness.background(None) == {"used_elsewhere": None, "is_busy": False}
    assert harness.background(0.05) == {"used_elsewhere": 0.05, "is_busy": False}
    idle, busy = harness.background(0.01), harness.background(0.37)
    assert busy == {"used_elsewhere": 0.37, "is_busy": True}
    harness.warn_if_busy(idle)
    assert capsys.readouterr().err == ""
    harness.warn_if_busy(busy)
    assert "warning: other processes took 37% of the processor's time" in capsys.readouterr().err


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="this needs torch and keras; run `make reference` or `pip"):
        harness.require_packages("torch", "keras")


@pytest.mark.parametrize("text", ["0", "50001", "99999999999", "-1", "", "x", 5000 * "9"])
def test_batch_sizes_are_limited(text):
    assert harness.parse_batch_size("cnn3:32", "32") == 32
    with pytest.raises(UserError, match=r"is not MODEL.* with a BATCH from 1 to 50,000"):
        harness.parse_batch_size(f"cnn3:{text}", text)


def test_parsers_name_their_command():
    parser = harness.make_parser("epoch", "Text.")
    assert isinstance(parser, argparse.ArgumentParser)
    assert parser.prog == "python -m benchmarks.epoch" and not parser.allow_abbrev


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").touch()
    below = tmp_path / "file/a.jsonl"
    for path, reason in (
        (tmp_path, f"{tmp_path}: Is a directory"),
        (below, f"{below.parent}: File exists"),
    ):
        with pytest.raises(UserError, match=re.escape(f"cannot write to {path}: {reason}")):
            harness.open_output(path)


def test_records_go_to_a_file_of_the_command_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    parser = harness.make_parser("epoch", "Text.", out=True)
    assert parser.parse_args([]).out == tmp_path / "epoch.jsonl"
    assert "out" not in harness.make_parser("page", "Text.").parse_args([])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_makes_the_times_meaningless(loss):
    harness.check_loss(1.5)
    with pytest.raises(RuntimeError, match="meaningless"):
        harness.check_loss(loss)
