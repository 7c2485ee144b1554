import os
import subprocess
import sys

import pytest
import tiny

from cifar_jax.runtime import huge_pages

PROGRAM = """
import os, sys
from pathlib import Path
from cifar_jax.runtime import huge_pages
huge_pages._POLICY = Path(sys.argv[1])
print("start", os.getpid(), flush=True)
huge_pages.restart_with_huge_pages()
print("end", os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[2:])
import numpy
ones = numpy.ones(32 * 2**20, numpy.uint8)
print(next(l for l in Path("/proc/self/smaps_rollup").read_text().splitlines() if "AnonHuge" in l))
"""


def run(tmp_path, policy, tunables, how=("-m", "program"), module="program.py"):
    """Returns the lines printed by a program that requests huge pages."""
    file = tmp_path / "enabled"
    file.write_text(policy)
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text(PROGRAM)
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    env |= {"GLIBC_TUNABLES": tunables} if tunables else {}
    env["PYTHONPATH"] = f"{tiny.ROOT}:{tmp_path}"
    argv = [sys.executable, "-X", "utf8", *how, str(file), "--flag=a b"]
    return subprocess.run(
        argv, cwd=tiny.ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.parametrize("tunables", ["", "glibc.malloc.arena_max=2"])
def test_program_restarts_once_in_the_same_process(tmp_path, tunables):
    first, second, end, pages = run(tmp_path, "always [madvise] never\n", tunables)
    assert first == second == f"start {end.split()[1]}"
    expected = ":".join(filter(None, (tunables, "glibc.malloc.hugetlb=1")))
    assert end.split(maxsplit=2)[2] == f"{expected} ['--flag=a b']"
    if "[never]" not in huge_pages._POLICY.read_text():
        assert int(pages.split()[1]) >= 2048  # KiB: at least one huge page


def test_a_package_restarts_like_a_module(tmp_path):
    lines = run(tmp_path, "always [madvise] never\n", "", module="program/__main__.py")
    first, second, end, _ = lines
    assert first == second and end.endswith("glibc.malloc.hugetlb=1 ['--flag=a b']")


@pytest.mark.parametrize(
    ("policy", "tunables"),
    [
        ("[always] madvise never\n", ""),
        ("always madvise [never]\n", ""),
        ("always [madvise] never\n", "glibc.malloc.hugetlb=0"),
    ],
)
def test_program_continues_if_a_restart_would_change_nothing(tmp_path, policy, tunables):
    _, end, _ = run(tmp_path, policy, tunables)
    assert end.split()[2] == (tunables or "None")


def test_program_continues_if_python_m_did_not_start_it(tmp_path):
    """Notebooks and debuggers, for example, run it in their own process."""
    host = "import runpy; runpy.run_module('program', run_name='__main__', alter_sys=True)"
    _, end, _ = run(tmp_path, "always [madvise] never\n", "", how=("-c", host))
    assert end.split()[2] == "None"


def test_program_continues_if_it_cannot_restart(monkeypatch, tmp_path):
    def execv(*_):
        raise PermissionError

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(huge_pages, "_can_request", lambda: True)
    monkeypatch.setattr(huge_pages, "_is_the_command", lambda: True)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    huge_pages.restart_with_huge_pages()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2"


def test_program_continues_without_a_policy_file(monkeypatch, tmp_path):
    monkeypatch.setattr(huge_pages, "_POLICY", tmp_path / "missing")
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("restarted"))
    huge_pages.restart_with_huge_pages()
