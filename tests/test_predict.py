import json
import shutil

import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from test_image_file import picture

from cifar_jax import predict
from cifar_jax.report import network
from cifar_jax.report.read import read
from cifar_jax.trained import restore


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Returns the workdir of a run of two epochs on the tiny data set, whose classes are colors."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    tiny.train(tiny.make_config(num_epochs=2), folder)
    return folder


def test_predictions_equal_the_evaluation(workdir):
    with np.load(workdir / "predictions.npz") as file:
        logits = file["logits"]
    found = predict.predict(restore.from_workdir(workdir), tiny.dataset().test.images)
    best = [f"class {i}" for i in logits.argmax(1)]
    assert [predictions[0].name for predictions in found] == best
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    expected = exponentials.max(1) / exponentials.sum(1)
    np.testing.assert_allclose([g[0].probability for g in found], expected, rtol=1e-4)
    assert all(len(predictions) == 5 for predictions in found)


def test_predictions_use_the_preprocessing_of_the_run(tmp_path):
    config = tiny.make_config(
        model=ConfigDict({"name": "vgg16", "layers": (8, "M", "F")}), num_epochs=1,
        augment__resize=20, augment__resize_method="bicubic", augment__normalize="caffe",
    )  # fmt: skip
    tiny.train(config, tmp_path)
    with np.load(tmp_path / "predictions.npz") as file:
        best = [f"class {i}" for i in file["logits"].argmax(1)]
    found = predict.predict(restore.from_workdir(tmp_path), tiny.dataset().test.images)
    assert [predictions[0].name for predictions in found] == best
    # The report traces the network at the same size.
    assert network.of_run(read(tmp_path))[0].shape == (20, 20, 8)


def test_predictions_come_from_the_reported_epoch(tmp_path):
    # The learning rate after the first epoch makes training diverge.
    config = tiny.make_config(
        num_epochs=3, selected_on="test", optim__learning_rate=0.01, optim__schedule="step",
        optim__step_epochs=(1,), optim__step_factor=100.0,
    )  # fmt: skip
    summary = tiny.train(config, tmp_path)
    assert summary["best_epoch"] == 1
    with np.load(tmp_path / "predictions.npz") as file:
        best = [f"class {i}" for i in file["logits"].argmax(1)]
    found = predict.predict(restore.from_workdir(tmp_path), tiny.dataset().test.images)
    assert [predictions[0].name for predictions in found] == best


def test_command_classifies_the_readable_images(tmp_path, workdir, capsys):
    picture("L").save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("not an image")
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.txt")]
    assert predict.main(["--workdir", str(workdir), *files]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{files[0]}\n") and printed.out.count("%") == 5
    assert "b.txt is not an image" in printed.err
    assert predict.main(["--workdir", str(workdir), "--json", *files]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert sum(top["probability"] for top in answer[files[0]]["top5"]) <= 1.0001
    assert "is not an image" in answer[files[1]]["error"]
    assert predict.main(["--workdir", str(workdir), files[0]]) == 0


def test_predictions_of_a_run_that_is_not_complete_name_their_epoch(tmp_path, workdir, capsys):
    picture("L").save(tmp_path / "a.png")
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    command = ["--workdir", str(tmp_path / "run"), str(tmp_path / "a.png")]
    assert predict.main(command) == 0
    assert "the run is not complete; the predictions are from epoch 2 of 2\n" in (
        capsys.readouterr().err
    )
    rows = [{"epoch": 1, "step": 4}]
    assert restore._progress(9, rows, None, 6) == "step 6, in epoch 2 of 9"
    assert restore._progress(9, rows, rows[0], 4) == "epoch 1 of 9, the best so far"


def test_predicting_does_not_change_a_run_that_is_training(workdir):
    unfinished = workdir / "checkpoints" / "99.orbax-checkpoint-tmp"
    unfinished.mkdir()
    try:
        before = sorted(path.name for path in workdir.rglob("*"))
        predict.predict(restore.from_workdir(workdir), tiny.dataset().test.images[:1])
        assert sorted(path.name for path in workdir.rglob("*")) == before
    finally:
        unfinished.rmdir()


def test_folders_without_a_network_are_refused(tmp_path, capsys):
    picture("RGB").save(tmp_path / "a.png")
    assert predict.main(["--workdir", str(tmp_path), str(tmp_path / "a.png")]) == 1
    assert "holds no run" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert predict.main(["--workdir", str(tmp_path), str(tmp_path / "a.png")]) == 1
    assert "is not from a cifar_jax run" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(tiny.make_config().to_json())
    assert predict.main(["--workdir", str(tmp_path), str(tmp_path / "a.png")]) == 1
    assert "has no checkpoint" in capsys.readouterr().err
