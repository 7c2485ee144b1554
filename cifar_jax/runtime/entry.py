"""The common start of commands that train or measure, so that their timings are comparable."""

import sys
from collections.abc import Callable
from typing import NoReturn

from cifar_jax.runtime import compilation_cache
from cifar_jax.runtime.huge_pages import restart_with_huge_pages
from cifar_jax.runtime.signals import BEFORE_TRAINING, exit_on_signals


def run(
    main: Callable[[list[str]], int],
    *,
    use_cache: bool = True,
    stop_message: bytes = BEFORE_TRAINING,
) -> NoReturn:
    """Prepares this process, runs a command in it and exits with the command's exit code.

    Restarts the program with huge pages, silences libraries, exits on signals until the command
    handles them, and configures the compilation cache. Does not import jax, which takes a
    second, so that an invalid command line fails without that delay. For the same reason, and
    because a restart would import it twice, the command's module imports jax inside `main`.

    Args:
      main: The command, which takes sys.argv and returns the exit code.
      use_cache: Whether to reuse compiled programs from disk; False for commands that measure how
        long compilation takes.
      stop_message: The line that a signal prints before it ends the process.
    """
    restart_with_huge_pages()
    silence_absl()
    exit_on_signals(stop_message)
    if use_cache:
        compilation_cache.use_users_folder()
    else:
        compilation_cache.turn_off()
    sys.exit(main(sys.argv))


def silence_absl() -> None:
    """Makes absl log only errors, because Orbax logs every file that it writes."""
    from absl import logging

    logging.set_verbosity(logging.ERROR)
