"""Predicts the efficiency of training on many GPUs from step times, bytes and link speeds.

Nothing here has run on more than one GPU. `networks` lists the networks and counts their
gradients, `links` computes the time of an all-reduce, `step_times` has the step time on one GPU,
`compiled` compiles the programs for H100s, and `predict` adds up the times. `__main__` is the
command.
"""
