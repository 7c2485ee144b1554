import os
import time

import pytest

from cifar_jax.run import atomic


def test_file_appears_only_once_complete(tmp_path):
    path = tmp_path / "new" / "x"
    with atomic.replacing(path) as part:
        part.write_text("done")
        assert not path.exists() and part.parent == path.parent
    assert path.read_text() == "done"
    assert list(path.parent.iterdir()) == [path]


def test_failure_keeps_the_old_file_and_removes_the_temporary_one(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "x"
    with atomic.replacing(path) as first, atomic.replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer context exits last


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_file_has_the_permissions_of_a_regular_one(tmp_path, umask, monkeypatch):
    before = os.umask(umask)
    try:
        (tmp_path / "regular").touch()
        with monkeypatch.context() as patch:
            # The umask can only be read by setting it, which would affect other threads' files.
            patch.setattr(os, "umask", lambda _: pytest.fail("changed the umask"))
            with atomic.replacing(tmp_path / "x"):
                pass
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "regular").stat().st_mode


def test_leftovers_of_killed_writers_are_removed_after_an_hour(tmp_path):
    old, fresh, other = (tmp_path / n for n in ("x[1].a.part", "x[1].b.part", "y.c.part"))
    for path in (old, fresh, other):
        path.touch()
    an_hour_ago = time.time() - 3601
    os.utime(old, (an_hour_ago, an_hour_ago))
    os.utime(other, (an_hour_ago, an_hour_ago))
    with atomic.replacing(tmp_path / "x[1]"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x[1]", "x[1].b.part", "y.c.part"]


def test_sweep_removes_folders_too(tmp_path):
    (tmp_path / "incomplete.X").mkdir()
    (tmp_path / "incomplete.X" / "shard").touch()
    atomic.sweep(tmp_path, "incomplete.*", age=-1)
    assert list(tmp_path.iterdir()) == []
