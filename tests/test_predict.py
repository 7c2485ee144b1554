import json

import numpy as np
import pytest
import tiny
from PIL import Image

from cifar_jax import predict
from cifar_jax.errors import UserError
from cifar_jax.run.workdir import locked


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Returns the workdir of a run of two epochs on the tiny data set, whose classes are colors."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    tiny.train(tiny.make_config(num_epochs=2), folder)
    return folder


def test_predictions_equal_the_evaluation(workdir):
    with np.load(workdir / "predictions.npz") as file:
        logits = file["logits"]
    found = predict.predict(workdir, tiny.dataset().test.images)
    best = [f"class {i}" for i in logits.argmax(1)]
    assert [predictions[0].name for predictions in found] == best
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    expected = exponentials.max(1) / exponentials.sum(1)
    np.testing.assert_allclose([g[0].probability for g in found], expected, rtol=1e-4)
    assert all(len(predictions) == 5 for predictions in found)


def test_predictions_come_from_the_reported_epoch(tmp_path):
    # The learning rate after the first epoch makes training diverge.
    config = tiny.make_config(
        num_epochs=3, selected_on="test", optim__schedule="step", optim__step_epochs=(1,),
        optim__step_factor=1000.0,
    )  # fmt: skip
    summary = tiny.train(config, tmp_path)
    assert summary["best_epoch"] == 1
    with np.load(tmp_path / "predictions.npz") as file:
        best = [f"class {i}" for i in file["logits"].argmax(1)]
    found = predict.predict(tmp_path, tiny.dataset().test.images)
    assert [predictions[0].name for predictions in found] == best


def picture(mode, size=(48, 64)):
    rng = np.random.default_rng(0)
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(rng.integers(0, 2**16, size).astype(dtype))
    return Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "I;16", "I", "F"])
def test_images_of_every_mode_are_read(tmp_path, mode):
    path = tmp_path / ("picture.tiff" if mode in ("CMYK", "LA", "I", "F") else "picture.png")
    picture(mode).save(path)
    pixels = predict.load(path)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8 and pixels.std() > 5


def test_transparent_areas_become_white(tmp_path):
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (predict.load(tmp_path / "a.png") == 255).all()


def test_the_central_square_is_taken_after_orientation(tmp_path):
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 200
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # rotated camera
    image.rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
    assert (predict.load(tmp_path / "a.png") == 200).all()


def test_large_jpeg_is_read(tmp_path):
    picture("RGB", (3000, 4000)).save(tmp_path / "a.jpg", quality=50)
    assert predict.load(tmp_path / "a.jpg").shape == (32, 32, 3)


def test_files_that_are_not_images_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("not an image")
    picture("RGB").save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    for name, message in (
        ("a.txt", "is not an image"), ("half.png", "cannot be read"),
        ("empty.png", "is not an image"),
        ("none.png", "does not exist"), (".", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            predict.load(tmp_path / name)


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


def test_predicting_does_not_change_a_run_that_is_training(workdir):
    unfinished = workdir / "checkpoints" / "99.orbax-checkpoint-tmp"
    unfinished.mkdir()
    try:
        before = sorted(path.name for path in workdir.rglob("*"))
        predict.predict(workdir, tiny.dataset().test.images[:1])
        assert sorted(path.name for path in workdir.rglob("*")) == before
    finally:
        unfinished.rmdir()


def test_restore_is_retried_when_a_run_that_is_training_replaces_the_checkpoint(
    workdir, monkeypatch
):
    """The first attempt fails as if the run had deleted the checkpoint in the meantime."""
    image, tries = tiny.dataset().test.images[:1], []
    expected, restore = predict.predict(workdir, image), predict._restore

    def fail_once(*args):
        tries.append(args)
        if len(tries) == 1:
            raise UserError("the checkpoint 7 cannot be read")
        return restore(*args)

    monkeypatch.setattr(predict, "_restore", fail_once)
    with pytest.raises(UserError, match="cannot be read"):
        predict.predict(workdir, image)
    tries.clear()
    with locked(workdir):
        assert predict.predict(workdir, image) == expected
    assert len(tries) == 2


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
