import os
import subprocess
import sys

import pytest
import tiny

from cifar_jax import huge_pages

PROGRAM = """
import os, sys
from cifar_jax import huge_pages
huge_pages._POLICY = __import__("pathlib").Path(sys.argv[1])
print("start", os.getpid(), flush=True)
huge_pages.restart_with_huge_pages()
print("end", os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[2:])
"""


def run(tmp_path, policy, tunables):
    """The lines of a program that asks for huge pages and prints what it finds."""
    file = tmp_path / "enabled"
    file.write_text(policy)
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    env |= {"GLIBC_TUNABLES": tunables} if tunables else {}
    argv = [sys.executable, "-X", "utf8", "-c", PROGRAM, str(file), "--flag=a b"]
    return subprocess.run(
        argv, cwd=tiny.ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.parametrize("tunables", ["", "glibc.malloc.arena_max=2"])
def test_the_program_starts_anew_once_in_the_same_process(tmp_path, tunables):
    first, second, end = run(tmp_path, "always [madvise] never\n", tunables)
    assert first == second == f"start {end.split()[1]}"
    expected = ":".join(filter(None, (tunables, "glibc.malloc.hugetlb=1")))
    assert end.split(maxsplit=2)[2] == f"{expected} ['--flag=a b']"


@pytest.mark.parametrize(
    ("policy", "tunables"),
    [
        ("[always] madvise never\n", ""),
        ("always madvise [never]\n", ""),
        ("always [madvise] never\n", "glibc.malloc.hugetlb=0"),
    ],
)
def test_it_goes_on_where_that_would_change_nothing(tmp_path, policy, tunables):
    _, end = run(tmp_path, policy, tunables)
    assert end.split()[2] == (tunables or "None")


def test_it_goes_on_where_there_is_no_policy(monkeypatch, tmp_path):
    monkeypatch.setattr(huge_pages, "_POLICY", tmp_path / "missing")
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started anew"))
    huge_pages.restart_with_huge_pages()
