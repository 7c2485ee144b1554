import pytest

from cifar_jax.selection import Selection, curve_split

ROWS = [
    {"epoch": 1, "train_accuracy": 0.1, "val_accuracy": 0.3, "val_loss": 2.0},
    {"epoch": 2, "train_accuracy": 0.5, "val_accuracy": None, "val_loss": None},
    {"epoch": 3, "train_accuracy": 0.4, "val_accuracy": 0.3, "val_loss": 1.0},
]


@pytest.mark.parametrize(
    ("selected_on", "selected_by", "epoch"),
    [("val", "accuracy", 1), ("val", "loss", 3), ("train", "accuracy", 2), ("last", "loss", None)],
)
def test_the_best_epoch_is_the_first_with_the_best_score(selected_on, selected_by, epoch):
    best = Selection(selected_on, selected_by, "val").best(ROWS)
    assert (best and best["epoch"]) == epoch


def test_no_epoch_is_best_before_one_is_evaluated():
    assert Selection("val", "accuracy", "val").best(ROWS[1:2]) is None


def test_an_epoch_is_saved_as_best_only_if_it_beats_all_earlier_ones():
    selection = Selection("val", "accuracy", "val")
    assert selection.is_best(ROWS[0], [])
    assert not selection.is_best(ROWS[1], ROWS[:1])  # not evaluated
    assert not selection.is_best(ROWS[2], ROWS[:2])  # equal to the first
    assert Selection("val", "loss", "val").is_best(ROWS[2], ROWS[:2])


def test_curves_follow_the_test_set_without_a_validation_split():
    assert curve_split(0.1) == "val" and curve_split(0.0) == curve_split(None) == "test"
