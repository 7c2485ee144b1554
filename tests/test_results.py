import json

import pytest
import tiny

from benchmarks import results
from cifar_jax import config


def write_log(folder, experiment, accuracy, *, seed=0, num_epochs=None, **changes):
    """Writes the log of a run that never was; the keywords are fields of config.optim."""
    cfg = config.load(tiny.ROOT / "configs" / f"{experiment}.py")
    config.choose_model(cfg, cfg.model.name)
    cfg.seed, cfg.num_epochs = seed, num_epochs or cfg.num_epochs
    cfg.optim.update(changes)
    summary = {
        "experiment": experiment, "epochs": cfg.num_epochs, "num_params": 2_119_252, "seed": seed,
        "test_accuracy": accuracy, "selected_on": "test", "step_time_ms": {"median": 7.25},
        "device": {"kind": "Abacus", "count": 2},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.json").write_text(cfg.to_json())


def rows_of(folder, experiment):
    return [row for row in results.rows(folder) if row.experiment == experiment]


def test_runs_that_differ_in_their_seed_share_a_row(tmp_path):
    for seed, accuracy in ((0, 0.50), (1, 0.52)):
        write_log(tmp_path / f"seed{seed}", "coarse/cnn2_batch64", accuracy, seed=seed)
    (row,) = rows_of(tmp_path, "coarse/cnn2_batch64")
    assert row.accuracies == [0.50, 0.52] and row.changed == () and row.reason == ""
    assert row.difference == pytest.approx(0.51 - 0.496)
    assert results.percent(row.accuracies) == "51.00% ± 1.41 (2 seeds)"


def test_runs_of_other_settings_or_length_have_rows_of_their_own(tmp_path):
    write_log(tmp_path / "a", "coarse/cnn2_batch64", 0.5)
    write_log(tmp_path / "b", "coarse/cnn2_batch64", 0.4, learning_rate=2e-3)
    write_log(tmp_path / "c", "coarse/cnn2_batch64", 0.3, num_epochs=5)
    found = {row.accuracies[0]: row for row in rows_of(tmp_path, "coarse/cnn2_batch64")}
    assert found[0.5].changed == () and found[0.5].difference == pytest.approx(0.004)
    assert found[0.4].changed == ("optim.learning_rate=0.002",)
    assert (found[0.4].reason, found[0.4].difference) == ("other settings", None)
    assert found[0.3].changed == () and found[0.3].reason == "shortened"


def test_a_log_older_than_a_field_ran_with_its_default(tmp_path):
    write_log(tmp_path / "new", "coarse/cnn2_batch64", 0.5)
    write_log(tmp_path / "old", "coarse/cnn2_batch64", 0.5, seed=1)
    settings = json.loads((tmp_path / "old/config.json").read_text())
    del settings["data"]["limit"]
    (tmp_path / "old/config.json").write_text(json.dumps(settings))
    (row,) = rows_of(tmp_path, "coarse/cnn2_batch64")
    assert len(row.logs) == 2


@pytest.mark.parametrize(
    ("experiment", "reason"),
    [
        ("coarse/cnn4", ""),
        ("coarse/cnn2_batch16", "no number published"),
        ("coarse/vgg16_transfer", "the document's begins from ImageNet weights"),
    ],
)
def test_the_reason_why_a_row_cannot_be_compared(tmp_path, experiment, reason):
    assert rows_of(tmp_path, experiment)[0].reason == "not run yet"
    write_log(tmp_path / "x", experiment, 0.5)
    (row,) = rows_of(tmp_path, experiment)
    assert row.reason == reason and (row.difference is None) == bool(reason)
