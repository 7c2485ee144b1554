"""Checks that imports go one way, from the commands down."""

import ast
import re
import sys
import tomllib

import tiny

# Each part may import its own modules and the layers below, but not other parts of its layer. A
# module that is not listed belongs to its package.
LAYERS = [
    {"main", "prepare", "predict", "export", "lr_range_test", "augment.__main__"}
    | {"report.__main__", "search"},
    {"trained", "study"},
    {"train", "report", "range_test"},
    {"trainer", "final_evaluation"},
    {"run_state"},
    {"experiment", "loop"},
    {"transfer"},
    {"evaluate", "gpu_graph", "agreement"},
    {"engine"},
    {"step", "run", "clock"},
    {"config"},
    {"models", "augment", "optim", "losses", "metrics", "data"},
    {"ops", "run.atomic", "parameter_table", "tree_paths"},
    {"image_file", "runtime"},
    {"errors", "selection"},
]
# Import names of the packages in requirements.txt and requirements-{trackers,transfer,search}.txt,
# and of their dependencies: ml_dtypes and scipy of jax, and sqlalchemy of optuna. PyTorch and
# TensorFlow are not among them, nor are configs, benchmarks and tests, which are not installed.
LIBRARIES = {
    *("PIL", "absl", "clu", "flatbuffers", "flax", "h5py", "huggingface_hub", "jax", "jinja2"),
    *("matplotlib", "ml_collections", "ml_dtypes", "mlflow", "numpy", "optax", "optuna", "orbax"),
    *("rich", "safetensors", "scipy", "sqlalchemy", "tensorboardX", "tensorflow_datasets", "wandb"),
}
PACKAGE = tiny.ROOT / "cifar_jax"


def module_name(path):
    """Returns "run.atomic" for cifar_jax/run/atomic.py, "run" for cifar_jax/run/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES.pop("")  # cifar_jax/__init__.py


def part_of(module):
    """Returns the longest name in LAYERS that is a prefix of a module's name."""
    names = [n for n in set().union(*LAYERS) if f"{module}.".startswith(f"{n}.")]
    assert names, f"{module} has no layer"
    return max(names, key=len)


def layer_of(part):
    return next(i for i, parts in enumerate(LAYERS) if part in parts)


def imports(path):
    """Yields the dotted names that a file imports, at any level of nesting."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert not re.search("import_module|__import__", called), f"{path} hides an import"


def imported_modules(path):
    """Yields the imported modules of cifar_jax: "errors" for "cifar_jax.errors.UserError"."""
    for name in imports(path):
        package, _, name = name.partition(".")
        if package == "cifar_jax" and name != "__version__":
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            yield name


def test_imports_go_down():
    wrong = []
    for module, path in MODULES.items():
        part = part_of(module)
        for name in imported_modules(path):
            # An empty name is cifar_jax itself or a module that does not exist.
            other = name and part_of(name)
            if not (name and (other == part or layer_of(other) > layer_of(part))):
                wrong.append(f"{module} imports {name or 'cifar_jax or a missing module'}")
    assert not wrong, "\n".join(wrong)


def test_only_known_libraries_are_imported():
    known = LIBRARIES | sys.stdlib_module_names | {"cifar_jax"}
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports(path)
        if name.partition(".")[0] not in known
    ]
    assert not wrong, "\n".join(wrong)


def test_every_layer_exists():
    for part in set().union(*LAYERS):
        assert part in MODULES, f"{part} does not exist"


# The modules that networks may import; networks do not import each other.
BUILDING_BLOCKS = {"models.layers", "models.dirac", "models.shake_drop", "models.whitening"}
BUILDING_BLOCKS |= {"models.stochastic_depth", "ops.pooling", "errors"}


def test_networks_import_only_their_layers():
    for path in (PACKAGE / "models").glob("*.py"):
        if path.stem == "__init__" or f"models.{path.stem}" in BUILDING_BLOCKS:
            continue
        # Flax's own layers are several times slower on a CPU.
        assert not re.search(r"nnx\.(Conv|Linear|BatchNorm|Dropout)\(", path.read_text()), path.name
        assert set(imported_modules(path)) <= BUILDING_BLOCKS, path.name


def test_every_folder_is_installed():
    settings = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())
    folders = {path.parent for path in PACKAGE.rglob("*") if path.suffix in (".py", ".html")}
    names = {".".join(folder.relative_to(tiny.ROOT).parts) for folder in folders}
    assert names == set(settings["tool"]["setuptools"]["packages"])
