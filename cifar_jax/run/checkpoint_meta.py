"""Checks and reads `meta`, the JSON values that a checkpoint holds besides its arrays."""

from typing import Any

import numpy as np

from cifar_jax.data import DatasetInfo


def is_valid(meta: dict[str, Any]) -> bool:
    """Returns whether a checkpoint's `meta` has the fields that run_state.save writes."""
    try:
        times = [meta["seconds"], *meta["step_times"]]
        steps = [number for row in meta["rows"] for number in (row["epoch"], row["step"])]
        has_names = all(isinstance(name, str) for name in meta.get("classes", []))
        statistics = np.float64([meta.get(name, [0.0] * 3) for name in ("mean", "std")])
        is_dict = isinstance(meta["callbacks"], dict)
    except (KeyError, TypeError, ValueError):
        return False
    are_numbers = all(isinstance(time, int | float) for time in times)
    are_counts = all(type(step) is int for step in steps)
    return is_dict and has_names and are_numbers and are_counts and statistics.shape == (2, 3)


def dataset_info(meta: dict[str, Any]) -> DatasetInfo | None:
    """Returns the DatasetInfo in a checkpoint, or None if the checkpoint is too old to have one."""
    if "classes" not in meta:
        return None
    return DatasetInfo(tuple(meta["classes"]), np.float32(meta["mean"]), np.float32(meta["std"]))
