"""Lets runs that differ only in what their program takes as an argument share that program."""

import json

from ml_collections import ConfigDict

from cifar_jax import optim
from cifar_jax.config import flatten_json
from cifar_jax.experiment.parts import caches_features

# Fields and groups that only the host uses, or that are arguments of the program. The fields of the
# schedules, whose learning rates are arguments too, are added below.
_NOT_COMPILED = {
    *("experiment", "seed", "num_epochs", "eval_every_epochs", "selected_on", "selected_by"),
    *("optim.learning_rate", "optim.schedule", "trackers", "ema.decay"),
    *("lookahead.every", "lookahead.decay", "lookahead.power"),
}
_GROUPS_NOT_COMPILED = {"plateau", "early_stopping", "checkpoint", "search"}


def program_key(config: ConfigDict) -> str | None:
    """Returns a text that is the same for configs that can share an experiment's program.

    None for a config whose features are computed only once: they may depend on the seed.
    """
    if caches_features(config):
        return None
    of_optimizers = optim.keywords(optim.create, *optim.OPTIMIZERS.values())
    of_schedules = optim.keywords(optim.schedules.create, *optim.SCHEDULES.values())
    names = {f"optim.{name}" for name in of_schedules.keys() - of_optimizers.keys()}
    fields = {
        k: v
        for k, v in flatten_json(config).items()
        if k not in _NOT_COMPILED | names and k.partition(".")[0] not in _GROUPS_NOT_COMPILED
    }
    # The program depends on the kind of average, if any; its rates are arguments.
    fields |= {"averages": [bool(config.ema.decay), bool(config.lookahead.every)]}
    return json.dumps(fields, sort_keys=True)
