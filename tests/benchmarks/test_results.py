import json
import math

import numpy as np
import pytest
import tiny
from scipy import stats

from benchmarks import results


def rows_of(folder, experiment):
    return [row for row in results.rows(folder) if row.experiment == experiment]


def test_runs_with_different_seeds_share_a_row(tmp_path):
    for seed, accuracy in ((0, 0.50), (1, 0.52)):
        tiny.write_log(tmp_path / f"seed{seed}", "coarse/cnn2_batch64", accuracy, seed=seed)
    (row,) = rows_of(tmp_path, "coarse/cnn2_batch64")
    assert row.accuracies == [0.50, 0.52] and row.changed == () and row.reason == ""
    assert row.difference == pytest.approx(0.51 - 0.496)
    assert row.num_runs == "2 runs"
    assert results.percent(row.accuracies) == "51.00% ± 1.41 (38.29 to 63.71)"
    assert results.points(row) == "+1.40 (-11.31 to +14.11)"


def test_a_single_run_has_no_interval(tmp_path):
    tiny.write_log(tmp_path / "a", "coarse/cnn2_batch64", 0.51)
    (row,) = rows_of(tmp_path, "coarse/cnn2_batch64")
    texts = (results.percent(row.accuracies), row.num_runs, results.points(row))
    assert texts == ("51.00%", "1 run", "+1.40")


def test_a_repeated_seed_is_another_run_unless_it_is_an_exact_repetition(tmp_path):
    same = {"git_commit": "a", "versions": {"jax": "1"}, "device": {"kind": "Abacus", "count": 2}}
    changes = [
        {}, {}, {"git_commit": "b"}, {"versions": {"jax": "2"}},
        {"device": same["device"] | {"cores": 4}}, {"test_loss": 1.25},
    ]  # fmt: skip
    for i, change in enumerate(changes):
        tiny.write_log(tmp_path / f"{i}", "coarse/cnn4", 0.5, seed=0)
        path = tmp_path / f"{i}/summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | same | change))
    (row,) = rows_of(tmp_path, "coarse/cnn4")
    # On another commit or device, the same loss shows that rounding did not differ.
    assert [log.folder.name for log in row.logs] == ["0", "5"]
    assert row.num_runs == "2 runs (1 seed)"


def test_the_interval_stays_within_0_to_1():
    assert results.percent([0.0, 0.1]) == "5.00% ± 7.07 (0.00 to 68.53)"
    assert results.percent([0.9, 1.0]) == "95.00% ± 7.07 (31.47 to 100.00)"


@pytest.mark.parametrize("count", [2, 5, 100])
def test_the_interval_uses_students_t(count):
    values = [math.sin(i) for i in range(count)]
    _, high = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
    exact = high - np.mean(values)
    assert results.margin_of_error(values) == pytest.approx(exact, rel=1e-9)


def test_runs_with_different_settings_or_epochs_have_separate_rows(tmp_path):
    tiny.write_log(tmp_path / "a", "coarse/cnn2_batch64", 0.5)
    tiny.write_log(tmp_path / "b", "coarse/cnn2_batch64", 0.4, optim__learning_rate=2e-3)
    tiny.write_log(tmp_path / "c", "coarse/cnn2_batch64", 0.3, num_epochs=5)
    tiny.write_log(tmp_path / "d", "coarse/cnn2_batch64", 0.2, num_epochs=40)
    tiny.write_log(tmp_path / "e", "coarse/cnn2_batch64", 0.1, dtype="bfloat16")
    by_accuracy = {row.accuracies[0]: row for row in rows_of(tmp_path, "coarse/cnn2_batch64")}
    assert by_accuracy[0.5].changed == () and by_accuracy[0.5].difference == pytest.approx(0.004)
    assert by_accuracy[0.4].changed == ("optim.learning_rate=0.002",)
    assert (by_accuracy[0.4].reason, by_accuracy[0.4].difference) == ("different settings", None)
    assert by_accuracy[0.3].changed == () and by_accuracy[0.3].reason == "shortened"
    assert by_accuracy[0.2].changed == () and by_accuracy[0.2].reason == "extended"
    assert (
        by_accuracy[0.1].changed == ("dtype=bfloat16",)
        and by_accuracy[0.1].reason == "different settings"
    )


def test_a_field_missing_from_an_old_log_has_its_default(tmp_path):
    tiny.write_log(tmp_path / "new", "coarse/cnn2_batch64", 0.5)
    tiny.write_log(tmp_path / "old", "coarse/cnn2_batch64", 0.5, seed=1)
    settings = json.loads((tmp_path / "old/config.json").read_text())
    del settings["data"]["limit"]
    (tmp_path / "old/config.json").write_text(json.dumps(settings))
    (row,) = rows_of(tmp_path, "coarse/cnn2_batch64")
    assert len(row.logs) == 2


def test_a_dtype_that_the_config_leaves_open_is_not_a_change(tmp_path):
    tiny.write_log(tmp_path / "a", "resnet18", 0.7, dtype="bfloat16")
    assert rows_of(tmp_path, "resnet18")[0].changed == ()


def test_runs_on_different_numbers_of_cores_share_a_row(tmp_path):
    tiny.write_log(tmp_path / "a", "coarse/cnn4", 0.5)
    tiny.write_log(tmp_path / "b", "coarse/cnn4", 0.5, seed=1)
    summary = json.loads((tmp_path / "b/summary.json").read_text())
    summary["device"]["cores"] = 1
    (tmp_path / "b/summary.json").write_text(json.dumps(summary))
    assert len(rows_of(tmp_path, "coarse/cnn4")) == 1


@pytest.mark.parametrize(
    ("experiment", "reason"),
    [
        ("coarse/cnn4", ""),
        ("coarse/cnn2_batch16", "no number published"),
    ],
)
def test_a_row_states_why_it_is_not_comparable(tmp_path, experiment, reason):
    assert rows_of(tmp_path, experiment)[0].reason == "not run yet"
    tiny.write_log(tmp_path / "x", experiment, 0.5)
    (row,) = rows_of(tmp_path, experiment)
    assert row.reason == reason and (row.difference is None) == bool(reason)
