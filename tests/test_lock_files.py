"""Checks the files in requirements-lock/, which `make lock` writes, without a network."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import tiny
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCK_FILES = sorted((tiny.ROOT / "requirements-lock").iterdir())


def read_lock(text: str) -> dict[str, tuple[Version, list[str]]]:
    """Returns {package: (version, hashes)}; raises ValueError for a line of any other form."""
    packages = {}
    for line in text.replace("\\\n", "").splitlines():
        if line.partition("#")[0].strip():
            found = re.fullmatch(r"(\S+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})+)", line.rstrip())
            if not found:
                raise ValueError(f"{line[:80]!r} is not a version with hashes")
            name, version, hashes = found.groups()
            packages[canonicalize_name(name)] = Version(version), hashes.split()
    return packages


def unmet(lock: dict[str, tuple[Version, list[str]]], requirements: str) -> list[str]:
    """Returns the lines of a requirements file that the locked versions do not satisfy."""
    lines = [line.partition("#")[0].strip() for line in requirements.splitlines()]
    wanted = [Requirement(line) for line in lines if line]
    return [
        str(requirement)
        for requirement in wanted
        if (name := canonicalize_name(requirement.name)) not in lock
        or not requirement.specifier.contains(lock[name][0])
    ]


def test_there_is_one_for_every_python_that_is_mentioned():
    names = [path.name for path in LOCK_FILES]
    assert names == ["linux-x86_64-py3.11.txt", "linux-x86_64-py3.12.txt"]


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.stem)
def test_satisfies_the_requirements_with_a_hash_for_every_package(path):
    text = path.read_text()
    lock = read_lock(text)
    assert not unmet(lock, (tiny.ROOT / "requirements.txt").read_text())
    assert len(lock) > 50 and "://" not in text and "index" not in text


def test_what_a_lock_file_lacks_is_found():
    one = f"jax==0.10.2 \\\n    --hash=sha256:{64 * '0'}\n    # via flax\n"
    lock = read_lock(one)
    assert not unmet(lock, "jax>=0.10,<0.13  # a comment\n")
    assert unmet(lock, "jax>=0.11\nflax\njax<0.10.2") == ["jax>=0.11", "flax", "jax<0.10.2"]
    for line in ("jax==0.10.2", "jax>=0.10 --hash=sha256:0", "-r other.txt"):
        with pytest.raises(ValueError, match="is not a version with hashes"):
            read_lock(one + line)


def chosen_by_make(folder: Path) -> str:
    """Returns the file that make installs from with the `python` in a folder."""
    show = "show: ; @echo $(REQUIREMENTS)"
    return subprocess.run(
        ["make", "--silent", f"--eval={show}", f"BIN={folder}", "show"],
        cwd=tiny.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_make_chooses_the_file_of_its_python(tmp_path):
    name = "{}-py{}.{}.txt".format(sysconfig.get_platform(), *sys.version_info)
    is_locked = name in [path.name for path in LOCK_FILES]
    expected = f"requirements-lock/{name}" if is_locked else "requirements.txt"
    assert chosen_by_make(Path(sys.executable).parent) == expected
    for system in ("linux-x86_64-py3.10", "linux-aarch64-py3.11", "macosx-14.0-arm64-py3.12"):
        (tmp_path / "python").write_text(f"#!/bin/sh\necho {system}\n")
        (tmp_path / "python").chmod(0o755)
        assert chosen_by_make(tmp_path) == "requirements.txt"
