import jax
import pytest

from cifar_jax.runtime import compiler


def test_compiler_options_that_jaxlib_does_not_know_are_left_out(monkeypatch, capsys):
    known = dict(compiler._CPU_OPTIONS)
    monkeypatch.setitem(compiler._CPU_OPTIONS, "xla_cpu_no_such_option", True)
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    tried, compile_it = [], lowered.compile
    monkeypatch.setattr(
        lowered, "compile", lambda **given: tried.append(given) or compile_it(**given)
    )
    assert compiler.compile_for_backend(lowered)(1.0) == 2.0
    assert [given["compiler_options"] for given in tried] == [compiler._CPU_OPTIONS, known]
    assert "compiling without xla_cpu_no_such_option" in capsys.readouterr().err


def test_other_failures_of_the_compiler_are_raised():
    class Lowered:
        def compile(self, compiler_options):
            tried.append(compiler_options)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    tried = []
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        compiler.compile_for_backend(Lowered())
    assert len(tried) == 1


def test_cuda_graphs_hold_convolutions_and_loops_if_requested(monkeypatch):
    class Lowered:
        def compile(self, compiler_options):
            return compiler_options

    loaded = []
    monkeypatch.setattr(compiler, "_load_cudnn", lambda: loaded.append(True))
    assert compiler.compile_for_backend(Lowered(), cuda_graph=True) == compiler._CPU_OPTIONS
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler.compile_for_backend(Lowered()) is None and not loaded
    options = compiler.compile_for_backend(Lowered(), cuda_graph=True)
    commands = options["xla_gpu_enable_command_buffer"].split(",")
    assert {"FUSION", "CUDNN", "CONVOLUTION", "WHILE"} <= set(commands)
    assert loaded  # in advance: cuDNN cannot be loaded while a graph is captured


def test_cudnn_is_loaded_by_a_convolution_on_every_device(monkeypatch):
    used = []
    real = jax.lax.conv_general_dilated

    def convolve(images, *args, **kwargs):
        used.extend(images.devices())
        return real(images, *args, **kwargs)

    monkeypatch.setattr(jax.lax, "conv_general_dilated", convolve)
    compiler._load_cudnn.__wrapped__()
    assert used == jax.local_devices()
