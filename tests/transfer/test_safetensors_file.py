import numpy as np
import pytest

from cifar_jax.errors import UserError
from cifar_jax.transfer import safetensors_file

pytest.importorskip("safetensors")


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors = {"dense.kernel": kernel, "conv.kernel": kernel.T, "scalar": np.float32(2.5)}
    safetensors_file.write(path, tensors, {"classes": '["a", "b"]'})
    found, metadata = safetensors_file.read(path)
    assert metadata == {"format": "cifar_jax", "classes": '["a", "b"]'}
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path, fill_the_disk):
    path = tmp_path / "x.safetensors"
    safetensors_file.write(path, {"a": np.zeros(2, np.float32)}, {})
    fill_the_disk()
    with pytest.raises(OSError, match="No space left"):
        safetensors_file.write(path, {"b": np.zeros(2, np.float32)}, {})
    assert safetensors_file.read(path)[0].keys() == {"a"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none cannot be read: No such file"):
        safetensors_file.read(tmp_path / "none")
