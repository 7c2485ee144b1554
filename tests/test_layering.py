"""Who may import whom: one way only, from the front doors down."""

import ast
import re
import tomllib

import pytest
import tiny

# Each floor may import the floors below it; rooms on one floor do not import each other.
FLOORS = [
    {"main", "prepare", "lr_range_test", "predict"},
    {"train", "report"},
    {"experiment", "workdir", "loop", "command_line"},
    {"evaluate", "trackers"},
    {"engine", "checkpoint", "writers", "summary", "preemption", "augment", "data", "optim"},
    {"step", "config"},
    {"losses", "metrics", "models", "environment", "atomic"},
    {"errors", "compilation_cache", "startup", "huge_pages"},
]
ROOMS = {path.stem if path.is_file() else path.name: path for path in
         (tiny.ROOT / "cifar_jax").iterdir()
         if path.name not in ("__init__.py", "__pycache__")}  # fmt: skip


def imports(path):
    """The rooms that the modules of a room import, anywhere in them."""
    found = set()
    for file in [path] if path.is_file() else path.glob("*.py"):
        if file.name == "__main__.py":  # a front door in the room's own folder
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("cifar_jax.")}
            assert not any(name.split(".")[0] in ("torch", "tensorflow") for name in names), file
    return found - {path.stem}


def test_every_room_has_a_floor():
    assert ROOMS.keys() == set().union(*FLOORS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down(room):
    floor = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
    below = set().union(*FLOORS[floor + 1 :])
    assert imports(ROOMS[room]) <= below


def test_networks_import_their_bricks_alone():
    for path in (tiny.ROOT / "cifar_jax" / "models").glob("*.py"):
        if path.stem in ("__init__", "layers", "conv", "dense", "stem", "strided", "winograd"):
            continue
        # Flax' own are several times slower on a CPU.
        assert not re.search(r"nnx\.(Conv|Linear|BatchNorm|Dropout)\(", path.read_text()), path.name
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("cifar_jax"):
                assert node.module in ("cifar_jax.models.layers", "cifar_jax.errors"), path.name


def test_every_folder_is_installed():
    settings = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())
    folders = {path.parent for path in (tiny.ROOT / "cifar_jax").rglob("*.py")}
    names = {".".join(folder.relative_to(tiny.ROOT).parts) for folder in folders}
    assert names == set(settings["tool"]["setuptools"]["packages"])
