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
    assert published.document(experiment) in DOCUMENTS.values()
    if published.epochs:
        assert cfg.num_epochs == published.epochs
    # A number, or what the document says in its place.
    assert published.test_accuracy is not None or published.other
    assert published.test_accuracy is None or 0.01 < published.test_accuracy < 1


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("coarse/cnn2_adam", dict(batch_size=32, learning_rate=1e-3, name="adam", epochs=100)),
        ("coarse/cnn2_sgd", dict(batch_size=32, learning_rate=1e-3, name="sgd", epochs=100)),
        ("coarse/cnn2_batch16", dict(batch_size=16, learning_rate=1e-3, epochs=20)),
        ("coarse/cnn2_batch64", dict(batch_size=64, learning_rate=1e-3, epochs=20)),
        ("coarse/cnn2_lr1e4", dict(batch_size=64, learning_rate=1e-4)),
        ("coarse/cnn2_lr1e2", dict(batch_size=64, learning_rate=1e-2)),
        ("coarse/cnn2_dropout", dict(batch_size=64, dropout=(0.25, 0.25, 0.5), epochs=100)),
        ("coarse/cnn4", dict(batch_size=64, learning_rate=1e-3, model="cnn4", epochs=100)),
        ("coarse/cnn4_fine", dict(batch_size=64, label="fine", model="cnn4")),
        ("assignment/cnn3", dict(batch_size=32, learning_rate=1e-4, val_fraction=0.17, epochs=150)),
        ("assignment/adam_1e3", dict(learning_rate=1e-3)),
        ("assignment/no_augment", dict(dropout=(0.25, 0.25, 0.5), val_fraction=0, ops="")),
        ("assignment/dropout_25_40", dict(dropout=(0.25, 0.25, 0.4), val_fraction=0, ops="")),
        ("assignment/adam_decay", dict(schedule="inverse_time", decay=0.05, name="adam", ops="")),
        ("assignment/sgd", dict(name="sgd", momentum=0.0, val_fraction=0.17, ops="")),
        ("cifar10/resnet18", dict(stem="imagenet", epochs=8, step_epochs=(4, 7))),
        ("hybrid/lr_range_test", dict(learning_rate=1e-5, schedule="exponential")),
    ],
)
def test_what_the_documents_say_stands_in_the_configs(experiment, expected):
    cfg = config.load(tiny.ROOT / "configs" / f"{experiment}.py")
    found = {name.rpartition(".")[2]: value for name, value in config.flatten(cfg).items()}
    found |= {"name": cfg.optim.name, "model": cfg.model.name, "epochs": cfg.num_epochs}
    assert {name: found[name] for name in expected} == expected


def test_the_range_test_passes_the_rates_that_the_document_read_off():
    cfg = config.load(tiny.ROOT / "configs/hybrid/lr_range_test.py")
    rates = [cfg.optim.learning_rate * cfg.optim.step_factor**i for i in range(cfg.num_epochs)]
    assert rates[2] == pytest.approx(1.6e-5, rel=0.01)
    assert rates[16] == pytest.approx(3.98e-4, rel=0.01)  # "17th epoch"
