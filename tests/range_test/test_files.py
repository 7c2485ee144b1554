import numpy as np
import tiny

from cifar_jax.range_test import files
from cifar_jax.range_test.suggestion import Point


def test_the_flags_are_said_to_leave_groups_of_parameters_as_they_are(tmp_path):
    rates, accuracies = np.geomspace(1e-6, 1, 200), np.linspace(0, 0.5, 200)
    points = [Point(i, r, 4.6, a) for i, (r, a) in enumerate(zip(rates, accuracies, strict=True))]
    for groups in ("", "*/bias: learning_rate=0.01"):
        config = tiny.make_config(optim__learning_rate=0.5, optim__groups=groups)
        result = files.write(config, points, tmp_path, {"ended_by": "completed"})
        expected = f"multiply those in optim.groups by {result['max_learning_rate'] / 0.5:.3g} too"
        found = [warning for warning in result["warnings"] if warning.endswith(expected)]
        assert len(found) == bool(groups)
