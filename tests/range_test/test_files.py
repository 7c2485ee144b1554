import numpy as np
import tiny

from cifar_jax.range_test import files
from cifar_jax.range_test.suggestion import Point


def test_flags_come_with_a_warning_if_groups_have_learning_rates(tmp_path):
    rates, accuracies = np.geomspace(1e-6, 1, 200), np.linspace(0, 0.5, 200)
    points = [Point(i, r, 4.6, a) for i, (r, a) in enumerate(zip(rates, accuracies, strict=True))]
    for groups in ("", "*/bias: weight_decay=0", "*/bias: learning_rate=0.01"):
        config = tiny.make_config(optim__learning_rate=0.5, optim__groups=groups)
        result = files.write(config, points, tmp_path, {"ended_by": "completed"})
        factor = result["max_learning_rate"] / 0.5
        expected = f"multiply the learning rates in optim.groups by {factor:.3g}"
        found = [warning for warning in result["warnings"] if warning.endswith(expected)]
        assert len(found) == ("learning_rate" in groups)
