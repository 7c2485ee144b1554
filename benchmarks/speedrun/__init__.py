"""Times the recipes in configs/speedrun/ from start to end: python -m benchmarks.speedrun.

`in_jax` and `in_torch` (with `torch_*`) run a recipe, `measure` makes the records, `summary`
formats them next to the published results in `records`, and `__main__` is the command.
"""
