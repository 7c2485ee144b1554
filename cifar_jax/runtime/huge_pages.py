"""Lets large arrays use huge pages on Linux.

XLA's CPU client allocates the temporaries of every call again, hundreds of MiB for a ResNet. With
pages of 4 KiB, each page costs a page fault and TLB misses are frequent; pages of 2 MiB avoid both.
The C library requests them if GLIBC_TUNABLES, which it reads when a process starts, says so.
"""

import contextlib
import itertools
import os
import signal
import sys
from pathlib import Path

_SETTING = "glibc.malloc.hugetlb"
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Restarts this program in the same process, so that large arrays use huge pages.

    Does nothing if the system always or never provides huge pages, if GLIBC_TUNABLES already sets
    glibc.malloc.hugetlb (0 turns them off), or if this program was not started by `python -m`, as
    in a notebook, debugger or profiler. Call it before slow imports.
    """
    before = os.environ.get("GLIBC_TUNABLES", "")
    if not _can_request() or not _is_the_command() or _SETTING in before:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    # execv would lose a signal that has arrived, but whose handler has not been called yet.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (before, f"{_SETTING}=1")))
    with contextlib.suppress(OSError):  # continue without huge pages
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    os.environ["GLIBC_TUNABLES"] = before
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _can_request() -> bool:
    """Returns whether the system provides huge pages on request and glibc can request them."""
    try:
        is_on_request = "[madvise]" in _POLICY.read_text()
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return is_on_request and name == "glibc" and [int(n) for n in version.split(".")] >= [2, 35]
    except (OSError, ValueError):
        return False


def _is_the_command() -> bool:
    """Returns whether `python -m` started this program, without a debugger or profiler."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    pairs = itertools.pairwise(sys.orig_argv)
    # `python -m package` runs package.__main__.
    is_command = spec is not None and ("-m", spec.name.removesuffix(".__main__")) in pairs
    return is_command and bool(sys.executable) and sys.gettrace() is None
