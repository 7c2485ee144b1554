import pytest
import tiny

from cifar_jax.errors import UserError
from cifar_jax.run import reported
from cifar_jax.run.workdir import locked


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Returns the workdir of a run that reports the first of three epochs: then it diverges."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    config = tiny.make_config(
        num_epochs=3, selected_on="test", selected_by="loss", optim__schedule="step",
        optim__step_epochs=(1,), optim__step_factor=1000.0,
    )  # fmt: skip
    assert tiny.train(config, folder)["best_epoch"] == 1
    return folder


def test_the_checkpoint_is_that_of_the_reported_epoch(workdir):
    found = reported.read(workdir, lambda found: found)
    assert found.step == found.best["step"] == 4 and found.best["epoch"] == 1
    assert [row["epoch"] for row in found.rows] == [1, 2, 3]
    assert found.config.selected_by == "loss"


def test_reading_is_retried_when_a_run_that_is_training_replaces_the_checkpoint(workdir):
    """The first attempt fails as if the run had deleted the checkpoint in the meantime."""
    tries = []

    def fail_once(found):
        tries.append(found)
        if len(tries) == 1:
            raise UserError("the checkpoint 7 cannot be read")
        return found.step

    with pytest.raises(UserError, match="cannot be read"):
        reported.read(workdir, fail_once)
    tries.clear()
    with locked(workdir):
        assert reported.read(workdir, fail_once) == 4
    assert len(tries) == 2
