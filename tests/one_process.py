"""One process of a run on several, for tests/test_several_processes.py.

    python tests/one_process.py COORDINATOR NUM_PROCESSES PROCESS_ID WORKDIR OVERRIDES

trains tiny.py's config with the overrides, a JSON object, on tiny.py's data set. COORDINATOR is
HOST:PORT, "auto", or "" for a run of one process. The environment sets the number of devices.
"""

import json
import sys

import tiny
from ml_collections import ConfigDict

from cifar_jax.errors import UserError
from cifar_jax.runtime import distributed, entry
from cifar_jax.runtime.signals import Preempted
from cifar_jax.train import train


def main() -> int:
    coordinator, num_processes, process_id, folder, overrides = sys.argv[1:]
    overrides = json.loads(overrides)
    if "model" in overrides:
        overrides["model"] = ConfigDict(overrides["model"])
    cfg = tiny.make_config(**overrides)
    numbers = (int(num_processes), int(process_id)) if ":" in coordinator else (None, None)
    try:
        with distributed.connected(coordinator or None, *numbers):
            try:
                train(cfg, folder, dataset=tiny.dataset(num_val=32 if cfg.data.val_fraction else 0))
            except Preempted as stopped:
                print(stopped)
                return stopped.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    entry.run(lambda argv: main())
