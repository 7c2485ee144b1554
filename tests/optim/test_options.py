from cifar_jax import optim
from cifar_jax.config import base
from cifar_jax.optim.options import keywords

SCHEDULES = (optim.schedules.create, *optim.SCHEDULES.values())
OPTIMIZERS = (optim.create, *optim.OPTIMIZERS.values())


def test_options_are_config_fields_with_the_same_default():
    fields = base.get_config().optim
    for function in SCHEDULES + OPTIMIZERS:
        for name, default in keywords(function).items():
            if name not in ("steps_per_epoch", "num_steps", "num_epochs"):
                assert name in fields, f"{function.__name__}: config.optim has no {name}"
                assert default == fields[name], f"{function.__name__}: {name} is {default}"


def test_every_config_field_is_an_option():
    options = keywords(*SCHEDULES, *OPTIMIZERS)
    others = {"name", "schedule", "learning_rate", "groups", "rescale_kernels", "sam_rho"}
    assert set(base.get_config().optim) - set(options) == others
