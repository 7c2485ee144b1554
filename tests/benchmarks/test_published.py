import pytest
import tiny

from benchmarks.published import DOCUMENTS, PUBLISHED
from cifar_jax import config


def test_every_experiment_is_a_config_and_every_config_in_a_folder_an_experiment():
    folders = {path.relative_to(tiny.ROOT / "configs") for path in tiny.ROOT.glob("configs/*/*.py")}
    assert {path.with_suffix("").as_posix() for path in folders} == PUBLISHED.keys()
    assert len(PUBLISHED) == 37


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_a_config_trains_what_was_published(experiment):
    published = PUBLISHED[experiment]
    cfg = config.load(tiny.ROOT / "configs" / f"{experiment}.py")
    assert cfg.data.name == ("cifar10" if experiment.startswith("cifar10/") else "cifar100")
    assert published.label == cfg.data.label
    assert experiment.partition("/")[0] in DOCUMENTS
    if published.epochs:
        assert cfg.num_epochs == published.epochs
    # A number, or what the document says in its place.
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
def test_what_the_documents_say_stands_in_the_configs(experiment, expected):
    cfg = config.load(tiny.ROOT / "configs" / f"{experiment}.py")
    found = config.flatten(cfg)
    expected = {name.replace("__", "."): value for name, value in expected.items()}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_nothing_leaks_from_one_write_up_or_experiment_into_another(experiment):
    """What a config takes over from the one it begins with, seen unmended."""
    group, _, name = experiment.partition("/")
    cfg = config.load(tiny.ROOT / "configs" / f"{experiment}.py")
    # PyTorch's eps, Keras' before and after version 2.1.3.
    eps = {"cifar10": 1e-8, "assignment": 1e-8}.get(group, 1e-7)
    assert cfg.optim.eps == (eps if name != "resnet50" else 1e-8)  # SGD: base's
    normalize = {"cifar10": "symmetric", "hybrid": "standard"}.get(group, "unit")
    assert cfg.augment.normalize == normalize
    picks = group == "coarse" or experiment == "callbacks/school"
    assert cfg.selected_on == ("test" if picks else "last")
    decays = experiment in ("hybrid/cnn13_l2", "hybrid/cnn_shallow")
    assert (cfg.optim.weight_decay, cfg.optim.weight_decay_mask) == (
        (8e-4, "kernels") if decays else (0.0, "all")
    )
    holds_back = {"assignment/cnn3": 0.17, "assignment/adam_1e3": 0.17, "assignment/sgd": 0.17}
    holds_back["callbacks/resnet50"] = 0.2
    assert cfg.data.val_fraction == holds_back.get(experiment, 0.0)


def test_the_range_test_passes_the_rates_that_the_document_read_off():
    cfg = config.load(tiny.ROOT / "configs/hybrid/lr_range_test.py")
    rates = [cfg.optim.learning_rate * cfg.optim.step_factor**i for i in range(cfg.num_epochs)]
    assert rates[2] == pytest.approx(1.6e-5, rel=0.01)
    assert rates[16] == pytest.approx(3.98e-4, rel=0.01)  # "17th epoch"
