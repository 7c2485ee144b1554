"""Lowers functions for a platform that need not be present, and counts their operations."""

import re
from collections import Counter

import jax


def program(function, *args, platform="cpu") -> str:
    """Returns the StableHLO program of a function of arrays, before any compilation."""
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def count_operations(text: str) -> Counter:
    """Counts the operations that a StableHLO program runs; each call of a function counts."""
    bodies = dict(re.findall(r"func\.func \w+ @([\w.]+)(.*?)(?=func\.func|\Z)", text, re.DOTALL))

    def count(name):
        total = Counter(re.findall(r"stablehlo\.(\w+)", bodies[name]))
        for called in re.findall(r"call @([\w.]+)", bodies[name]):
            total += count(called)
        return total

    return count("main")
