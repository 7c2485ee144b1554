"""A table of wrong command lines and files for every command.

Each must end with exit code 1 (or 2, for an invalid flag), and print at most three lines that name
the input, without a traceback. All of them run in this process; nothing is trained or measured.
"""

import importlib.util
import json
import re
from importlib import import_module

import pytest
import tiny

LONG = 5000 * "x"
HUGE = "9" * 30
QUICK = ("--config", "configs/quickstart.py", "--config.model.name=cnn_small")


def config_fields(*values):
    """Returns the cases of `main` that set one field each."""
    return [(f"--config.{value}",) for value in values]


# Flags that follow --config configs/quickstart.py, each case with one mistake.
FIELDS = [
    # Not of the field's kind.
    *config_fields(
        *("batch_size=many", "batch_size=1.5", "batch_size=", "batch_size", "batch_size=1e2"),
        *("num_epochs=ten", "num_epochs=None", "num_epochs=(1,2)", "seed=1e3", "seed=1=2"),
        *("optim.learning_rate=x", "optim.learning_rate=", "optim.learning_rate=1,2"),
        *("optim.learning_rate=1e-3e", "optim.nesterov=maybe", "optim.nesterov=2"),
        *("optim.step_epochs=abc", "optim.step_epochs=(1,", "optim.step_epochs=(1,nan)"),
        *("optim.step_epochs=(1,'a')", "optim.step_epochs=[[1]]", "model.name=5"),
        *("data.limit=all", "data.val_fraction=half", "checkpoint.every_minutes=soon"),
        *("steps_per_call=auto", "plateau.patience=2.5", "early_stopping.patience=x"),
    ),
    # NaN, infinite, or infinite or 0 in float32.
    *config_fields(
        *("optim.learning_rate=nan", "optim.learning_rate=inf", "optim.learning_rate=-inf"),
        *("optim.learning_rate=1e39", "optim.learning_rate=1e-46", "optim.warmup_epochs=nan"),
        *("optim.warmup_epochs=inf", "optim.clip_norm=inf", "optim.clip_norm=nan"),
        *("optim.weight_decay=nan", "optim.weight_decay=inf", "optim.eps=nan", "optim.beta1=nan"),
        *("optim.momentum=nan", "optim.rise=nan", "optim.power=inf", "optim.decay=nan"),
        *("optim.step_factor=nan", "optim.cycle_factor=inf", "optim.half_cycle_epochs=nan"),
        *("optim.base_learning_rate=nan", "optim.final_learning_rate=inf"),
        *("label_smoothing=nan", "data.val_fraction=nan", "checkpoint.every_minutes=nan"),
        *("checkpoint.every_minutes=inf", "plateau.factor=nan", "early_stopping.min_delta=nan"),
    ),
    # Out of range.
    *config_fields(
        *("num_epochs=0", "num_epochs=-1", f"num_epochs={HUGE}", "batch_size=0", "batch_size=-8"),
        *(f"batch_size={HUGE}", "eval_batch_size=0", f"eval_batch_size={HUGE}", "seed=-1"),
        *("seed=4294967296", f"seed={HUGE}", "data.val_seed=-1", "eval_every_epochs=0"),
        *("steps_per_call=-1", f"steps_per_call={HUGE}", "label_smoothing=1.0"),
        *("label_smoothing=-0.1", "data.val_fraction=1.0", "data.val_fraction=-0.5"),
        *("data.limit=-1", f"data.limit={HUGE}", "checkpoint.every_epochs=0"),
        *("checkpoint.every_minutes=-1", f"checkpoint.every_epochs={HUGE}"),
        *("augment.resize=-1", "augment.resize=7", f"augment.resize={HUGE}", "augment.resize=64"),
        *("optim.learning_rate=0", "optim.learning_rate=-1", "optim.warmup_epochs=-1"),
        *("optim.warmup_epochs=10", "optim.warmup_epochs=9.99999", "optim.clip_norm=-1"),
        *("optim.weight_decay=-1", "optim.eps=-1", "optim.beta1=1.0", "optim.beta2=1.5"),
        *("optim.beta1=0.9999999999", "optim.beta2=-0.1"),
        *("ema.decay=1.0", "ema.decay=-0.5", "ema.decay=nan", "lookahead.every=-1"),
        *("optim.sam_rho=-0.1", "optim.sam_rho=inf", "augment.views=3", "augment.views=0"),
    ),
    # Unknown names.
    *config_fields(
        *("optim.lr=3", "optim.learning_rat=3", "lr=1", "optim=3", "model=3", "data=x", "=3"),
        *("optim.", ".optim=3", "optim.learning_rate.x=3", f"{LONG}=1", f"optim.{LONG}=1"),
        *("model.drop=1", "model.filters=3", f"model.{LONG}=3", "model.name=", "model.name=cnn33"),
        *(f"model.name={LONG}", "optim.name=adamm", "optim.name=", f"optim.name={LONG}"),
        *("optim.schedule=cosin", "optim.weight_decay_mask=bias", "selected_on=best"),
        *("selected_by=acuracy", "data.name=mnist", f"data.name={LONG}", "data.label=superclass"),
        *("augment.normalize=imagnet", "augment.resize_method=nearest"),
        *("dtype=float16", f"dtype={LONG}", "parallel=pmpa"),
        *("gpu_graph=yes", "trackers=mlflw", "trackers=,", "trackers=mlflow,", "trackers=a,b"),
    ),
    # Values that do not fit together.
    *config_fields("selected_on=test", "optim.momentum=0.9", "optim.nesterov=true"),
    *config_fields("optim.decay=0.1", "plateau.factor=0.5", "early_stopping.min_delta=0.1"),
    ("--config.plateau.patience=-1",),
    ("--config.plateau.patience=2", "--config.plateau.factor=1.0"),
    ("--config.plateau.patience=2", "--config.plateau.monitor=val_los"),
    ("--config.plateau.patience=2", "--config.plateau.cooldown=-1"),
    ("--config.plateau.patience=2", "--config.plateau.min_learning_rate=nan"),
    ("--config.plateau.patience=2", "--config.plateau.min_learning_rate=-1"),
    ("--config.early_stopping.patience=-3",),
    ("--config.early_stopping.patience=3", "--config.early_stopping.monitor=f1"),
    ("--config.selected_on=val", "--config.data.val_fraction=0"),
    *config_fields("lookahead.decay=0.9", "lookahead.power=2.0"),
    ("--config.lookahead.every=5", "--config.lookahead.decay=1.0"),
    ("--config.lookahead.every=5", "--config.lookahead.power=-1.0"),
    ("--config.lookahead.every=5", "--config.ema.decay=0.9"),
    *(
        (f"--config.model.name={model}", *(f"--config.augment.{field}" for field in fields))
        for model, *fields in (
            ("vgg16", "train_sizes=(16,)"),  # one size is augment.resize
            ("vgg16", "train_sizes=(16,24)"),
            ("vgg16", "train_size_epochs=(1,)"),
            ("vgg16", "train_sizes=(16,24)", "train_size_epochs=(0,)"),
            ("vgg16", "train_sizes=(16,24)", "train_size_epochs=(1.5,)"),
            ("vgg16", "train_sizes=(16,24)", "train_size_epochs=(10,)"),
            ("vgg16", "train_sizes=(16,24,32)", "train_size_epochs=(3,2)"),
            ("vgg16", "train_sizes=(4,24)", "train_size_epochs=(1,)"),
            ("vgg16", "train_sizes=(16,24.5)", "train_size_epochs=(1,)"),
            ("cnn3", "train_sizes=(16,24)", "train_size_epochs=(1,)"),
            ("cct_7_3x1", "train_sizes=(16,32)", "train_size_epochs=(1,)"),
            ("vgg16_bn", "train_sizes=(16,32)", "train_size_epochs=(1,)"),
            ("airbench", "train_sizes=(20,32)", "train_size_epochs=(1,)"),
        )
    ),
    *(
        (f"--config.optim.schedule={schedule}", *(f"--config.optim.{x}" for x in others))
        for schedule, *others in (
            ("step",),
            ("step", "step_epochs=(4,2)"),
            ("step", "step_epochs=(0,4)"),
            ("step", "step_epochs=(2,)", "warmup_epochs=3"),
            ("step", "step_epochs=(2,)", "step_factor=0"),
            ("exponential", "step_factor=-1"),
            ("inverse_time", "decay=-1"),
            ("polynomial", "power=0"),
            ("polynomial", "final_learning_rate=9"),
            ("cosine", "final_learning_rate=-1"),
            ("one_cycle",),
            ("one_cycle", "base_learning_rate=1e-4", "rise=1"),
            ("triangular",),
            ("triangular", "half_cycle_epochs=-1"),
            ("triangular2", "half_cycle_epochs=2", "base_learning_rate=9"),
            ("triangular", "half_cycle_epochs=2", "warmup_epochs=1"),
            ("exp_range", "half_cycle_epochs=2", "cycle_factor=1.1"),
        )
    ),
    # Groups of parameters; the network is cnn_small.
    *config_fields(
        *("optim.groups=dense", "optim.groups=*:1", "optim.groups=:", f"optim.groups={LONG}"),
        *("optim.groups=*:lr=1", "optim.groups=*:clip_norm=1", "optim.groups=*:learning_rate=x"),
        *("optim.groups=*:learning_rate=nan", "optim.groups=*:learning_rate=0"),
        *("optim.groups=*:eps=1,eps=1", "optim.groups=*:beta1=1", "optim.groups=*:momentum=0.9"),
        *("optim.groups=*:num_epochs=0", f"optim.groups=*:num_epochs={HUGE}"),
        *("optim.groups=*:name='adamm'", "optim.groups=*:schedule='cosin'"),
        *("optim.groups=*:name=3", "optim.groups=*:schedule='step'", "optim.groups=*:name='muon'"),
        *(f"optim.groups={LONG}:eps=1", f"optim.groups=*:{LONG}=1", f"optim.groups=*:eps=-{LONG}"),
        *(f"optim.groups=*:eps=0x{5000 * 'f'}", f"optim.groups=*:eps={600 * '-'}1"),
        *("optim.groups=dens/*:eps=1", "optim.groups=*:eps=1;*/bias:eps=1", "optim.groups=3;4"),
        *("optim.rescale_kernels=true", "optim.rescale_kernels=2", "optim.name=muon"),
    ),
    ("--config.optim.groups=*/kernel:eps=1", "--config.optim.rescale_kernels=true"),
    # Options of networks.
    *(
        (f"--config.model.name={model}", f"--config.model.{option}")
        for model, option in (
            ("cnn3", "dropout=x"),
            ("cnn3", "dropout=(0.1,0.2)"),
            ("cnn3", "dropout=()"),
            ("cnn3", "dropout=True"),
            ("cnn3", "dropout=nan"),
            ("cnn3", "dropout=(2.0,)"),
            ("cnn3", f"{LONG}=3"),
            ("cnn2", "filters=(0,16)"),
            ("cnn2", "filters=(8.5,16)"),
            ("cnn2", f"filters=({HUGE},16)"),
            ("cnn2", "dense_units=0"),
            ("cnn2", "dense_units=1.5"),
            ("resnet18", "stem=imagnet"),
            ("resnet18", "conventions=jax"),
            ("resnet18", "width=0"),
            ("resnet18", "width=none"),
            ("resnet50", "conventions=jax"),
            ("resnet50", "stem=imagnet"),
            ("xception", "widths=(8,8)"),
            ("inception_resnet", "features=(1,2)"),
            ("vgg16", "padding=FULL"),
            ("vgg16", "layers=(64,)"),
            ("vgg16", "layers=('F',-5)"),
            ("vgg16", "layers=('Q','F')"),
            ("vgg16", "layers=64"),
            ("vgg16", "layers=(8,'A','F')"),
            ("vgg16", "dropout=0.5"),
            ("simple", "dropout=1.0"),
        )
    ),
    # Flags.
    *(
        ("--unknown",), ("--confg.seed=1",), ("--num_epochs=1",), ("seed=1",), ("-x",), (LONG,),
        (f"--{LONG}",), ("--workdir=",), ("--workdir",), ("--profile=maybe",),
        ("--noconfig.seed",), ("--config=configs/cnn3.py",), ("x", "y"),
        ("--workdir", "/dev/null/x"), ("--workdir", LONG),
    ),
]  # fmt: skip

