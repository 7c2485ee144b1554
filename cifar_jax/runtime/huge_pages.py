"""Large arrays in huge pages, on Linux.

XLA's CPU client takes the memory of a call's temporaries anew for each call, hundreds of MiB for a
ResNet, and the system hands it out in pages of 4 KiB: a page fault for each, and more misses of the
TLB than need be. Pages of 2 MiB spare both. The C library asks for them where a setting says so
that it reads as a process begins.
"""

import contextlib
import itertools
import os
import sys
from pathlib import Path

_SETTING = "glibc.malloc.hugetlb"
_POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Starts this program anew, in the same process, so that large arrays get huge pages.

    Does nothing where they come without asking or not at all, where GLIBC_TUNABLES says already
    whether to ask (glibc.malloc.hugetlb=0 is no), or where this program is not what `python -m`
    was asked to run: in a notebook, a debugger, a profiler. To be called before anything is
    imported that takes long.
    """
    before = os.environ.get("GLIBC_TUNABLES", "")
    if not _can_ask() or not _is_the_command() or _SETTING in before:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (before, f"{_SETTING}=1")))
    with contextlib.suppress(OSError):  # slower, then
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    os.environ["GLIBC_TUNABLES"] = before


def _can_ask() -> bool:
    """Returns whether the system gives huge pages to those who ask, and the C library can."""
    try:
        is_given = "[madvise]" in _POLICY.read_text()
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return is_given and name == "glibc" and [int(n) for n in version.split(".")] >= [2, 35]
    except (OSError, ValueError):
        return False


def _is_the_command() -> bool:
    """Returns whether `python -m` was asked to run what runs now, and nobody watches it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    asked = itertools.pairwise(sys.orig_argv)
    is_asked = spec is not None and ("-m", spec.name) in asked
    return is_asked and bool(sys.executable) and sys.gettrace() is None
