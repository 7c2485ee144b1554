import numpy as np
import pytest
import tiny

from cifar_jax.range_test import files
from cifar_jax.range_test.suggestion import Point

RATES, ACCURACIES = np.geomspace(1e-6, 1, 200), np.linspace(0, 0.5, 200)
POINTS = [Point(i, r, 4.6, a) for i, (r, a) in enumerate(zip(RATES, ACCURACIES, strict=True))]


def test_flags_come_with_a_warning_if_groups_have_learning_rates(tmp_path):
    for groups in ("", "*/bias: weight_decay=0", "*/bias: learning_rate=0.01"):
        config = tiny.make_config(optim__learning_rate=0.5, optim__groups=groups)
        result = files.write(config, POINTS, tmp_path, {"ended_by": "completed"})
        factor = result["max_learning_rate"] / 0.5
        expected = f"multiply the learning rates in optim.groups by {factor:.3g}"
        found = [warning for warning in result["warnings"] if warning.endswith(expected)]
        assert len(found) == ("learning_rate" in groups)


@pytest.mark.parametrize(
    ("groups", "is_refused"), [("*/bias: rise=0.2", True), ("*/bias: weight_decay=0", False)]
)
def test_flags_come_with_a_warning_if_a_group_uses_the_configs_schedule(
    tmp_path, groups, is_refused
):
    config = tiny.make_config(
        optim__schedule="one_cycle", optim__base_learning_rate=1e-4, optim__groups=groups
    )
    result = files.write(config, POINTS, tmp_path, {"ended_by": "completed"})
    found = [
        w for w in result["warnings"] if w.startswith("with these flags, the config is refused")
    ]
    assert len(found) == is_refused and all("rise has no effect" in w for w in found)
