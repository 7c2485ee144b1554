import importlib.util
import runpy
import subprocess
import sys

import pytest
import tiny

import benchmarks
from cifar_jax.runtime import entry

# Whether each command that trains or times may reuse compiled programs.
USES_CACHE = {
    "accuracy": True,
    "augmentation": True,
    "epoch": False,
    "gpu_program": False,
    "scaling": False,
    "search_samplers": True,
    "speedrun": True,
    "throughput": False,
    "versus_torch": False,
}


@pytest.mark.parametrize("name", USES_CACHE)
def test_a_command_starts_like_training(name, monkeypatch):
    options = []
    monkeypatch.setattr(entry, "run", lambda main, **kwargs: options.append(kwargs))
    if hasattr(benchmarks, name):  # so that what run_module imports again is replaced at the end
        monkeypatch.setattr(benchmarks, name, getattr(benchmarks, name))
    for module in (f"benchmarks.{name}.__main__", f"benchmarks.{name}"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    assert [o.get("use_cache", True) for o in options] == [USES_CACHE[name]]


def test_commands_import_jax_only_after_the_restart_for_huge_pages():
    code = ["import sys"]
    for name in USES_CACHE:
        is_package = importlib.util.find_spec(f"benchmarks.{name}").submodule_search_locations
        module = f"benchmarks.{name}.__main__" if is_package else f"benchmarks.{name}"
        code.append(f"import {module}; assert 'jax' not in sys.modules, '{module}'")
    subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=tiny.ROOT, check=True)
