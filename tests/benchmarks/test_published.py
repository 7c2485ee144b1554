import pytest
import tiny

from benchmarks.published import PUBLISHED, WRITE_UPS
from cifar_jax import config


def test_experiments_and_configs_in_subdirectories_correspond():
    folders = {path.relative_to(tiny.ROOT / "configs") for path in tiny.ROOT.glob("configs/*/*.py")}
    names = {path.with_suffix("").as_posix() for path in folders}
    beyond = ("recipes/", "search/", "speedrun/", "transfer/")
    assert {name for name in names if not name.startswith(beyond)} == PUBLISHED.keys()
    assert len(PUBLISHED) == 37


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_a_config_matches_the_published_experiment(experiment):
    published = PUBLISHED[experiment]
    cfg = config.load(tiny.ROOT / "configs" / f"{experiment}.py")
    assert cfg.data.name == ("cifar10" if experiment.startswith("cifar10/") else "cifar100")
    assert published.label == cfg.data.label
    assert experiment.partition("/")[0] in WRITE_UPS
    if published.epochs:
        assert cfg.num_epochs == published.epochs
    # Either a number, or what the write-up says instead.
    assert published.test_accuracy is not None or published.other
    assert published.test_accuracy is None or 0.01 < published.test_accuracy < 1


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        (
            "coarse/cnn2_adam",
            dict(batch_size=32, optim__learning_rate=1e-3, optim__name="adam", num_epochs=100),
        ),
        (
            "coarse/cnn2_sgd",
            dict(batch_size=32, optim__learning_rate=1e-3, optim__name="sgd", num_epochs=100),
        ),
        ("coarse/cnn2_batch16", dict(batch_size=16, optim__learning_rate=1e-3, num_epochs=20)),
        ("coarse/cnn2_batch64", dict(batch_size=64, optim__learning_rate=1e-3, num_epochs=20)),
        ("coarse/cnn2_lr1e4", dict(batch_size=64, optim__learning_rate=1e-4)),
        ("coarse/cnn2_lr1e2", dict(batch_size=64, optim__learning_rate=1e-2)),
        (
            "coarse/cnn2_dropout",
            dict(batch_size=64, model__dropout=(0.25, 0.25, 0.5), num_epochs=100),
        ),
        (
            "coarse/cnn4",
            dict(batch_size=64, optim__learning_rate=1e-3, model__name="cnn4", num_epochs=100),
        ),
        ("coarse/cnn4_fine", dict(batch_size=64, data__label="fine", model__name="cnn4")),
        (
            "assignment/cnn3",
            dict(batch_size=32, optim__learning_rate=1e-4, data__val_fraction=0.17, num_epochs=150),
        ),
        ("assignment/adam_1e3", dict(optim__learning_rate=1e-3)),
        (
            "assignment/no_augment",
            dict(model__dropout=(0.25, 0.25, 0.5), data__val_fraction=0, augment__ops=""),
        ),
        (
            "assignment/dropout_25_40",
            dict(model__dropout=(0.25, 0.25, 0.4), data__val_fraction=0, augment__ops=""),
        ),
        (
            "assignment/adam_decay",
            dict(
                optim__schedule="inverse_time",
                optim__decay=0.05,
                optim__name="adam",
                augment__ops="",
            ),
        ),
        (
            "assignment/sgd",
            dict(optim__name="sgd", optim__momentum=0.0, data__val_fraction=0.17, augment__ops=""),
        ),
        ("cifar10/resnet18", dict(model__stem="imagenet", num_epochs=8, optim__step_epochs=(4, 7))),
        ("hybrid/lr_range_test", dict(optim__learning_rate=1e-5, optim__schedule="exponential")),
    ],
)
def test_configs_have_the_settings_of_the_write_ups(experiment, expected):
    cfg = config.load(tiny.ROOT / "configs" / f"{experiment}.py")
    settings = config.flatten(cfg)
    expected = {name.replace("__", "."): value for name, value in expected.items()}
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_no_setting_leaks_from_one_experiment_into_another(experiment):
    """Checks settings that a config could have inherited by mistake from the one it extends."""
    group, _, name = experiment.partition("/")
    cfg = config.load(tiny.ROOT / "configs" / f"{experiment}.py")
    # Adam's eps is 1e-8 in PyTorch and in Keras before version 2.1.3, and 1e-7 in later versions.
    eps = {"cifar10": 1e-8, "assignment": 1e-8}.get(group, 1e-7)
    assert cfg.optim.eps == (
        eps if name != "resnet50" else 1e-8
    )  # uses SGD, so this is the base config's value
    normalize = {"cifar10": "symmetric", "hybrid": "standard"}.get(group, "unit")
    assert cfg.augment.normalize == normalize
    picks = group == "coarse" or experiment == "callbacks/school"
    assert cfg.selected_on == ("test" if picks else "last")
    decays = experiment in ("hybrid/cnn13_l2", "hybrid/cnn_shallow")
    assert (cfg.optim.weight_decay, cfg.optim.weight_decay_mask) == (
        (8e-4, "kernels") if decays else (0.0, "all")
    )
    val_fractions = {"assignment/cnn3": 0.17, "assignment/adam_1e3": 0.17, "assignment/sgd": 0.17}
    val_fractions["callbacks/resnet50"] = 0.2
    assert cfg.data.val_fraction == val_fractions.get(experiment, 0.0)


def test_the_range_test_covers_the_learning_rates_of_the_write_up():
    cfg = config.load(tiny.ROOT / "configs/hybrid/lr_range_test.py")
    learning_rates = [
        cfg.optim.learning_rate * cfg.optim.step_factor**i for i in range(cfg.num_epochs)
    ]
    assert learning_rates[2] == pytest.approx(1.6e-5, rel=0.01)
    assert learning_rates[16] == pytest.approx(3.98e-4, rel=0.01)  # "17th epoch"
