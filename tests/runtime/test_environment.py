import json
import os
import re
import subprocess

import jax
import pytest
import tiny

from cifar_jax.runtime import environment


def test_environment_describes_versions_and_device():
    found = environment.environment()
    assert found["versions"]["jax"] == jax.__version__
    assert found["device"]["platform"] == "cpu" and found["device"]["count"] == 8
    assert found["device"]["kind"] not in ("", "cpu")
    json.dumps(found)


def test_cores_are_those_available_to_the_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3})
    assert environment.environment()["device"]["cores"] == 1


@pytest.mark.parametrize(
    ("text", "expected"), [("max 100000", 8), ("150000 100000", 2), ("1600000 100000", 8), ("", 8)]
)
def test_a_containers_quota_limits_the_cores(tmp_path, monkeypatch, text, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(environment, "_CPU_QUOTA", tmp_path / "cpu.max")
    assert environment.num_cores() == 8
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    assert environment.num_cores() == expected


def test_the_commit_of_the_checkout_is_found():
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tiny.ROOT, capture_output=True, text=True
    )
    commit = environment.git_commit()
    if head.returncode:
        assert commit is None  # an installed copy
    else:
        assert re.fullmatch(rf"{head.stdout.strip()}(-dirty)?", commit)
