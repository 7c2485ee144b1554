"""Compiles training programs for a GPU on a machine without one, and counts what they would do.

XLA compiles for an H100 on any machine. The optimized program shows every kernel with the arrays
that it reads and writes, and what the host launches. It shows no times and no results of
autotuning: cuDNN's algorithms and Triton's tiles are chosen only on the GPU itself.

`h100` describes the GPU, `hlo` reads the kernels of a step from the optimized program, `thunks`
counts launches, and `__main__` is the command.
"""
