"""Traces a few training steps with jax.profiler, for TensorBoard, XProf and Perfetto."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax

from cifar_jax.runtime import distributed

# The first call warms up the device, and the second one is short if steps_per_call is automatic.
_CALL = 3
_MAX_STEPS = 10  # so that the trace of a small network stays small too

EngineT = TypeVar("EngineT")  # cifar_jax.engine.Engine, which this layer does not import


@contextlib.contextmanager
def traced(engine: EngineT, folder: Path) -> Iterator[EngineT]:
    """Yields an engine that writes a trace of up to 10 steps of its third call.

    Compilation is not part of the trace. Results are unaffected, but writing the trace counts as
    training time.

    Args:
      engine: The engine to trace.
      folder: Folder for the trace. A new subfolder, named after the time, is created in it.
    """
    tracer = _Tracer(engine, folder)
    yield tracer
    if tracer.num_calls < _CALL:
        print(f"  no profile            fewer than {_CALL} calls to the device were left")


class _Tracer:
    """Stands in for an engine; see `traced`."""

    def __init__(self, engine: Any, folder: Path):
        self._engine, self._folder, self.num_calls = engine, folder, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, state: Any, metrics: Any, plan: Any, num_steps: int) -> tuple[Any, Any]:
        """Takes steps like Engine.run, and traces the first ones of the third call."""
        self.num_calls += 1
        if self.num_calls != _CALL:
            return self._engine.run(state, metrics, plan, num_steps)
        num_traced = min(num_steps, _MAX_STEPS)
        jax.block_until_ready(state)  # the previous call is not part of the trace
        # The other processes of a run take the same calls.
        is_main = distributed.is_main()
        with jax.profiler.trace(self._folder) if is_main else contextlib.nullcontext():
            result = self._engine.run(state, metrics, plan, num_traced)
            state, metrics = jax.block_until_ready(result)
        label = f"trace of {num_traced} steps in"
        print(f"  {label:<22}{self._folder}")
        if num_steps > num_traced:
            state, metrics = self._engine.run(state, metrics, plan, num_steps - num_traced)
        return state, metrics
