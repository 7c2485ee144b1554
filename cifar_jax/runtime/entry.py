"""Starts and ends every command in the same way.

Signals are handled from the start of the process: until `run` or `run_tool` is called, by
cifar_jax/__init__.py.
"""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from cifar_jax.runtime import compilation_cache, output
from cifar_jax.runtime.huge_pages import restart_with_huge_pages
from cifar_jax.runtime.signals import BEFORE_TRAINING, exit_on_signals


def run(
    main: Callable[[list[str]], int],
    *,
    use_cache: bool = True,
    stop_message: bytes = BEFORE_TRAINING,
) -> NoReturn:
    """Runs a command that trains or measures, so that the timings of all are comparable.

    Exits on signals until the command handles them, restarts the program with huge pages, silences
    libraries, and configures the compilation cache. Does not import jax, which takes a second, so
    that an invalid command line fails without that delay. For the same reason, and because a
    restart would import it twice, the command's module imports jax inside `main`.

    Args:
      main: The command, which takes sys.argv and returns the exit code.
      use_cache: Whether to reuse compiled programs from disk; False for commands that measure how
        long compilation takes.
      stop_message: The line to print if a signal ends the process.
    """
    exit_on_signals(stop_message)
    output.install()
    restart_with_huge_pages()
    silence_libraries()
    if use_cache:
        compilation_cache.use_users_folder()
    else:
        compilation_cache.turn_off()
    _exit(lambda: main(sys.argv))


def run_tool(main: Callable[[], int], *, stop_message: bytes = b"stopped\n") -> NoReturn:
    """Runs a command that neither trains nor measures.

    Args:
      main: The command, which returns the exit code.
      stop_message: The line to print if a signal ends the process.
    """
    exit_on_signals(stop_message)
    output.install()
    silence_libraries()
    _exit(main)


def _exit(main: Callable[[], int]) -> NoReturn:
    """Runs a command and exits with its exit code, unless its output failed; see output.py."""
    try:
        code = main()
    except SystemExit as stop:  # raised by argparse
        code = stop.code
    except (RuntimeError, AssertionError):
        reason = _why_jax_has_no_device()
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        code = 1
    sys.exit(output.exit_code(code))


def _why_jax_has_no_device() -> str | None:
    """Returns why JAX cannot use the platform of $JAX_PLATFORMS, or None if that is not so."""
    platform = os.environ.get("JAX_PLATFORMS")
    if not platform or "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = str(error) or "there is no such device, or jaxlib does not support it"
        return f"JAX_PLATFORMS={platform} cannot be used: {reason}"
    return None


def silence_libraries() -> None:
    """Makes Orbax and TensorStore report errors only by raising exceptions.

    By default, Orbax logs every file that it writes. If one write or read of a checkpoint fails, as
    on a full disk, each of the others prints a traceback too, because nothing awaits its result and
    Orbax has closed its event loop.
    """
    import logging
    import types
    import warnings

    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    report = sys.unraisablehook

    def report_others(unraisable: "sys.UnraisableHookArgs") -> None:
        is_abandoned = isinstance(unraisable.object, types.CoroutineType)
        if not is_abandoned and str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_others
