"""Settings for all tests: eight virtual CPU devices, command line options and fixtures."""

import errno
import gc
import os
import signal
from importlib.metadata import version
from pathlib import Path

import pytest

# Set before jax is imported, so that one process can test one device and eight.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# LLVM's optimization takes half of the suite's time and has no benefit for tiny shapes. Tests with
# the fixture `optimized` compile as training does.
_XLA_FLAGS = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):
    # Each saves half or a quarter of the compilation. Newer versions do not know the first, and end
    # the process. By default, each program is compiled in up to 32 parts.
    _XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")
    _XLA_FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("XLA_FLAGS", " ".join(_XLA_FLAGS))
# Tests, and the processes that they start, compile the same few programs repeatedly.
CACHE = Path(__file__).resolve().parent.parent / ".pytest_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Keras writes its settings here when it is imported.
os.environ.setdefault("KERAS_HOME", str(CACHE / "keras"))


def pytest_addoption(parser):
    group = parser.getgroup("cifar_jax")
    group.addoption("--kills", type=int, default=2, help="Number of kills in tests/test_kill.py.")
    group.addoption(
        "--shapes", type=int, default=16, help="Number of random convolutions in tests/ops."
    )
    group.addoption(
        "--mutations", type=int, default=20, help="Number of damaged files per reader of data."
    )
    group.addoption(
        "--source",
        type=Path,
        help="Folder of the unpacked CIFAR archives.",
    )
    group.addoption(
        "--tfds", type=Path, help="TFDS directory to read the real images from, if it has them."
    )
    group.addoption("--weights", type=Path, help="Folder of ImageNet weights, for tests/transfer.")
    group.addoption(
        "--several_hosts",
        action="store_true",
        help="Whether to run the long tests of runs on several hosts.",
    )


def pytest_configure(config):
    if config.getoption("source"):
        import augmenting

        augmenting.source = config.getoption("source")


def pytest_collection_finish():
    """Lets the garbage collector skip what was imported, and run rarely: tracing is faster."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("real_images") and not config.getoption("source"):
            item.add_marker(pytest.mark.skip(reason="needs the real archives: --source FOLDER"))
        if item.get_closest_marker("several_hosts") and not config.getoption("several_hosts"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: --several_hosts"))


@pytest.fixture
def fill_the_disk(monkeypatch):
    """Returns a function; once it is called, what is written by Path's methods is incomplete."""

    def fill():
        for name in ("write_text", "write_bytes"):
            write = getattr(Path, name)

            def fail(path, content, write=write):
                write(path, content[:3])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(Path, name, fail)

    return fill


@pytest.fixture
def one_torch_thread():
    """Limits PyTorch to one thread: two can wait for each other forever on a busy machine."""
    torch = pytest.importorskip("torch")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def default_signals():
    """Lets the test and its processes receive signals even if pytest was started to ignore them."""
    ignored = [
        s
        for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(s) == signal.SIG_IGN
    ]
    for s in ignored:
        signal.signal(s, signal.SIG_DFL)
    yield
    for s in ignored:
        signal.signal(s, signal.SIG_IGN)


@pytest.fixture
def optimized(monkeypatch):
    """Lets `compile_for_backend` compile at the optimization level that is shipped."""
    from cifar_jax.runtime import compiler

    monkeypatch.setitem(compiler._CPU_OPTIONS, "xla_backend_optimization_level", 3)
    if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
        monkeypatch.setitem(compiler._CPU_OPTIONS, "xla_cpu_use_fusion_emitters", True)
        monkeypatch.setitem(compiler._CPU_OPTIONS, "xla_cpu_parallel_codegen_split_count", 32)


@pytest.fixture
def library_convolutions(monkeypatch):
    """Disables Winograd, because library convolutions are traced and compiled in half the time."""
    from cifar_jax.ops import winograd

    monkeypatch.setattr(winograd, "is_applicable", lambda *_: False)


@pytest.fixture
def untrained(monkeypatch):
    """Leaves training programs uncompiled, for tests that only initialize or evaluate networks."""
    from cifar_jax import engine

    monkeypatch.setattr(engine, "compile_for_backend", lambda *_: None)
    monkeypatch.setattr(engine, "_program_bytes", lambda program: 0)


@pytest.fixture
def blank_figures(monkeypatch):
    """Renders every figure blank: rendering takes most of the time of a page."""
    from cifar_jax.report import figures

    png = figures.png(figures.new((1, 1)))
    monkeypatch.setattr(figures, "png", lambda *_, **__: png)
    monkeypatch.setattr(figures, "svg", lambda *_: "<svg></svg>")


_experiments = {}


@pytest.fixture
def compiled_once(monkeypatch):
    """Lets runs that need the same program, on the same data and devices, share it.

    Their configs may differ in learning rates, seed and number of epochs. tests/test_reuse.py
    checks that such runs are bitwise those that compile their own programs.
    """
    from cifar_jax import experiment, models

    create = experiment.create

    def create_once(config, dataset, *, mesh):
        key = experiment.program_key(config) or config.to_json(), dataset.checksum, mesh
        key += (models.create,)  # tests replace it by tiny.create_network
        if key not in _experiments:
            _experiments[key] = create(config, dataset, mesh=mesh)
        return experiment.reused(_experiments[key], config)

    monkeypatch.setattr(experiment, "create", create_once)
