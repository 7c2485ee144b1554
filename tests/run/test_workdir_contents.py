"""What a folder may hold when a run starts in it, and what a failed start leaves."""

import pytest
import tiny

from cifar_jax.errors import UserError
from cifar_jax.loop import Diverged
from cifar_jax.report import read
from cifar_jax.run import workdir


def test_a_folder_that_a_failed_start_created_is_removed(tmp_path):
    with pytest.raises(UserError), workdir.locked(tmp_path / "a" / "b"):
        raise UserError("no data")
    assert not any(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError), workdir.locked(tmp_path / "a"):
        raise UserError("no data")
    with workdir.locked(tmp_path / "c" / "d"):
        (tmp_path / "c" / "d" / "config.json").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "c", "config.json", "d"]


@pytest.mark.parametrize("name", ["thesis.tex", "src", "config.json", "data_batch_1.bin"])
def test_a_foreign_folder_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=rf"holds files that do not belong to a run \({name}\)"):
        workdir.check(tiny.make_config(), tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        (), (".gitkeep",), ("wandb", "mlruns"), ("out.log", "slurm-12.out"), ("range_test",),
        ("metrics.csv", "notes.md"), ("tensorboard", "config.json"),
    ],
)  # fmt: skip
def test_a_folder_without_checkpoints_may_hold_logs_and_parts_of_a_run(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    assert workdir.check(tiny.make_config(), tmp_path) is None


def test_a_killed_start_can_be_repeated(tmp_path):
    workdir.claim(tiny.make_config(), tmp_path)
    assert workdir.check(tiny.make_config(), tmp_path) is None


def test_checkpoints_need_to_be_a_folder(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match="checkpoints is not a folder"):
        workdir.check(tiny.make_config(), tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [("3", "has workdir format 3"), ("", "is damaged"), ("x", "damaged")]
)
def test_workdirs_of_another_format_are_refused(tmp_path, text, message):
    workdir.claim(tiny.make_config(), tmp_path)
    assert (tmp_path / "format_version").read_text() == f"{workdir.FORMAT}\n"
    read.read(tmp_path)
    (tmp_path / "format_version").write_text(text)
    with pytest.raises(UserError, match=message):
        workdir.check(tiny.make_config(), tmp_path)
    with pytest.raises(UserError, match=message):
        read.read(tmp_path)


def test_a_diverged_run_says_whether_it_has_a_checkpoint():
    assert "No checkpoint was saved, so the same --workdir can be" in str(Diverged("it broke"))
    assert "choose another --workdir: this one holds step 7" in str(Diverged("x", 7))
