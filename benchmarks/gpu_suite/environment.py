"""Prints the environment of the suite as JSON: device, versions, commit and peak FLOP/s.

    python -m benchmarks.gpu_suite.environment

Fails if a package that training needs is missing.
"""

import json

from cifar_jax.runtime import entry


def main(argv: list[str]) -> int:
    """Prints the environment and returns the exit code."""
    # These import jax, so they must come after entry.run. The first three are imported only to
    # check that they exist.
    import clu.parameter_overview  # noqa: F401
    import tensorboardX  # noqa: F401

    import cifar_jax.train  # noqa: F401
    from benchmarks import peak
    from cifar_jax.runtime.environment import environment

    peaks = {dtype: peak.measured(dtype) for dtype in ("float32", "bfloat16")}
    print(json.dumps(environment() | {"peak": peaks}))
    return 0


if __name__ == "__main__":
    entry.run(main, stop_message=b"stopped\n")
