"""Manages the process that a command runs in: start-up, memory, signals and environment."""