# Wrong augmentations, for config.augment.ops, cifar_jax.augment and benchmarks.augmentation.
LINES = [
    *("flop", f"{LONG}", "crop(4", "crop(padding=x)", "flip.x", "crop(-1)", "crop('a')", "crop()("),
    *("crop(4, 'mirror')", "crop(33)", f"crop({HUGE})", "translate(1.5)", "flip(2)", "flip(-0.1)"),
    *("flip(None)", "flip(True)", "flip('half')", "flip(1e999)", "flip(0.5, 0.5)", "flip(p=0.5)"),
    *("flip|", "|flip", "flip||flip", "|", "flip flip", "flip;crop", "flip|crop(", "flip|crop()()"),
    *("crop(0)", "affine()", "shift(0,0)", "rotation(0)", "autocontrast(0)", "posterize(8)"),
    *("shift(3)", "rotation(270)", "shear(90)", "zoom(1)", "shift(fill='edge')", "affine(nan)"),
    *("brightness(1.2, 0.8)", "contrast(-1)", "channel_shift(256)", "posterize(0)"),
    *("solarize(300)", "shift|equalize", "randaugment(2, 31)", "cutout(8, fill=(0, 0))"),
    *("cutout(-1)", "cutout([])"),
    *("random_erasing(0.5, 0.2)", "random_erasing(0.5, (0.3, 0.1))", "random_erasing(value=999)"),
    *("mixup(0)", "cutmix(nan)", "mixup(0.2)|cutmix", "mixup('a')", "cutmix(1, 2)"),
]  # fmt: skip

