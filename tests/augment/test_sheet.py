import numpy as np
from PIL import Image

from cifar_jax import augment, data
from cifar_jax.augment import __main__ as sheet


def test_every_operation_has_a_row():
    named = {line.split("(")[0] for line in sheet.LINES}
    assert named == augment.OPS.keys() | augment.MIXES.keys()


def test_writes_rows_of_enlarged_images(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert sheet.main([str(out), "--ops", "vertical_flip(1.0)"]) == 0
    assert "2 rows of 16 images" in capsys.readouterr().out
    picture = np.asarray(Image.open(out))
    image = data.load("synthetic").train.images[15]
    large = image.repeat(3, 0).repeat(3, 1)
    left = 240 + 15 * 100
    np.testing.assert_array_equal(picture[4:100, left : left + 96], large)
    np.testing.assert_array_equal(picture[104:200, left : left + 96], large[::-1])


def test_invalid_arguments_are_reported(tmp_path, capsys):
    assert sheet.main([str(tmp_path / "sheet.png"), "--ops", "flop"]) == 1
    assert capsys.readouterr().err.startswith("error: unknown augmentation 'flop'")
    for suffix in ("foo", "psd", "blp", "xbm"):  # Pillow writes no PSD, and no colors in the others
        assert sheet.main([str(tmp_path / f"sheet.{suffix}")]) == 1
        assert "needs an image file extension" in capsys.readouterr().err
    for seed in ("-1", str(2**32)):
        assert sheet.main([str(tmp_path / "sheet.png"), "--seed", seed]) == 1
        assert f"--seed must be from 0 to 4294967295, got {seed}" in capsys.readouterr().err
    assert sheet.main([str(tmp_path / "sheet.png"), "--ops", " "]) == 1
    assert "--ops must contain an operation" in capsys.readouterr().err
