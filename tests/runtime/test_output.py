import io
import os
import subprocess
import sys

import pytest
import tiny

from cifar_jax.runtime.output import Output

PROGRAM = """
import os, sys
from cifar_jax.runtime import entry

def main():
    print("first", flush=True)
    print(100_000 * "second")
    with open(sys.argv[1], "w") as file:  # must not become standard output
        os.write(1, b"from a library")
        file.write("result")
    return int(sys.argv[2])

entry.run_tool(main)
"""


def run(tmp_path, redirection, code=0):
    """Runs a command in a shell; returns its exit code, and what it printed to standard error."""
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -c '{PROGRAM}' {tmp_path}/file {code} {redirection}",
        shell=True,
        executable="/bin/bash",
        cwd=tiny.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (tmp_path / "file").read_text() == "result"
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("redirection", "code", "printed"),
    [
        (
            ">/dev/full",
            1,
            "error: standard output cannot be written: No space left on device\n",
        ),
        ("| head -1 >/dev/null", 141, ""),
        (">&-", 0, ""),
        (">&- 2>&- <&-", 0, ""),
    ],
)
def test_a_command_ends_whatever_happens_to_its_output(tmp_path, redirection, code, printed):
    assert run(tmp_path, redirection) == (code, printed)


def test_the_exit_code_of_a_failure_is_kept(tmp_path):
    assert run(tmp_path, ">/dev/full", code=3) == (3, "")


def test_names_that_the_output_cannot_encode_are_escaped():
    buffer = io.BytesIO()
    output = Output(io.TextIOWrapper(buffer, encoding="ascii"))
    output.write(os.fsdecode(b"\xff\xc3\xa9.png"))
    output.flush()
    assert buffer.getvalue() == rb"\udcff\xe9.png"