# A wrong line for get_config in each config file that `folder` writes.
FILES = {
    "seed": "config.batch_size = '10'",
    "set": "config.optim.step_epochs = {3, 5}",
    "function": "config.optim.eps = print",
    "group": "config.optim = 3",
    "none": "config.num_epochs = None",
    "nan": "config.optim.eps = float('nan')",
    "missing": "del config.optim.rise",
    "read": "config.lr",
    "cycle": "config.model = config",
    "key": "config[3] = 4",
    "long": "setattr(config, 5000 * 'x', 1)",
    "value": "config.augment.ops = 5000 * 'flop'",
    "model_set": "config.model.dropout = {0.1}",
    "model_function": "config.model.dropout = print",
    "zero": "1 / 0",
    "name": "config.seed = true",
    "call": "base.no_such()",
    "exit": "exit(0)",
}
TEXTS = {
    "empty": "",
    "exits": "import sys; sys.exit(0)",
    "number": "get_config = 3",
    "argument": "def get_config(x): pass",
    "nothing": "def get_config(): pass",
    "dict": "def get_config(): return {}",
    "syntax": "def get_config(:",
    "import": "import nowhere",
    "null": "\0",
    "raises": "raise Exception",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with configs/, and with files that are wrong in different ways."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "configs").symlink_to(tiny.ROOT / "configs")
    (folder / "file").write_text("text")
    (folder / "folder").mkdir()
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    begin = "from cifar_jax.config import base\ndef get_config():\n    config = base.get_config()\n"
    for name, line in FILES.items():
        (folder / f"{name}.py").write_text(f"{begin}    {line}\n    return config\n")
    for name, text in TEXTS.items():
        (folder / f"{name}.py").write_text(text)
    for name, environment in (("damaged", "{"), ("list", []), ("small", {"small": True})):
        (folder / name).mkdir()
        text = environment if name == "damaged" else json.dumps(environment)
        (folder / name / "environment.json").write_text(text)
    return folder


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Returns a function that runs a command in the folder and checks how it fails."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("cifar_jax.experiment.load_data", accepted)
    for name in ("throughput.measure.measure_network", "augmentation.measure.measure_lines"):
        monkeypatch.setattr(f"benchmarks.{name}", accepted)
    if importlib.util.find_spec("torch"):
        monkeypatch.setattr("benchmarks.versus_torch.compare.compare_network", accepted)
    for name in ("accuracy.sequential.train_all", "accuracy.jobs.train_all"):
        monkeypatch.setattr(f"benchmarks.{name}", accepted)
    monkeypatch.setattr("benchmarks.gpu_suite.suite.Suite.call", accepted)

    def run(module, *args):
        main = import_module(module).main
        takes_program = module not in ("cifar_jax.augment.__main__", "benchmarks.page")
        takes_program &= module not in ("cifar_jax.report.__main__", "cifar_jax.prepare")
        takes_program &= module not in ("cifar_jax.predict", "cifar_jax.export")
        try:
            code = main([""] * takes_program + list(args))
        except SystemExit as stopped:
            code = stopped.code
        printed = capsys.readouterr()
        assert code in (1, 2), f"exit code {code}: {printed.out}{printed.err}"
        # argparse shows the usage first.
        shown = printed.err[printed.err.rfind("error: ") :] if code == 2 else printed.err
        shown = "".join(line for line in shown.splitlines(True) if not line.startswith("note: "))
        assert "error: " in shown and "Traceback" not in printed.out + printed.err
        assert len(shown.splitlines()) <= 3 and len(shown) <= 900, shown
        return shown

    return run


def accepted(*args, **kwargs):
    """Replaces what would train or measure."""
    raise AssertionError("a wrong input was accepted")


def names_input(shown, *texts):
    """Returns whether a message has a word of the last two texts, or a longer one of the last four.

    Short words, and the texts before, could be there by chance.
    """
    near, last = (" ".join(t.removeprefix("--config.") for t in texts[-n:]) for n in (4, 2))
    words = re.findall(r"\w{3,}", near) + re.findall(r"\w+|^=", last)
    return any(re.search(rf"(?<!\w)(?<!\d\.){re.escape(word[:10])}", shown) for word in words)


def names(cases):
    return [" ".join(case)[:60] if isinstance(case, tuple) else case[:60] for case in cases]


@pytest.mark.parametrize("flags", FIELDS, ids=names(FIELDS))
def test_config_on_the_command_line(command, flags):
    shown = command("cifar_jax.main", *QUICK, *flags)
    assert names_input(shown, *flags)


@pytest.mark.parametrize("line", LINES, ids=names(LINES))
def test_augmentations(command, line):
    field = "mix" if line.startswith(("mixup", "cutmix")) else "ops"
    for shown in (
        command("cifar_jax.main", *QUICK, f"--config.augment.{field}={line}"),
        command("cifar_jax.augment.__main__", "sheet.png", "--ops", line),
        command("benchmarks.augmentation.__main__", line, "--out", "out.jsonl"),
    ):
        assert names_input(shown, line) or line == "|"


@pytest.mark.parametrize("name", [*FILES, *TEXTS])
def test_config_files(command, name):
    shown = command("cifar_jax.main", "--config", f"{name}.py")
    assert f"{name}.py" in shown or name in ("value", "model_set", "model_function")


OTHERS = [
    ("cifar_jax.main",),
    ("cifar_jax.main", "configs/quickstart.py"),
    *(
        ("cifar_jax.main", "--config", path)
        for path in ("cnn3", "configs", "configs/cnn4", "file", "nothing.py", LONG, "", "run")
    ),
    *(
        ("cifar_jax.lr_range_test", *QUICK, *flags)
        for flags in (
            ("--from=0",),
            ("--from=nan",),
            ("--to=inf",),
            ("--from=1", "--to=0.1"),
            ("--from=x",),
            ("--to=1e39",),
            ("--epochs=0",),
            ("--epochs=x",),
            (f"--epochs={HUGE}",),
            ("--by=week",),
            ("--by=epoch", "--epochs=3"),
            ("--workdir=run",),
            ("--workdir=file",),
            ("--unknown=1",),
            ("--config.optim.lr=1",),
            ("--config.augment.ops=flip|",),
            ("extra",),
        )
    ),
    *(
        ("cifar_jax.search", *QUICK, "--config.search.space=seed in {1, 2}", *flags)
        for flags in (
            ("--config.search.space=",),
            ("--config.search.space=seed in {}",),
            ("--config.search.space=optim.lr in {1.0}",),
            (f"--config.search.space={LONG} in {{1}}",),
            (f"--config.search.space=seed in {{{HUGE}}}",),
            ("--config.search.space=optim.eps in log(1, 1e-3)",),
            ("--config.search.space=batch_size in {'large'}",),
            ("--config.search.sampler=grid",),
            ("--config.search.pruner=asha",),
            ("--config.search.min_epochs=99",),
            ("--config.data.val_fraction=0", "--config.selected_on=last"),
            ("--config.selected_on=train",),
            ("--trials=0",),
            ("--trials=x",),
            ("--storage=nonsense",),
            ("--workdir=file",),
            ("--workdir=run",),
            ("--unknown=1",),
            ("extra",),
        )
    ),
    *(
        ("cifar_jax.augment.__main__", *flags)
        for flags in (
            (),
            ("sheet",),
            ("sheet.foo",),
            ("folder",),
            ("file/sheet.png",),
            ("sheet.png", "--seed", "-1"),
            ("sheet.png", "--seed", HUGE),
            ("sheet.png", "--seed", "x"),
            ("sheet.png", "--ops", ""),
            ("sheet.png", "--data", "mnist"),
            ("sheet.png", "--unknown"),
            ("sheet.png", "extra"),
        )
    ),
    *(
        ("benchmarks.accuracy.__main__", *flags)
        for flags in (
            ("nothing/*",),
            (LONG,),
            ("cnn3", "--seeds", "0"),
            ("cnn3", "--seeds", HUGE),
            ("cnn3", "--seeds", "x"),
            ("cnn3", "--epochs", "0"),
            ("cnn3", "--jobs", "0"),
            ("cnn3", "--jobs", HUGE),
            ("cnn3", "--limit", "-1"),
            ("cnn3", "--first_seed", "-1"),
            ("cnn3", "--first_seed", "4294967296"),
            ("cnn3", "--minutes", "nan"),
            ("cnn3", "--minutes", "0"),
            ("cnn3", "--minutes", "-1"),
            ("cnn3", "--out", "file"),
            ("cnn3", "--out", "file/x"),
            ("cnn3", "--runs", "file"),
            ("cnn3", "--unknown"),
        )
    ),
    *(
        ("benchmarks.throughput.__main__", *flags)
        for flags in (
            ("resnet81",),
            (LONG,),
            ("cnn_small:99999999999",),
            (f"cnn_small:{LONG.replace('x', '9')}",),
            ("cnn3:0",),
            ("cnn3:-1",),
            ("cnn3:x",),
            ("cnn3:",),
            ("cnn3:8:float16",),
            ("cnn3:8:float32:1",),
            ("cnn3", "--seconds", "0"),
            ("cnn3", "--seconds", "nan"),
            ("cnn3", "--seconds", "1e300"),
            ("cnn3", "--seconds", "x"),
            ("cnn3", "--out", "folder"),
            ("cnn3", "--out", "file/x"),
            ("cnn3", "--unknown"),
        )
    ),
    *(
        ("benchmarks.augmentation.__main__", *flags)
        for flags in (
            ("",),
            ("flip", "--batch_size", "0"),
            ("flip", "--batch_size", "999999999999"),
            ("flip", "--batch_size", "x"),
            ("flip", "--rounds", "0"),
            ("flip", "--rounds", HUGE),
            ("flip", "--seconds", "nan"),
            ("flip", "--seconds", "inf"),
            ("flip", "--out", "folder"),
        )
    ),
    *(
        ("benchmarks.epoch.__main__", *flags, "--synthetic")
        for flags in (
            ("torch",),
            ("cifar_jax",),
            ("cifar_jax", "cifar_jax"),
            ("cifar_jax", "troch"),
            ("cifar_jax", LONG),
            ("cifar_jax", "torch", "--rounds", "0"),
            ("cifar_jax", "torch", "--limit", "-1"),
            ("cifar_jax", "torch", "--limit", "x"),
            ("cifar_jax", "torch", "--out", "folder"),
            ("cifar_jax", "torch"),
        )
    ),
    *(
        ("benchmarks.gpu_suite.__main__", *flags)
        for flags in (
            (),
            ("file",),
            ("damaged",),
            ("list",),
            ("small",),
            ("damaged", "--collect"),
            ("folder", "--collect"),
            ("small", "--collect"),
            ("out", "--minutes", "-1"),
            ("out", "--minutes", "nan"),
            ("out", "--minutes", "x"),
            ("out", "--seeds", "0"),
            ("out", "--work", "file"),
            ("out", "--only", "everything"),
        )
    ),
    *(
        ("benchmarks.versus_torch.__main__", *flags)
        for flags in (
            ("cnn_small:99999999999",),
            ("resnet19",),
            ("resnet18 imagenet",),
            (LONG,),
            ("cnn3:8:float16",),
            ("cnn3", "--rounds", "0"),
            ("cnn3", "--steps", "-1"),
            ("cnn3", "--steps", HUGE),
            ("cnn3", "--settings", "torch_fast"),
            ("cnn3", "--out", "folder"),
        )
    ),
    *(
        ("cifar_jax.predict", *flags)
        for flags in (
            (),
            ("--workdir", "run"),
            ("--workdir", "nothing", "image.png"),
            ("--workdir", "file", "image.png"),
            ("--weights", LONG, "image.png"),
            ("--weights", "folder", "image.png"),
            ("--workdir", LONG, "image.png"),
            ("--workdir", "run", "--weights", "file", "image.png"),
            ("image.png",),
            ("--unknown", "image.png"),
        )
    ),
    *(
        ("cifar_jax.export", *flags)
        for flags in (
            (),
            ("--workdir", "run"),
            ("--workdir", "run", "--format", "onnx"),
            ("--workdir", "run", "--format", "safetensors"),
            ("--workdir", "nothing", "--format", "stablehlo"),
            ("--workdir", "run", "--format", "stablehlo", "--out", "folder"),
            ("--workdir", "run", "--format", "stablehlo", "--out", "config.json"),
            ("--workdir", "run", "--format", "stablehlo", "--out", "nothing/a.stablehlo"),
            ("--workdir", LONG, "--format", "stablehlo"),
        )
    ),
    *(
        ("cifar_jax.prepare", *flags)
        for flags in (
            (),
            ("mnist",),
            (LONG,),
            ("cifar10", "--source", "nothing", "--data_dir", "data"),
            ("cifar10", "--source", "file", "--data_dir", "data"),
            ("cifar10", "--source", "folder", "--data_dir", "data"),
            ("cifar10", "--data_dir", LONG),
            ("cifar10", "--unknown"),
        )
    ),
    *(
        ("cifar_jax.report.__main__", *flags)
        for flags in (
            (),
            ("nothing",),
            ("file",),
            ("folder",),
            ("nothing", "folder"),
            ("folder", "--unknown"),
        )
    ),
    ("benchmarks.table.__main__", "extra"),
    ("benchmarks.table.__main__", "--unknown"),
    ("benchmarks.page", "--out", "folder"),
    ("benchmarks.page", "--out", "file"),
    ("benchmarks.page", "--unknown"),
]


@pytest.mark.parametrize("case", OTHERS, ids=names(OTHERS))
def test_command_lines(command, case):
    if case[0].startswith("benchmarks.versus_torch."):
        pytest.importorskip("torch")  # or else, that is what the command says first
    if case[0] == "cifar_jax.search":
        pytest.importorskip("optuna")  # likewise
    shown = command(*case)
    assert (
        names_input(shown, *case[1:]) or not any(case[1:]) or re.search(r"(are|is) required", shown)
    )


def test_a_missing_package_is_named_with_its_command(command, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for module in ("benchmarks.versus_torch.__main__", "benchmarks.epoch.__main__"):
        assert "make reference" in command(module, "--rounds", "1", "--out", "out.jsonl")
