"""Counts what the host launches, in XLA's dump of a GPU program's thunks.

A thunk is one action of XLA's runtime: launch a kernel, call a library, copy, or replay a CUDA
graph ("command buffer"). A loop is a thunk whose condition and body are sequences of thunks. The
dump indents the thunks inside another thunk.
"""

import re
from typing import NamedTuple

_THUNK = re.compile(r"^( *)\d+: k(\w+)")


class Launches(NamedTuple):
    """The number of launches by the host, and of kernels that the device runs.

    Attributes:
      per_call: Launches per call, outside its steps.
      per_step: Launches per step; 0 if the loop runs inside a CUDA graph.
      kernels_per_step: Kernels, library calls and copies per step, including the loop's condition.
    """

    per_call: int
    per_step: int
    kernels_per_step: int


def count(dump: str) -> Launches:
    """Counts the launches of a program with one loop.

    Args:
      dump: The text of *.thunk_sequence_after_thunk_passes.txt.

    Raises:
      ValueError: If the program has no loop.
    """
    per_call = per_step = kernels = 0
    loop_indent = graph_indent = None
    in_loop = False
    for line in dump.splitlines():
        if not (match := _THUNK.match(line)):
            continue
        indent, kind = len(match[1]), match[2]
        if graph_indent is not None and indent <= graph_indent:
            graph_indent = None
        if in_loop and indent <= loop_indent:
            in_loop = False
        if kind == "While" and loop_indent is None:
            loop_indent, in_loop = indent, True
            continue
        kernels += in_loop and kind != "CommandBuffer"
        if graph_indent is None:
            per_step += in_loop
            per_call += not in_loop
        if kind == "CommandBuffer" and graph_indent is None:
            graph_indent = indent
    if loop_indent is None:
        raise ValueError("the program contains no loop")
    return Launches(per_call, per_step, kernels)
