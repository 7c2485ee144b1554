import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cifar_jax import engine
from cifar_jax.errors import UserError
from cifar_jax.run.checkpoint import open_checkpoints


def replicated(num_devices):
    return NamedSharding(engine.make_mesh(jax.devices()[:num_devices]), P())


def tree(value, num_devices=1):
    arrays = {"w": jnp.full((4, 3), value), "key": jax.random.key(7), "n": jnp.int32(value)}
    return jax.device_put(arrays, replicated(num_devices))


def test_restore_returns_what_was_saved(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(5, tree(1.5), {"rows": [{"epoch": 1}]})
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 5
        state, meta = checkpoints.restore(5, tree(0.0), replicated(1))
    np.testing.assert_array_equal(state["w"], np.full((4, 3), 1.5))
    np.testing.assert_array_equal(jax.random.bits(state["key"]), jax.random.bits(tree(0)["key"]))
    assert meta == {"rows": [{"epoch": 1}]}


@pytest.mark.parametrize(("saved_on", "restored_on"), [(8, 1), (1, 8)])
def test_checkpoints_restore_on_a_different_number_of_devices(tmp_path, saved_on, restored_on):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree(2.0, saved_on), {})
    with open_checkpoints(tmp_path) as checkpoints:
        state, _ = checkpoints.restore(1, tree(0.0), replicated(restored_on))
    assert len(state["w"].sharding.device_set) == restored_on
    np.testing.assert_array_equal(state["w"], np.full((4, 3), 2.0))


def test_latest_two_and_earliest_best_are_kept_across_openings(tmp_path):
    scores = [0.1, 0.9, 0.3, 0.9, 0.5, None]
    for step, score in enumerate(scores):
        with open_checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, tree(float(step)), {}, score)
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 5
        state, _ = checkpoints.restore(1, tree(0.0), replicated(1))
    assert int(state["n"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "4", "5"]


def test_existing_step_is_kept(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, tree(1.0), {})
        checkpoints.save(3, tree(2.0), {})
    with open_checkpoints(tmp_path) as checkpoints:
        state, _ = checkpoints.restore(3, tree(0.0), replicated(1))
    assert int(state["n"]) == 1


def test_save_copies_arrays_before_their_buffers_are_donated(tmp_path):
    """Training overwrites the saved buffers while the files are being written."""
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    big = jnp.full((1000, 1000), 3.0)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": big}, {})
        overwrite(big).block_until_ready()
    with open_checkpoints(tmp_path) as checkpoints:
        target = {"w": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
        state, _ = checkpoints.restore(1, target, replicated(1))
    np.testing.assert_array_equal(state["w"], np.full((1000, 1000), 3.0))


def test_training_never_waits_for_a_save_and_the_newest_and_the_best_are_written(
    tmp_path, monkeypatch
):
    begun, disk, written = threading.Event(), threading.Event(), []
    with open_checkpoints(tmp_path) as checkpoints:
        save = checkpoints._orbax.save

        def save_later(path, **kwargs):
            begun.set()
            assert disk.wait(60)
            written.append(int(path.name))
            save(path, **kwargs)

        monkeypatch.setattr(checkpoints._orbax, "save", save_later)
        for step, score in enumerate([0.1, 0.2, 0.9, 0.3, 0.9, 0.5, None]):
            checkpoints.save(step, tree(float(step)), {}, score)
            assert checkpoints.latest_step == step and begun.wait(60)
        assert not written and not any(tmp_path.iterdir())
        disk.set()
        checkpoints.wait()
        assert written == [0, 2, 6]
        checkpoints.save(7, tree(7.0), {})
    with open_checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore(2, tree(0.0), replicated(1))[0]["n"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "6", "7"]


def damage(folder, pattern, content):
    """Overwrites the files of checkpoint 1 that match, or deletes them if content is None."""
    paths = [path for path in (folder / "1").glob(pattern) if path.is_file()]
    assert paths
    for path in paths:
        path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.parametrize(
    ("pattern", "content"),
    [
        ("meta/metadata", b"nonsense"),
        ("state/d/*", b""),
        ("state/manifest.ocdbt", None),
        ("state/ocdbt.process_0/d/*", b"nonsense"),
    ],
)
def test_corrupt_checkpoint_is_a_user_error_that_advises_removal(tmp_path, pattern, content):
    # Too large and too random for Orbax to store it in its index.
    state = {"w": jax.device_put(jax.random.normal(jax.random.key(0), (64, 64)), replicated(1))}
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    damage(tmp_path, pattern, content)
    with (
        open_checkpoints(tmp_path) as checkpoints,
        pytest.raises(UserError, match=rf"checkpoint .*1 cannot be read .* remove {tmp_path}"),
    ):
        checkpoints.restore_latest(state, replicated(1), lambda meta: True)


def test_unreadable_checkpoint_is_a_user_error_without_advice(tmp_path, monkeypatch):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree(1.0), {})
        checkpoints.wait()
        failure = PermissionError(13, "Permission denied")
        monkeypatch.setattr(checkpoints._orbax, "restore", lambda *a, **k: _raise(failure))
        with pytest.raises(UserError, match="Permission denied") as caught:
            checkpoints.read_meta(1)
        assert "remove" not in str(caught.value)


@pytest.mark.parametrize("failure", [TypeError("a bug"), MemoryError(), ValueError("a bug")])
def test_unexpected_exceptions_of_a_restore_propagate(tmp_path, monkeypatch, failure):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree(1.0), {})
        checkpoints.wait()
        monkeypatch.setattr(checkpoints._orbax, "restore", lambda *a, **k: _raise(failure))
        with pytest.raises(type(failure)) as caught:
            checkpoints.restore(1, tree(0.0), replicated(1))
        assert caught.value is failure


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("w", jnp.zeros((5, 3)), r"w is \[4, 3\] float32 in the .* and \[5, 3\] float32 here"),
        ("w", jnp.zeros((4, 3), jnp.int32), r"w is \[4, 3\] float32 in the .* and \[4, 3\] int32"),
        ("b", jnp.zeros(3), r"b is absent in the checkpoint and \[3\] float32 here"),
        ("w", None, r"w is \[4, 3\] float32 in the checkpoint and absent here"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_and_kept(tmp_path, name, array, message):
    target = {k: v for k, v in (tree(0.0) | {name: array}).items() if v is not None}
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree(1.0), {})
        with pytest.raises(UserError, match=f"does not fit this network: {message}") as caught:
            checkpoints.restore_latest(target, replicated(1), is_valid=lambda meta: True)
        assert "remove" not in str(caught.value) and checkpoints.latest_step == 1


def _raise(error):
    raise error


def test_a_checkpoint_whose_score_cannot_be_read_is_kept(tmp_path):
    """It may be the best one."""
    with open_checkpoints(tmp_path) as checkpoints:
        for step in range(6):
            checkpoints.save(step, tree(0.0), {}, score=1.0 if step == 0 else 0.1)
            checkpoints.wait()
            if step == 0:
                (tmp_path / "0" / "metrics" / "metrics").write_text("{")
    assert {p.name for p in tmp_path.iterdir() if p.name.isdigit()} >= {"0", "4", "5"}
