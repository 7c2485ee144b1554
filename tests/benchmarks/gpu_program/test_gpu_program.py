import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import tiny

from benchmarks.gpu_program.__main__ import main


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_program", *map(str, args)],
        cwd=tiny.ROOT,
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_an_unknown_case_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # restores it afterwards
    assert main(["gpu_program", "cnn33", "--out", str(tmp_path / "out.jsonl")]) == 1
    assert "did you mean 'cnn3'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    find_spec("jax_plugins") is not None and find_spec("jax_plugins.xla_cuda13") is not None,
    reason="the CUDA plugin is installed",
)
def test_a_missing_plugin_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    assert main(["gpu_program", "cnn_small", "--out", str(tmp_path / "out.jsonl")]) == 1
    assert "requirements-gpu-program.txt" in capsys.readouterr().err


@pytest.mark.skipif(
    find_spec("jax_plugins") is None or find_spec("jax_plugins.xla_cuda13") is None,
    reason="needs requirements-gpu-program.txt",
)
def test_a_call_of_a_small_network_is_one_graph(tmp_path):
    out = tmp_path / "out.jsonl"
    results = [command("cnn_small", *flags, "--out", out) for flags in ((), ("--no_cuda_graph",))]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    graph, default = map(json.loads, out.read_text().splitlines())
    assert graph["launches_per_step"] == 0 < default["launches_per_step"]
    # The condition of the loop is a kernel too.
    assert graph["kernels"] == default["kernels"] == 1 + sum(graph["kernels_by_kind"].values())
    # Two forward convolutions, two kernel gradients and one input gradient.
    assert graph["kernels_by_kind"]["convolution"] == 5
    assert 0.04e9 < graph["flops"] < 0.07e9
