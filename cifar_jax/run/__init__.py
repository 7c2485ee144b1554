"""Manages a run's workdir: its lock, config, checkpoints, metrics and summary."""
